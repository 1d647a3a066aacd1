// SPDX-License-Identifier: LGPL-2.1-or-later
//
// NbdWriter against real servers: what they differ in, and what becomes of them.

#include "common/source/nbd_writer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/base/units.h"
#include "common/source/nbd_uri.h"
#include "common/source/qemu_server.h"
#include "tests/source/base_server.h"
#include "tests/support/expect.h"
#include "tests/support/random.h"

namespace addcow {
namespace {

class NbdWriterTest : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("command -v nbdkit >/dev/null") != 0)
      GTEST_SKIP() << "nbdkit is not installed";
    std::string name = std::filesystem::temp_directory_path() / "addcow-writer.XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    server_ = std::make_unique<BaseServer>(directory_);
  }
  void TearDown() override {
    writer_.reset();
    server_.reset();
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }

  std::string path() const { return directory_ + "/disk"; }

  // A file of bytes that are not zero, in `contents_` as well.
  void MakeFile(uint64_t size) {
    Random random(23);
    contents_ = random.Bytes(size);
    std::ofstream file(path(), std::ios::binary);
    file.write(reinterpret_cast<const char*>(contents_.data()),
               static_cast<std::streamsize>(size));
  }
  void Serve(uint64_t size, std::vector<std::string> words, std::vector<std::string> end = {}) {
    MakeFile(size);
    words.insert(words.end(), {"file", path()});
    words.insert(words.end(), end.begin(), end.end());
    ASSERT_NO_FATAL_FAILURE(server_->Start(words));
    ASSERT_OK_AND_ASSIGN(writer_, NbdWriter::Open(ServerOfUri(server_->uri()), options_));
  }

  void Write(uint64_t offset, uint64_t length) {
    Random random(offset + length);
    const auto bytes = random.Bytes(length);
    ASSERT_OK(writer_->Flush());
    ASSERT_OK(writer_->Write(bytes, offset));
    std::ranges::copy(bytes, contents_.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  void Zero(uint64_t offset, uint64_t length) {
    ASSERT_OK(writer_->Flush());  // some of it was written just now
    ASSERT_OK(writer_->Zero(offset, length));
    std::fill_n(contents_.begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte{0});
  }
  void WriteHereAndThere() {
    const uint64_t size = writer_->size();
    Write(0, 3 * kMiB + 100);
    Write(3 * kMiB + 100, 10);
    Zero(kMiB + 7, kMiB);
    Write(4 * kMiB - 1, 2);
    Zero(5 * kMiB, 64 * kKiB);
    Zero(6 * kMiB + 1, 3);
    Write(size - 700, 700);
    Zero(size - 300, 300);
    Write(size - 1, 1);
  }
  void ExpectFile() {
    std::ifstream file(path(), std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
    ASSERT_EQ(bytes.size(), contents_.size());
    const auto* const data = reinterpret_cast<const std::byte*>(bytes.data());
    const auto first = std::mismatch(contents_.begin(), contents_.end(), data).first;
    EXPECT_EQ(first - contents_.begin(), static_cast<std::ptrdiff_t>(contents_.size()));
  }

  NbdWriter::Options options_ = {.timeout = std::chrono::seconds(10)};
  std::string directory_;
  std::unique_ptr<BaseServer> server_;
  std::unique_ptr<NbdWriter> writer_;
  std::vector<std::byte> contents_;
};

TEST_F(NbdWriterTest, WritesAndZeroesAnyBytes) {
  Serve(8 * kMiB, {});
  WriteHereAndThere();
  ASSERT_OK(writer_->Close());
  ExpectFile();
}

TEST_F(NbdWriterTest, ServerWithoutZeroes) {
  Serve(8 * kMiB, {"--filter=nozero"});
  WriteHereAndThere();
  ASSERT_OK(writer_->Close());
  ExpectFile();
}

TEST_F(NbdWriterTest, ServerThatWantsWholeBlocksOf4KiB) {
  if (std::system("nbdkit --filter=blocksize-policy null --dump-plugin >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "nbdkit has no blocksize-policy filter";
  Serve(8 * kMiB, {"--filter=blocksize-policy"},
        {"blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=65536",
         "blocksize-error-policy=error"});
  WriteHereAndThere();
  ASSERT_OK(writer_->Close());
  ExpectFile();
}

TEST_F(NbdWriterTest, WhatIsFlushedIsThere) {
  Serve(8 * kMiB, {});
  WriteHereAndThere();
  ASSERT_OK(writer_->Flush());
  ExpectFile();
}

TEST_F(NbdWriterTest, ReadOnlyServerIsRefused) {
  MakeFile(kMiB);
  ASSERT_NO_FATAL_FAILURE(server_->Start({"-r", "file", path()}));
  const auto opened = NbdWriter::Open(ServerOfUri(server_->uri()), options_);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), EROFS);
}

TEST_F(NbdWriterTest, AnErrorOfTheServerIsTold) {
  Serve(8 * kMiB, {"--filter=error"}, {"error-pwrite=ENOSPC", "error-pwrite-rate=100%"});
  const std::vector<std::byte> bytes(kMiB);
  Status status = writer_->Write(bytes, 0);
  if (status) status = writer_->Flush();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), ENOSPC);
  // And stays: what it did is not known.
  EXPECT_FALSE(writer_->Flush());
}

TEST_F(NbdWriterTest, AServerThatIsKilledIsAnError) {
  Serve(8 * kMiB, {"--filter=delay"}, {"wdelay=2"});
  const std::vector<std::byte> bytes(kMiB);
  ASSERT_OK(writer_->Write(bytes, 0));
  server_->Kill();
  EXPECT_FALSE(writer_->Flush());
}

TEST_F(NbdWriterTest, AServerThatDoesNotAnswerIsAnErrorInTime) {
  options_.timeout = std::chrono::seconds(1);
  Serve(8 * kMiB, {});
  server_->Freeze();
  const std::vector<std::byte> bytes(kMiB);
  Status status = writer_->Write(bytes, 0);
  if (status) status = writer_->Flush();
  server_->Thaw();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), ETIMEDOUT);
}

TEST_F(NbdWriterTest, AnInterruptionEndsTheWaiting) {
  bool interrupted = false;
  options_.interrupted = [&] { return interrupted; };
  Serve(8 * kMiB, {});
  server_->Freeze();
  const std::vector<std::byte> bytes(kMiB);
  ASSERT_OK(writer_->Write(bytes, 0));
  interrupted = true;
  const Status flushed = writer_->Flush();
  server_->Thaw();
  ASSERT_FALSE(flushed);
  EXPECT_EQ(flushed.error().code(), kErrInterrupted);
}

TEST_F(NbdWriterTest, AnImageOfQemuIsWrittenAndClosed) {
  if (std::system("command -v qemu-nbd >/dev/null && command -v qemu-img >/dev/null") != 0)
    GTEST_SKIP() << "qemu-nbd or qemu-img is not installed";
  const std::string image = directory_ + "/a,b.qcow2";
  ASSERT_EQ(std::system(("qemu-img create -q -f qcow2 -o lazy_refcounts=on '" + image +
                         "' 8M && truncate -s 8M " + path())
                            .c_str()),
            0);
  contents_.assign(8 * kMiB, std::byte{0});
  ASSERT_OK_AND_ASSIGN(auto server,
                       ServerOfQemuImage(PosixFileSystem(),
                                         {.path = image, .format = "qcow2", .writable = true}));
  ASSERT_OK_AND_ASSIGN(writer_, NbdWriter::Open(std::move(server), options_));
  WriteHereAndThere();
  ASSERT_OK(writer_->Close());
  // Nobody has it open any more, and it is clean.
  ASSERT_EQ(std::system(("qemu-img check -q '" + image + "' && qemu-img convert -O raw '" +
                         image + "' " + path())
                            .c_str()),
            0);
  ExpectFile();
}

}  // namespace
}  // namespace addcow
