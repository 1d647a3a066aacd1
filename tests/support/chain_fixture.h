// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The fixture of tests about images that stand on other images, in memory: made by the
// tool's "create", written to before anything stands on them.

#ifndef ADDCOW_TESTS_SUPPORT_CHAIN_FIXTURE_H
#define ADDCOW_TESTS_SUPPORT_CHAIN_FIXTURE_H

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/image/image.h"
#include "common/ops/create.h"
#include "common/ops/rebase.h"
#include "tests/support/expect.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/random.h"
#include "tests/support/test_image.h"

namespace addcow {

class ChainFixture : public testing::Test {
 protected:
  static constexpr uint64_t kSize = 4 * kC + 5000;

  // A raw file of noise, /vm/base.img.
  ChainFixture() {
    fake_.MakeDirectory(kDirectory);
    base_ = random_.Bytes(kSize);
    fake_.Put(kBackingPath, base_);
  }

  static std::string Path(const std::string& name) { return "/vm/" + name + ".add-cow"; }

  Result<CreateResult> Create(const std::string& name, const std::string& backing,
                              const std::string& format, uint64_t cluster_size = kC,
                              std::optional<uint64_t> size = {}) {
    CreateOptions options{.add_cow_path = Path(name),
                          .image_name = name + ".raw",
                          .backing = NamedFile{backing, format},
                          .size = size};
    options.cluster_size = cluster_size;
    if (cluster_size != kC) options.revision = Revision::kAcow;
    return CreateImage(fake_, options);
  }

  // base.img <- a <- b <- c, with clusters of three sizes.
  void MakeThree() {
    ASSERT_OK(Create("a", "base.img", "raw"));
    ASSERT_OK(Create("b", "a.add-cow", "add-cow", 4 * kKiB));
    ASSERT_OK(Create("c", "b.add-cow", "add-cow", 2 * kMiB));
  }

  // As another program could: so that it stands on itself, say.
  void SetBacking(const std::string& name, const NamedFile& backing) {
    const auto add_cow = fake_.Find(Path(name));
    auto header = ParseHeader(add_cow->Bytes(0, kHeaderSize), "x");
    ASSERT_OK(header);
    header->backing = backing;
    ASSERT_OK_AND_ASSIGN(const HeaderBytes bytes, SerializeHeader(*header, "x"));
    ASSERT_TRUE(add_cow->Write(bytes, 0));
  }

  Result<std::unique_ptr<Image>> Open(const std::string& name,
                                      OpenMode mode = OpenMode::kReadOnly,
                                      const AccessOptions& access = {}) {
    return Image::Open(
        fake_, {.add_cow_path = Path(name), .mode = mode, .access = access},
        [this](LogLevel, const std::string& text) { messages_.push_back(text); });
  }

  // And as if that had been before anything stood on it.
  void Write(const std::string& name, uint64_t offset, std::span<const std::byte> data) {
    auto image = Open(name, OpenMode::kReadWrite);
    ASSERT_OK(image);
    ASSERT_OK((*image)->Write(data, offset));
    ASSERT_OK((*image)->Close());
    image->reset();
    NoteAnew();
  }

  // Those of MakeThree that are there accept what they stand on as it is now.
  void NoteAnew() {
    struct Link {
      const char* name;
      NamedFile below;
    };
    for (const auto& [name, below] :
         {Link{"a", {"base.img", "raw"}}, Link{"b", {"a.add-cow", "add-cow"}},
          Link{"c", {"b.add-cow", "add-cow"}}})
      if (fake_.Find(Path(name)) != nullptr) {
        ASSERT_OK(RebaseUnsafely(
            fake_, {.add_cow_path = Path(name), .backing = below, .image_name = {}}));
      }
  }

  std::vector<std::byte> Read(const std::string& name) {
    auto image = Open(name);
    EXPECT_OK(image);
    return image ? ReadAll(**image) : std::vector<std::byte>();
  }

  Random random_{TestSeed()};
  FakeFileSystem fake_;
  std::vector<std::byte> base_;
  std::vector<std::string> messages_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_CHAIN_FIXTURE_H
