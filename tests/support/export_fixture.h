// SPDX-License-Identifier: LGPL-2.1-or-later
//
// An image that is exported, on a FakeFileSystem, by all that knows nothing of QEMU. In place
// of the qcow2 there is a raw file, which has the backing file's bytes where nothing was
// written yet, as a qcow2 reads.

#ifndef ADDCOW_TESTS_SUPPORT_EXPORT_FIXTURE_H
#define ADDCOW_TESTS_SUPPORT_EXPORT_FIXTURE_H

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/units.h"
#include "common/ops/export.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/test_image.h"
#include "tests/support/with_subclusters.h"

namespace addcow {

inline constexpr const char* kExportDirectory = "/out";
inline constexpr const char* kExportPath = "/out/x.qcow2";

class ExportedImage {
 public:
  // Writes its three files, and makes the directory that it is exported to.
  void PutInto(FakeFileSystem& files, const ImageSpec& spec,
               const std::vector<uint64_t>& subclusters = {}) {
    files.MakeDirectory(kDirectory);
    files.MakeDirectory(kExportDirectory);
    ASSERT_OK_AND_ASSIGN(disk_, MakeTestImage(files, kDirectory, spec));
    if (!subclusters.empty()) AddSubclusters(files, subclusters, &disk_);
    base_.clear();
    if (spec.backing_size) base_ = files.Find(kBackingPath)->Bytes(0, *spec.backing_size);
  }
  // Puts what begins as a qcow2 where it is exported to.
  static void PutOld(FakeFileSystem& files) {
    std::vector<std::byte> old = Repeat(3, 2 * kC + 100);
    constexpr std::string_view kMagic = "QFI\xfb";
    std::ranges::copy(std::as_bytes(std::span(kMagic)), old.begin());
    files.Put(kExportPath, old);
  }

  static ExportOptions Options(bool force = false) {
    ExportOptions options;
    options.source.add_cow_path = kAddCowPath;
    options.qcow2_path = kExportPath;
    options.force = force;
    return options;
  }

  // `opened`, if given, is called when it can be written to.
  Result<ExportResult> Export(FileSystem& files, const ExportOptions& options,
                              const std::function<void()>& opened = {}) const {
    return ExportImage(
        files, options, [&](const NewQcow2& image) -> Result<std::unique_ptr<CommitTarget>> {
          {
            ADDCOW_TRY_ASSIGN(auto file, files.Open(image.path, OpenMode::kReadWrite));
            ADDCOW_TRY(file->Truncate(image.size));
            const auto shown = std::min<uint64_t>(base_.size(), image.size);
            if (!image.backing.empty())
              ADDCOW_TRY(file->Write(std::span(base_).first(shown), 0));
          }
          auto target = OpenCommitTarget(
              files, {.path = image.path, .format = std::string(kRawFormat)}, {});
          if (opened) opened();
          return target;
        });
  }

  // What is read of the disk, and of what it is exported to.
  const std::vector<std::byte>& disk() const { return disk_; }
  std::vector<std::byte> exported() const {
    auto whole = disk_;
    whole.resize(RoundUp(whole.size(), kSectorSize));
    return whole;
  }

  void ExpectExported(const FakeFileSystem& files) const {
    const auto output = files.Find(kExportPath);
    ASSERT_NE(output, nullptr);
    EXPECT_EQ(Difference(output->Bytes(0, output->size()), exported()), "");
  }
  // That all files are there and unchanged, but for what it is exported to; and no others.
  static void ExpectOnlyOutput(const FakeFileSystem& before, const FakeFileSystem& files) {
    for (const std::string& path : before.List()) {
      if (path == kExportPath) continue;
      const auto inode = files.Find(path);
      ASSERT_NE(inode, nullptr) << path;
      EXPECT_TRUE(inode->SameBytes(*before.Find(path))) << path;
    }
    for (const std::string& path : files.List())
      EXPECT_TRUE(path == kExportPath || before.Find(path) != nullptr) << path;
  }

 private:
  std::vector<std::byte> disk_;
  std::vector<std::byte> base_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_EXPORT_FIXTURE_H
