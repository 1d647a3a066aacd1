// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verbs that move data between an image and what it stands on, and those that look at
// data, or at all files: commit, rebase without -u, compare, measure, import, export, ls. See
// verbs_fuzzer.cc.

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/ops/commit.h"
#include "common/ops/compare.h"
#include "common/ops/export.h"
#include "common/ops/import.h"
#include "common/ops/list.h"
#include "common/ops/measure.h"
#include "common/ops/rebase_data.h"
#include "common/source/file_source.h"
#include "fuzz/disk_rules.h"
#include "fuzz/must.h"
#include "fuzz/scene.h"
#include "fuzz/verbs_session.h"
#include "tests/support/test_image.h"

namespace addcow::fuzz {

bool VerbsSession::IsCopied() const {
  const uint64_t limit = Has(kNoPunch | kNoSeek | kCoarseZero) ? kMaxWritten : kMaxCounted;
  return !disk_ || (disk_->size() <= limit && disk_->clusters() <= kMaxCopiedClusters);
}

void VerbsSession::Commit(Input& input) {
  const unsigned how = input.Byte();
  if (!IsCopied()) return;
  const bool two_names = HasTwoNames((how & 4) != 0);
  CommitOptions options{.add_cow_paths = {kAddCow}};
  options.dry_run = (how & 1) != 0;
  options.drop = (how & 2) != 0;
  const auto result = CommitImages(files_, options);
  created_ = true;  // the base changes, too
  if (!result) {
    MustBeSound(result.error());
    if (!disk_) return MustBeUnchanged("commit");
    return MustReadTheSame("commit", DiskByTheRules::Backing::kOptional);
  }
  FUZZ_MUST(disk_.has_value() && !two_names, "commit accepted what must be refused");
  FUZZ_MUST(result->images.size() == 1, "commit's answer");
  if (options.dry_run) return MustBeUnchanged("commit --dry-run");
  MustReadTheSame("commit", DiskByTheRules::Backing::kWanted);
  if (options.drop) return;
  const auto now = DiskByTheRules::Read(files_, kAddCow);
  FUZZ_MUST(!now->header().all_allocated && !now->header().subclusters, "flags after commit");
  FUZZ_MUST(now->CountBits(0, UINT64_MAX) == 0, "a bit is left after commit");
}

void VerbsSession::RebaseData(Input& input) {
  static const std::array<const char*, 7> kNames = {
      "base.img", "b.img", "disk.raw", "x.add-cow", "v1.add-cow", "nowhere", "v20.add-cow"};
  const unsigned name = input.Byte();
  if (!IsCopied()) return;
  const bool two_names = HasTwoNames((name & 32) != 0);
  RebaseOptions options{.add_cow_path = kAddCow};
  if (name % 8 == 7)
    options.no_backing = true;
  else
    options.backing = NamedFile{kNames[name % 8], name < 192 ? "raw" : "add-cow"};
  const auto result = RebaseSafely(files_, options, nullptr, [](uint64_t, uint64_t) {});
  if (!result) {
    MustBeSound(result.error());
    if (!disk_) return MustBeUnchanged("rebase");
    return MustReadTheSame("rebase", DiskByTheRules::Backing::kOptional);
  }
  FUZZ_MUST(disk_.has_value() && !two_names, "rebase accepted what must be refused");
  FUZZ_MUST(result->header.backing == options.backing, "the backing file after rebase");
  // What reads by the rules knows of no chain.
  if (options.backing && options.backing->format != "raw") return;
  MustReadTheSame("rebase", DiskByTheRules::Backing::kWanted);
}

void VerbsSession::Compare() {
  if (!IsCopied()) return;
  const NamedDisk disk{kAddCow, "add-cow"};
  const auto result = CompareDisks(files_, {.a = disk, .b = disk});
  MustBeUnchanged("compare");
  if (!result) {
    MustBeSound(result.error());
    FUZZ_MUST(!disk_, "compare: {}", result.error().Message());
    return;
  }
  FUZZ_MUST(disk_.has_value(), "compare accepted what must be refused");
  FUZZ_MUST(result->difference == Difference::kNone, "a disk is not what it is");
  FUZZ_MUST(result->size_a == disk_->size(), "the size that compare tells");
}

void VerbsSession::Measure(Input& input) {
  const unsigned how = input.Byte();
  if (!IsCopied()) return;
  const auto what = (how & 1) != 0 ? MeasureFor::kQcow2 : MeasureFor::kRaw;
  const auto result = MeasureDisk(files_, {kAddCow, "add-cow"}, {}, what, {});
  MustBeUnchanged("measure");
  if (!result) {
    MustBeSound(result.error());
    FUZZ_MUST(!disk_, "measure: {}", result.error().Message());
    return;
  }
  FUZZ_MUST(disk_.has_value(), "measure accepted what must be refused");
  FUZZ_MUST(result->required <= result->fully_allocated, "more is required than all");
  if (what == MeasureFor::kRaw)
    FUZZ_MUST(result->fully_allocated == disk_->size(), "the size that measure tells");
}

void VerbsSession::List() {
  const auto listing = ListImages(files_, "/vm");
  MustBeUnchanged("ls");
  if (!listing) return MustBeSound(listing.error());
  bool found = false;
  for (size_t i = 0; i < listing->disks.size(); i++) {
    const ListedDisk& disk = listing->disks[i];
    // It may have another name, too.
    found = found || (disk.info && files_.Find(disk.path) == files_.Find(kAddCow));
    for (const size_t overlay : disk.overlays)
      FUZZ_MUST(listing->disks[overlay].base == i, "ls: what stands on {}", disk.path);
  }
  FUZZ_MUST(!disk_ || found, "ls leaves the image out");
}

// Of a layer of its own, whose runs the input has.
void VerbsSession::Import(Input& input) {
  constexpr uint64_t kLayerSize = 6 * 65536 + 700;
  constexpr const char* kNew = "/vm/new.add-cow";
  const unsigned how = input.Byte();
  std::vector<LayerRun> runs;
  for (uint64_t at = 0; runs.size() < 4 && at < kLayerSize;) {
    const uint64_t offset = at + uint64_t{512} * input.Byte();
    const uint64_t end =
        std::min<uint64_t>(offset + uint64_t{512} * (1u + input.Byte()), kLayerSize);
    if (offset >= end) break;
    runs.push_back({{offset, end - offset}, (how & 1) != 0 || runs.size() % 2 == 0});
    at = end + 1;
  }
  FakeFileSystem other;
  other.Put("/layer", Repeat(0x5a, kLayerSize));
  auto file = other.Open("/layer", OpenMode::kReadOnly);
  FUZZ_MUST_SUCCEED(file, "open");
  FileSource layer(std::move(*file), kLayerSize);
  CreateOptions options;
  options.add_cow_path = kNew;
  options.image_name = "new.raw";
  options.subclusters = (how & 2) == 0;
  if ((how & 4) != 0) options.backing = NamedFile{"b.img", "raw"};
  if ((how & 8) != 0) {
    options.revision = Revision::kAcow;
    options.cluster_size = uint64_t{4096} << ((how >> 4) % 10);
  }
  const auto result = ImportLayer(files_, options, layer, runs);
  created_ = true;
  if (!result) {
    MustBeSound(result.error());
    return MustBeUnchanged("import");
  }
  const auto made = DiskByTheRules::Read(files_, kNew);
  FUZZ_MUST(made && made->size() == kLayerSize, "what import made is not sound");
  FUZZ_MUST(made->StrayBits() == 0, "import left stray bits");
  for (const auto& [range, data] : runs) {
    const auto wrong = Difference(made->Bytes(range.offset, range.length),
                                  Repeat(data ? 0x5a : 0, range.length), range.offset);
    FUZZ_MUST(wrong.empty(), "import: {}", wrong);
    for (uint64_t at = range.offset / kSubcluster; at * kSubcluster < range.end(); at++)
      FUZZ_MUST(made->IsInImage(at), "import left subcluster {} out", at);
  }
  MustChangeOnly(kNew, "/vm/new.raw");
}

// In place of the qcow2 there is a raw file, which has the backing file's bytes where nothing
// was written yet, as a qcow2 reads.
void VerbsSession::Export(Input& input) {
  static const std::array<const char*, 8> kTargets = {
      "/vm/new.qcow2", "/vm/dir/new.qcow2", "/vm/empty.raw",  kImage,
      kBacking,        "/vm/copy.add-cow",  "/vm/v1.add-cow", "/vm/nodir/new.qcow2"};
  const unsigned how = input.Byte();
  if (!IsCopied()) return;
  ExportOptions options;
  options.source.add_cow_path = kAddCow;
  options.qcow2_path = kTargets[how % kTargets.size()];
  options.force = (how & 8) != 0;
  const bool is_new = how % kTargets.size() < 2 && files_.Find(options.qcow2_path) == nullptr;

  const auto make = [&](const NewQcow2& image) -> Result<std::unique_ptr<CommitTarget>> {
    const auto output = files_.Find(image.path);
    FUZZ_MUST(output != nullptr && output->size() == 0, "what is exported to is not empty");
    FUZZ_MUST(output->Truncate(image.size).has_value(), "truncate");
    if (!image.backing.empty()) {
      const auto base = files_.Find(ResolveName(DirectoryOf(image.path), image.backing));
      FUZZ_MUST(base != nullptr, "export names a backing file that is not there");
      ForEachData(*base, [&](uint64_t start, uint64_t end) {
        const uint64_t stop = std::min(end, image.size);
        if (start < stop) (void)output->Write(base->Bytes(start, stop - start), start);
        return end < image.size;
      });
    }
    return OpenCommitTarget(files_, {.path = image.path, .format = "raw"}, {});
  };
  const auto result = ExportImage(files_, options, make);
  created_ = true;
  if (!result) {
    MustBeSound(result.error());
    FUZZ_MUST(!disk_ || !is_new, "export: {}", result.error().Message());
    return MustBeUnchanged("export");
  }
  FUZZ_MUST(disk_.has_value(), "export accepted what must be refused");
  FUZZ_MUST(is_new || options.force, "export replaced a file");
  FUZZ_MUST(result->backing.has_value() ==
                (disk_->header().has_backing && !disk_->header().all_allocated),
            "whether what export made stands on something");
  const auto output = files_.Find(options.qcow2_path);
  FUZZ_MUST(output != nullptr && output->size() == result->virtual_size &&
                result->virtual_size == RoundUp(disk_->size(), kSectorSize),
            "the size of what export made");
  for (const uint64_t cluster : disk_->Sample()) {
    const uint64_t start = disk_->Start(cluster);
    const uint64_t length = disk_->EndOf(cluster) - start;
    const auto wrong =
        Difference(output->Bytes(start, length), disk_->Bytes(start, length), start);
    FUZZ_MUST(wrong.empty(), "what export made: {}", wrong);
  }
  const uint64_t rest = output->size() - disk_->size();
  FUZZ_MUST(output->Bytes(disk_->size(), rest) == Repeat(0, rest), "the rest of the sector");
  MustChangeOnly("", options.qcow2_path);
}

}  // namespace addcow::fuzz
