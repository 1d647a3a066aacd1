// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A real nbdkit with the plugin of the build tree, on a Unix socket in a
// scratch directory, and libnbd clients of it. The server is stopped and the
// directory removed with the fixture, also when a test fails.

#ifndef ADDCOW_TESTS_NBD_SERVER_H
#define ADDCOW_TESTS_NBD_SERVER_H

#include <gtest/gtest.h>
#include <libnbd.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/io/file_system.h"
#include "tests/support/expect.h"
#include "tests/support/test_image.h"

namespace addcow {

struct NbdDelete {
  void operator()(nbd_handle* nbd) const;
};
// Says goodbye and closes when it goes: nbdkit aborts when a client leaves
// with requests in flight, so none may be left by then.
using NbdHandle = std::unique_ptr<nbd_handle, NbdDelete>;

class NbdTest : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Makes an image in the scratch directory; sets contents_ to what it reads.
  void MakeImage(const ImageSpec& spec);

  // Starts nbdkit with `options` before and `parameters` after the plugin's
  // name and file, and waits until it listens.
  void StartServer(const std::vector<std::string>& options = {},
                   const std::vector<std::string>& parameters = {});

  // SIGTERM; waits for the end and expects exit status 0.
  void StopServer();

  // SIGKILL; waits for the end.
  void KillServer();

  NbdHandle Connect();

  // The disk as the engine reads it from the files, read only.
  std::vector<std::byte> ReadFromFiles();

  // How many bytes of the disk the image file has, as the bits in the add-cow file say.
  uint64_t AllocatedInFile();

  std::string directory_;
  std::vector<std::byte> contents_;

 private:
  Result<std::unique_ptr<Image>> OpenFiles() const;

  pid_t server_ = -1;
};

// The range through the connection, or empty with a test failure.
std::vector<std::byte> NbdRead(nbd_handle* nbd, uint64_t offset, uint64_t count);

}  // namespace addcow

// For libnbd calls that return -1 on error.
#define ASSERT_NBD(expr) ASSERT_NE(expr, -1) << nbd_get_error()
#define EXPECT_NBD(expr) EXPECT_NE(expr, -1) << nbd_get_error()

#endif  // ADDCOW_TESTS_NBD_SERVER_H
