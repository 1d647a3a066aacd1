// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A fixture of copy-on-read: an image on a base behind a double (source_double.h), and a
// Fetch over it, whose thread is the test (RunAll).

#ifndef ADDCOW_TESTS_SUPPORT_FETCH_FIXTURE_H
#define ADDCOW_TESTS_SUPPORT_FETCH_FIXTURE_H

#include <optional>
#include <vector>

#include "common/jobs/fetch.h"
#include "tests/support/engine_lines.h"
#include "tests/support/source_double.h"

namespace addcow {

class FetchFixture : public EngineLines {
 protected:
  using Reads = std::vector<ByteRange>;
  static constexpr Fetch::Options kSmall{.size = kC};
  static constexpr Fetch::Options kLarge{.size = kMiB};

  void TearDown() override { fetch_.reset(); }

  void MakeFetch(const ImageSpec& spec, const Fetch::Options& options = {}) {
    fetch_.reset();
    Make(spec);
    Open(options);
  }
  // As a new process does. The old one's image is dropped, not closed.
  void Open(const Fetch::Options& options = {}, OpenMode mode = OpenMode::kReadWrite) {
    fetch_.reset();
    image_.reset();
    const auto log = [this](LogLevel, const std::string& message) {
      messages_.push_back(message);
    };
    ASSERT_OK_AND_ASSIGN(
        image_,
        OpenOnDouble(seam_,
                     {.add_cow_path = kAddCowPath, .mode = mode, .subclusters = subclusters_},
                     log, &source_));
    fetch_.emplace(*image_, options, log);
    log_.Clear();
  }
  void StopCleanly() {
    fetch_->Stop();
    RunAll();
    ASSERT_OK(image_->Close());
  }

  void RunAll() {
    while (fetch_->RunOne()) {
    }
  }

  // Through Fetch, against the reference.
  void ExpectRead(uint64_t offset, uint64_t length) {
    std::vector<std::byte> buffer(length, std::byte{0xee});
    ASSERT_OK(fetch_->Read(buffer, offset));
    EXPECT_EQ(reference_->Check(buffer, offset), "");
  }
  void ExpectReadOfAll() { ExpectRead(0, reference_->size()); }
  // Either way, now, after a flush, and for the next process.
  void ExpectAsReferenceEverAfter() {
    ExpectAsReference();
    ExpectReadOfAll();
    RunAll();
    ExpectAsReference();
    ASSERT_OK(image_->Flush());
    ExpectAsReference();
    Open();
    ExpectAsReference();
  }

  SourceDouble* source_ = nullptr;
  std::optional<Fetch> fetch_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_FETCH_FIXTURE_H
