// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb that changes the size of the disk. See verbs_fuzzer.cc.

#include "common/ops/resize.h"

#include <algorithm>

#include "fuzz/must.h"
#include "fuzz/verbs_session.h"
#include "tests/support/test_image.h"

namespace addcow::fuzz {

namespace {

constexpr uint64_t kMostCompleted = 64 * kMiB;

// The size that is asked for; 0: none that a disk can have.
uint64_t SizeAskedFor(const SizeChange& change, uint64_t size) {
  switch (change.kind) {
    case SizeChange::Kind::kGrowBy:
      return change.bytes <= kMaxOffset - size ? size + change.bytes : 0;
    case SizeChange::Kind::kShrinkBy:
      return change.bytes < size ? size - change.bytes : 0;
    case SizeChange::Kind::kTo:
      break;
  }
  return change.bytes;
}

}  // namespace

// A byte and a size: how it is meant, and whether it may be smaller; or, by its seventh bit,
// a disk of so many KiB more or less.
void VerbsSession::Resize(Input& input) {
  const unsigned code = input.Byte();
  ResizeOptions options{
      .source = {.add_cow_path = kAddCow}, .size = {}, .shrink = (code & 4) != 0};
  constexpr SizeChange::Kind kKinds[] = {SizeChange::Kind::kTo, SizeChange::Kind::kGrowBy,
                                         SizeChange::Kind::kShrinkBy, SizeChange::Kind::kTo};
  options.size.kind = kKinds[code & 3];
  options.size.bytes = (code & 64) != 0 ? input.Byte() * uint64_t{1000} : input.Size();
  const uint64_t size = disk_ ? SizeAskedFor(options.size, disk_->size()) : 0;
  const bool refused =
      disk_ && (size == 0 || Has(kBlockDevice) || (size < disk_->size() && !options.shrink));
  if (disk_ && (!IsWalked() || size / disk_->cluster() > kMaxWalkedClusters)) return;
  if (disk_ && disk_->CountPartial().clusters > kMostCompleted / disk_->cluster()) return;

  const auto result = ResizeImage(files_, options, nullptr);
  if (!result) {
    MustBeSound(result.error());
    FUZZ_MUST(!disk_ || refused || Has(kAddCowReadOnly), "resize: {}",
              result.error().Message());
    return MustBeUnchanged("resize");
  }
  FUZZ_MUST(disk_ && !refused, "resize accepted what must be refused");
  FUZZ_MUST(result->old_size == disk_->size() && result->new_size == size,
            "the sizes that resize says");
  MustHaveBeenResized(size);
}

void VerbsSession::MustHaveBeenResized(uint64_t size) const {
  const auto now = DiskByTheRules::Read(files_, kAddCow);
  FUZZ_MUST(now.has_value(), "resize made the files unsound");
  FUZZ_MUST(now->size() == size, "the disk has {} bytes, not {}", now->size(), size);
  FUZZ_MUST(now->StrayBits() == 0, "resize left stray bits");
  const HeaderFields& was = disk_->header();
  const HeaderFields& is = now->header();
  FUZZ_MUST(is.revision == was.revision && is.cluster == was.cluster &&
                is.image_name == was.image_name && is.backing_name == was.backing_name &&
                is.optional_features == was.optional_features &&
                is.no_subclusters == was.no_subclusters,
            "resize changed the header");
  FUZZ_MUST(is.all_allocated || !was.all_allocated, "ALL_ALLOCATED after resize");
  FUZZ_MUST(!is.subclusters || was.subclusters, "SUBCLUSTERS after resize");
  const uint64_t first = std::min(disk_->clusters(), now->clusters());
  FUZZ_MUST(
      !is.all_allocated || now->CountBits(first, now->clusters()) == now->clusters() - first,
      "a new bit is 0 under ALL_ALLOCATED after resize");
  const uint64_t both = std::min(size, disk_->size());
  for (const DiskByTheRules* disk : {&*disk_, &*now}) {
    for (const uint64_t cluster : disk->Sample()) {
      const uint64_t start = disk->Start(cluster);
      const uint64_t end = std::min(disk->EndOf(cluster), size);
      if (start >= end) continue;
      std::vector<std::byte> wanted(end - start);
      if (start < both)
        disk_->Read(std::span(wanted).first(std::min(end, both) - start), start);
      const auto wrong = Difference(now->Bytes(start, end - start), wanted, start);
      FUZZ_MUST(wrong.empty(), "after resize from {} to {}: {}", disk_->size(), size, wrong);
    }
  }
}

}  // namespace addcow::fuzz
