// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the disk of a test image must read, when it is opened anew.

#ifndef ADDCOW_TESTS_SUPPORT_EXPECT_READS_H
#define ADDCOW_TESTS_SUPPORT_EXPECT_READS_H

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/expect.h"
#include "tests/support/test_image.h"

namespace addcow {

// That the image in `directory` can be opened, and reads so. One thread at a time.
inline void ExpectReads(FileSystem& files, const std::vector<std::byte>& contents,
                        const std::string& directory = kDirectory,
                        OpenMode mode = OpenMode::kReadOnly) {
  ASSERT_OK_AND_ASSIGN(const auto image, OpenTestImage(files, directory, mode));
  // One buffer for all: fresh memory would be most of the work.
  static std::vector<std::byte> bytes;
  ReadAll(*image, bytes);
  EXPECT_EQ(Difference(bytes, contents), "");
}

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_EXPECT_READS_H
