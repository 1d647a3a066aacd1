// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A layer that is imported, on a FakeFileSystem: its disk lies in a file of its own, over a
// base that ends before it does. Its runs begin and end anywhere.

#ifndef ADDCOW_TESTS_SUPPORT_IMPORT_FIXTURE_H
#define ADDCOW_TESTS_SUPPORT_IMPORT_FIXTURE_H

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "common/ops/import.h"
#include "common/source/file_source.h"
#include "tests/support/expect_reads.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/random.h"
#include "tests/support/test_image.h"

namespace addcow {

class ImportLayerFixture {
 public:
  static constexpr uint64_t kSize = 5 * kC + 1024;
  static constexpr uint64_t kBaseSize = 4 * kC - 3000;

  ImportLayerFixture() {
    Random random(7);
    layer_ = random.Bytes(kSize);
    base_ = random.Bytes(kBaseSize);
    kept_.Put("/layer", layer_);
  }

  void PutInto(FakeFileSystem& files) const {
    files.MakeDirectory(kDirectory);
    files.Put(kBackingPath, base_);
  }

  CreateOptions Options() const {
    CreateOptions options;
    options.add_cow_path = kAddCowPath;
    options.image_name = "disk.raw";
    if (has_base) options.backing = NamedFile{"base.img", "raw"};
    return options;
  }

  // The layer itself is on no disk that fails.
  Result<ImportResult> Import(FileSystem& files, const CreateOptions& options) {
    ADDCOW_TRY_ASSIGN(auto file, kept_.Open("/layer", OpenMode::kReadOnly));
    FileSource source(std::move(file), kSize);
    return ImportLayer(files, options, source, runs);
  }

  std::vector<std::byte> Disk() const {
    std::vector<std::byte> disk(kSize);
    if (has_base) std::ranges::copy(base_, disk.begin());
    for (const LayerRun& run : runs)
      for (uint64_t at = run.range.offset; at < run.range.end(); at++)
        disk[at] = run.data ? layer_[at] : std::byte{0};
    return disk;
  }
  void ExpectRead(FileSystem& files) const {
    ExpectReads(files, Disk(), kDirectory, OpenMode::kReadWrite);
  }

  uint64_t data_bytes() const { return Bytes(true); }
  uint64_t zero_bytes() const { return Bytes(false); }

  bool has_base = true;
  std::vector<LayerRun> runs = {{{512, 1024}, true},
                                {{2048, 512}, false},
                                {{kC, kC}, true},
                                {{2 * kC, kS}, false},
                                {{3 * kC + 5 * kS + 512, 2 * kS}, true},
                                {{4 * kC - 3512, 1024}, false},
                                {{5 * kC, 1024}, true}};

 private:
  uint64_t Bytes(bool data) const {
    uint64_t bytes = 0;
    for (const LayerRun& run : runs)
      if (run.data == data) bytes += run.range.length;
    return bytes;
  }

  FakeFileSystem kept_;
  std::vector<std::byte> layer_;
  std::vector<std::byte> base_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_IMPORT_FIXTURE_H
