// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Fuzzes what the tool does: the verbs of common/ops, one after the other, on
// the files that the input describes (scene.h). A verb of the script is one
// byte, from 128 on the newer ones; create takes four more bytes and a size, rebase two more
// bytes, convert (upgrade and downgrade) one, resize one and a size.
//
// Properties:
//   - What docs/format.md, read independently, has a reader refuse is refused
//     and not modified. info, map and check without repair modify nothing.
//   - check counts what the rules count: clusters, missing bits, stray bits,
//     leaks. After a full repair that succeeded a second check is clean.
//   - resize gives the disk the size that was asked for; what both sizes have reads as
//     before, what is new as zeroes; no bit is left past its end, and the rest of the header
//     stays. Refused, nothing is changed.
//   - No verb but create, rebase and resize changes what the disk reads, and rebase only
//     if the files that it names hold something else.
//   - With confine= no more is accepted, and nothing where the files lie elsewhere.
//   - check -r asks before it repairs under a bitmap without a one.
//   - rebase changes the header, and of it what it was told to; on failure nothing.
//   - After flatten the image file alone is what the disk read before, and
//     ALL_ALLOCATED is set.
//   - What create made is sound and reads as promised; on failure nothing is
//     changed and nothing is left behind.
//   - What convert made has the revision and the clusters that were asked for, has the
//     same in the image file, but for what it copied up, and check finds nothing in it;
//     NO_SUBCLUSTERS is respected. On failure nothing is changed.
//   - After commit no bit is left, and the disk reads the same; so it does after a rebase
//     of data. compare finds a disk to be what it is.
//   - What export made reads as the disk, and its backing file is the image's. It changes no
//     other file; on failure nothing.
//
// Here are the verbs that work on the image as it is; those that write an add-cow file
// anew are in verbs_anew.cc, and resize in verbs_resize.cc.

#include "common/ops/check.h"
#include "common/ops/flatten.h"
#include "common/ops/info.h"
#include "common/ops/map.h"
#include "fuzz/disk_rules.h"
#include "fuzz/must.h"
#include "fuzz/scene.h"
#include "fuzz/verbs_session.h"
#include "tests/support/test_image.h"

namespace addcow::fuzz {

AcceptedInputs accepted_inputs;

namespace {

constexpr int kMaxVerbs = 6;

}  // namespace

void VerbsSession::Run(Input& input) {
  for (int i = 0; i < kMaxVerbs && !input.empty(); i++) {
    disk_ = DiskByTheRules::Read(files_, kAddCow);
    before_ = files_.Clone();
    if (i == 0 && disk_) accepted_inputs.Count(disk_->header().revision);
    Verb(input);
    if (disk_)
      FUZZ_MUST(disk_->OthersAreSame(*before_, files_) || created_, "another file changed");
  }
}

void VerbsSession::Verb(Input& input) {
  created_ = false;
  const unsigned verb = input.Byte();
  switch (verb % 9) {
    case 0:
      return verb < 128 ? Info() : Compare();
    case 1:
      return verb < 128 ? Map() : Measure(input);
    case 2:
      return verb < 128 ? Check() : List();
    case 3:
      return verb < 128 ? Mend(Repair::kLeaks) : Commit(input);
    case 4:
      return verb < 128 ? Mend(Repair::kAll) : Export(input);
    case 5:
      return verb < 128 ? Flatten() : Import(input);
    case 7:
      return verb < 128 ? Rebase(input) : RebaseData(input);
    case 8:
      return verb < 128 ? Convert(input) : Resize(input);
    default:
      return Create(input);
  }
}

void VerbsSession::MustBeUnchanged(const char* verb) {
  FUZZ_MUST(SameFiles(*before_, files_), "{} changed a file", verb);
}

// What the disk reads now, in the places that matter, is what it was.
void VerbsSession::MustReadTheSame(const char* verb, DiskByTheRules::Backing wanted) {
  const auto now = DiskByTheRules::Read(files_, kAddCow, wanted);
  FUZZ_MUST(now.has_value(), "{} made the files unsound", verb);
  for (const uint64_t cluster : disk_->Sample()) {
    const uint64_t start = disk_->Start(cluster);
    const uint64_t length = disk_->EndOf(cluster) - start;
    const auto wrong =
        Difference(now->Bytes(start, length), disk_->Bytes(start, length), start);
    FUZZ_MUST(wrong.empty(), "{} changed the disk: {}", verb, wrong);
  }
}

void VerbsSession::Info() {
  const auto info = GetInfo(files_, kAddCow);
  const auto disk = DiskByTheRules::Read(files_, kAddCow, DiskByTheRules::Backing::kNotWanted);
  FUZZ_MUST(!GetInfo(files_, kAddCow, "/vm/dir"), "info left its directory");
  FUZZ_MUST(info || !GetInfo(files_, kAddCow, "/vm"), "confined info accepts more");
  MustBeUnchanged("info");
  if (!info) MustBeSound(info.error());
  FUZZ_MUST(info.has_value() == disk.has_value(), "info: {}",
            info ? "accepted" : info.error().Message());
  if (!info) return;
  FUZZ_MUST(info->virtual_size == disk->size(), "info's virtual size");
  FUZZ_MUST(static_cast<uint64_t>(info->header.revision) == disk->header().revision,
            "info's revision");
  FUZZ_MUST(info->header.cluster_size == disk->cluster(), "info's cluster size");
  FUZZ_MUST(info->total_clusters == disk->clusters(), "info's clusters");
  FUZZ_MUST(info->header.image.name == disk->header().image_name, "info's image file");
  FUZZ_MUST(info->header.backing.has_value() == disk->header().has_backing, "info's backing");
  FUZZ_MUST(info->header.subclusters == disk->header().subclusters, "info's SUBCLUSTERS");
  FUZZ_MUST(info->header.no_subclusters == disk->header().no_subclusters,
            "info's NO_SUBCLUSTERS");
  if (disk->size() > kMaxCounted) return;
  const uint64_t set = disk->CountBits(0, disk->clusters());
  FUZZ_MUST(info->allocated_clusters == (disk->header().all_allocated ? disk->clusters() : set),
            "info's allocated clusters");
  const auto partial = disk->CountPartial();
  FUZZ_MUST(info->partial_clusters == partial.clusters, "info's partial clusters");
  FUZZ_MUST(info->allocated_subclusters == partial.subclusters, "info's subclusters");
}

void VerbsSession::Map() {
  if (!IsWalked()) return;
  uint64_t at = 0;
  const uint64_t cluster = disk_ ? disk_->cluster() : 1;
  const std::vector<uint64_t> sample = disk_ ? disk_->Sample() : std::vector<uint64_t>();
  KindBytes kinds;  // what is partial for the summary is of another kind here
  const Status done = MapImage(files_, kAddCow, nullptr, [&](const MapEntry& entry) {
    kinds[entry.zero         ? DiskKind::kHole
          : entry.depth == 0 ? DiskKind::kImage
                             : DiskKind::kBacking] += entry.length;
    FUZZ_MUST(entry.start == at && entry.length > 0, "a gap in the map at {}", at);
    FUZZ_MUST(entry.present == (entry.file != nullptr), "the file of what is there");
    FUZZ_MUST(entry.zero != entry.data, "data is what is not zero");
    FUZZ_MUST(entry.depth == 0 || (entry.depth == 1 && entry.present), "the depth");
    at += entry.length;
    for (auto look = std::ranges::lower_bound(sample, entry.start / cluster);
         look != sample.end() && disk_->Start(*look) < at; ++look)
      MustComeFromTheRightFile(entry, *look);
    return true;
  });
  MustBeUnchanged("map");
  if (!done) MustBeSound(done.error());
  FUZZ_MUST(done.has_value() == disk_.has_value(), "map: {}",
            done ? "accepted" : done.error().Message());
  if (done) FUZZ_MUST(at == disk_->size(), "the map ends at {}", at);
  Summarize(kinds);
}

// What pictures are made of tells of the same bytes as the map.
void VerbsSession::Summarize(const KindBytes& kinds) {
  const auto summary = SummarizeImage(files_, {.add_cow_path = kAddCow}, nullptr,
                                      [](uint64_t size) { return size / 100 + 1; });
  MustBeUnchanged("summary");
  FUZZ_MUST(summary.has_value() == disk_.has_value(), "summary: {}",
            summary ? "accepted" : summary.error().Message());
  if (!summary) return MustBeSound(summary.error());
  const KindBytes total = summary->disk.Total();
  FUZZ_MUST(total.total() == disk_->size(), "{} bytes are in the summary", total.total());
  for (const DiskKind kind : {DiskKind::kImage, DiskKind::kBacking, DiskKind::kHole})
    FUZZ_MUST(total[kind] <= kinds[kind], "more of kind {} than the map has",
              static_cast<unsigned>(kind));
  const uint64_t partial = total[DiskKind::kPartial];
  if (disk_->size() > kMaxCounted) return;
  FUZZ_MUST(partial > 0 || total == kinds, "another summary without partial clusters");
  FUZZ_MUST(partial <= disk_->CountPartial().clusters * disk_->cluster(),
            "{} bytes are partial", partial);
}

// What the entry has of the cluster.
void VerbsSession::MustComeFromTheRightFile(const MapEntry& entry, uint64_t cluster) const {
  const uint64_t start = std::max(entry.start, disk_->Start(cluster));
  const uint64_t end = std::min(entry.start + entry.length, disk_->EndOf(cluster));
  for (uint64_t at = start; at < end; at = (at / kSubcluster + 1) * kSubcluster)
    FUZZ_MUST((entry.present && entry.depth == 0) == disk_->IsInImage(at / kSubcluster),
              "where map has subcluster {} from", at / kSubcluster);
}

void VerbsSession::Check() {
  ReadWithoutBacking();
  const auto report = CheckImage(files_, kAddCow, Repair::kNone);
  MustBeUnchanged("check");
  if (!disk_) return MustRefuse(report, "check");
  FUZZ_MUST_SUCCEED(report, "check");
  FUZZ_MUST(!report->error, "check: {}", report->error->Message());
  FUZZ_MUST(report->check_errors == 0, "check has errors, but does not say which");
  FUZZ_MUST(report->total_clusters == disk_->clusters(), "the number of clusters");
  FUZZ_MUST(report->fixed_bits == 0 && report->fixed_leaks == 0, "nothing was to be fixed");
  if (disk_->size() <= kMaxCounted) MustCountRight(*report);
}

void VerbsSession::MustCountRight(const CheckReport& report) {
  const bool all = disk_->header().all_allocated;
  const bool flagged = all && !disk_->header().flag_suffices();
  const uint64_t set = disk_->CountBits(0, disk_->clusters());
  const uint64_t clusters = disk_->clusters();
  FUZZ_MUST(report.allocated_clusters == (all ? clusters : set), "{} are allocated, not {}",
            all ? clusters : set, report.allocated_clusters);
  FUZZ_MUST(report.missing_bits + report.grown_clusters == (flagged ? clusters - set : 0),
            "the missing bits");
  FUZZ_MUST(report.unpadded == disk_->IsUnpadded(), "whether it is padded");
  FUZZ_MUST(report.stray_bits == disk_->StrayBits(), "{} stray bits, not {}",
            disk_->StrayBits(), report.stray_bits);
  FUZZ_MUST(report.subclusters == disk_->header().subclusters, "whether it has subclusters");
  const uint64_t partial = disk_->CountPartial().clusters;
  FUZZ_MUST(report.partial_clusters == partial, "{} clusters are partial, not {}", partial,
            report.partial_clusters);
  if (Has(kBlockDevice) || Has(kNoSeek)) return;  // holes cannot be told
  const auto leaks = all ? DiskByTheRules::Parts() : disk_->CountLeaks();
  FUZZ_MUST(report.leaked_clusters == leaks.clusters, "{} clusters leaked, not {}",
            leaks.clusters, report.leaked_clusters);
  if (report.subclusters)
    FUZZ_MUST(report.leaked_subclusters == leaks.subclusters, "{} subclusters leaked, not {}",
              leaks.subclusters, report.leaked_subclusters);
}

void VerbsSession::MustRefuse(const Result<CheckReport>& report, const char* verb) {
  if (!report) return MustBeSound(report.error());
  FUZZ_MUST(report->error.has_value(), "{} finds nothing wrong with what must be refused",
            verb);
  MustBeSound(*report->error);
}

void VerbsSession::Mend(Repair repair) {
  ReadWithoutBacking();
  if (!IsWalked()) return;
  // What an empty bitmap has data under may be another disk's.
  const bool empty = disk_ && !disk_->header().all_allocated &&
                     disk_->CountBits(0, UINT64_MAX) == 0 &&
                     disk_->CountSubclusterBits(0, UINT64_MAX) == 0;
  const bool asks = empty && disk_->CountLeaks().clusters > 0 && !Has(kBlockDevice) &&
                    !Has(kNoSeek) && !Has(kAddCowReadOnly);
  if (asks) {
    const auto refused = CheckImage(files_, kAddCow, repair);
    FUZZ_MUST(!refused, "check -r does not ask");
    MustBeSound(refused.error());
    MustBeUnchanged("check -r");
  }
  const auto report = CheckImage(files_, kAddCow, repair, {}, true);
  if (!disk_) {
    MustBeUnchanged("check -r");
    return MustRefuse(report, "check -r");
  }
  MustReadTheSame("check -r", DiskByTheRules::Backing::kOptional);
  if (!report) {
    MustBeSound(report.error());
    FUZZ_MUST(Has(kAddCowReadOnly), "check -r: {}", report.error().Message());
    return MustBeUnchanged("check -r");
  }
  if (report->error) {
    MustBeSound(*report->error);
    FUZZ_MUST(Has(kNoPunch | kBlockDevice), "check -r: {}", report->error->Message());
    return;
  }
  FUZZ_MUST(report->leaked_clusters == 0, "{} leaks were left", report->leaked_clusters);
  const auto again = CheckImage(files_, kAddCow, Repair::kNone);
  FUZZ_MUST_SUCCEED(again, "check after check -r");
  FUZZ_MUST(!again->error && again->leaked_clusters == 0, "not clean after check -r");
  if (repair != Repair::kAll) return;
  FUZZ_MUST(again->missing_bits == 0 && again->grown_clusters == 0 && again->stray_bits == 0 &&
                !again->unpadded,
            "not clean after check -r all");
}

void VerbsSession::Flatten() {
  const uint64_t limit = Has(kNoPunch | kNoSeek | kCoarseZero) ? kMaxWritten : kMaxCounted;
  if (disk_ && (disk_->size() > limit || disk_->clusters() > kMaxCopiedClusters)) return;
  uint64_t last = 0;
  uint64_t total = 0;
  const auto flat = FlattenImage(files_, kAddCow, nullptr, [&](uint64_t done, uint64_t of) {
    FUZZ_MUST(done >= last && done <= of, "progress goes back or too far");
    last = done;
    total = of;
  });
  if (!flat) {
    MustBeSound(flat.error());
    FUZZ_MUST(!disk_ || Has(kAddCowReadOnly), "flatten: {}", flat.error().Message());
    return MustBeUnchanged("flatten");
  }
  FUZZ_MUST(disk_.has_value(), "flatten accepted what must be refused");
  FUZZ_MUST(last == total && flat->copied == total, "flatten's progress ends at {} of {}", last,
            total);
  const auto now = DiskByTheRules::Read(files_, kAddCow);
  FUZZ_MUST(now && now->header().all_allocated, "ALL_ALLOCATED is not set after flatten");
  FUZZ_MUST(!now->header().subclusters || disk_->header().all_allocated,
            "SUBCLUSTERS is left after flatten");
  FUZZ_MUST(
      disk_->header().all_allocated || now->CountBits(0, now->clusters()) == now->clusters(),
      "a bit is 0 after flatten");
  for (const uint64_t cluster : disk_->Sample()) {
    const uint64_t start = disk_->Start(cluster);
    const uint64_t length = disk_->EndOf(cluster) - start;
    const auto wrong =
        Difference(now->image().Bytes(start, length), disk_->Bytes(start, length), start);
    FUZZ_MUST(wrong.empty(), "the image file after flatten: {}", wrong);
  }
}

}  // namespace addcow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  addcow::fuzz::Input input(data, size);
  const auto scene = addcow::fuzz::MakeScene(input);
  addcow::fuzz::VerbsSession(*scene).Run(input);
  return 0;
}
