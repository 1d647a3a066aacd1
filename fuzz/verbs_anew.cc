// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verbs that write an add-cow file anew: create, rebase, upgrade and downgrade. See
// verbs_fuzzer.cc.

#include <algorithm>
#include <array>
#include <bit>

#include "common/ops/convert.h"
#include "common/ops/create.h"
#include "common/ops/rebase.h"
#include "fuzz/must.h"
#include "fuzz/verbs_session.h"
#include "tests/support/test_image.h"

namespace addcow::fuzz {

namespace {

constexpr uint64_t kIdentityBit = 1 << 16;
constexpr uint64_t kMostBits = 8 * kMaxWalkedClusters;
constexpr uint64_t kMostCopied = 64 * kMiB;
constexpr uint64_t kMostServed = 1ull << 31;  // clusters: an engine takes seconds to close more

// A revision and a cluster size, from one byte.
struct Form {
  Revision revision = Revision::kVersion1;
  uint64_t cluster = 0;

  explicit Form(unsigned code)
      : revision((code & 1) != 0 ? Revision::kAcow : Revision::kVersion1) {
    static constexpr std::array<uint64_t, 16> kSizes = {
        64 * kKiB,  4 * kKiB,  8 * kKiB, 16 * kKiB, 32 * kKiB,  128 * kKiB, 256 * kKiB, kMiB,
        512 * kKiB, 64 * kKiB, 2 * kMiB, 4 * kKiB,  192 * kKiB, 2 * kKiB,   4 * kMiB,   0};
    cluster = kSizes[code >> 1 & 15];
  }

  bool first() const { return revision == Revision::kVersion1; }
  bool is_there() const {
    if (first()) return cluster == 64 * kKiB;
    return std::has_single_bit(cluster) && cluster >= 4 * kKiB && cluster <= 2 * kMiB;
  }
  uint64_t names_start() const { return first() ? 80 : 76; }
  uint64_t header_bytes() const { return first() ? 4096 : std::max<uint64_t>(4096, cluster); }
  bool Has(const HeaderFields& fields) const {
    return fields.revision == (first() ? 1 : 20) && fields.cluster == cluster &&
           fields.header_bytes == header_bytes();
  }
};

uint64_t NamesBytes(const HeaderFields& fields) {
  return fields.image_name.size() + fields.backing_name.size();
}

bool IdentityFits(const HeaderFields& fields, const Form& form) {
  return form.names_start() + NamesBytes(fields) + 256 <= form.header_bytes();
}

// Whether these can be in such a header.
bool Fits(const HeaderFields& fields, const Form& form) {
  return form.is_there() && form.names_start() + NamesBytes(fields) < form.header_bytes() &&
         (form.first() || fields.backing_format.size() < 16);
}

bool SameNoted(const HeaderFields& a, const HeaderFields& b) {
  return a.noted_size == b.noted_size && a.noted_seconds == b.noted_seconds &&
         a.noted_nanoseconds == b.noted_nanoseconds && a.noted_edge == b.noted_edge &&
         a.noted_hash == b.noted_hash;
}

}  // namespace

bool VerbsSession::HasTwoNames(bool keep) {
  const auto other = files_.Find("/vm/copy.add-cow");
  if (keep || other == nullptr) return other != nullptr && other == files_.Find(kAddCow);
  (void)files_.Remove("/vm/copy.add-cow");
  before_ = files_.Clone();
  return false;
}

void VerbsSession::Create(Input& input) {
  static const std::array<const char*, 5> kTargets = {
      kAddCow, "/vm/new.add-cow", "/vm/disk.raw", "/vm/copy.add-cow", "../vm/dir"};
  static const std::array<const char*, 12> kNames = {
      "disk.raw", "base.img",  "new.raw",       "x.add-cow", "link",       "hard.raw",
      "loop",     "empty.raw", "nodir/new.raw", "",          "v1.add-cow", "v20.add-cow"};
  static const std::array<const char*, 4> kFormats = {"raw", "raw", "qcow2", ""};
  const unsigned code = input.Byte();
  CreateOptions options;
  options.force = (code & 1) != 0;
  options.discard = (code & 16) != 0;
  options.reuse_image = (code & 32) != 0;
  options.preallocation = static_cast<Preallocation>((code >> 6) % 3);
  options.add_cow_path = kTargets[(code >> 1 & 7) % kTargets.size()];
  const unsigned image_code = input.Byte();
  options.image_name = kNames[image_code % 128 % kNames.size()];
  options.subclusters = image_code < 128;
  const unsigned backing = input.Byte();
  if (backing != 0)
    options.backing = NamedFile{kNames[backing % kNames.size()], kFormats[backing >> 6]};
  const Form form(input.Byte());
  options.revision = form.revision;
  options.cluster_size = form.cluster;
  if (const uint64_t size = input.Size(); size > 0) options.size = size;
  const auto image = files_.Find("/vm/" + options.image_name);
  const uint64_t image_size = image != nullptr ? image->size() : options.size.value_or(0);
  if (options.preallocation != Preallocation::kOff && image_size > kMaxWritten) return;
  // The base's size is the disk's where none is given.
  if (options.preallocation != Preallocation::kOff && image_size == 0) return;
  // Every bit is written then.
  if (!options.backing && form.is_there() && image_size / form.cluster > kMaxWalkedClusters)
    return;

  (void)HasTwoNames(options.add_cow_path == "/vm/copy.add-cow");
  const auto old =
      DiskByTheRules::Read(files_, options.add_cow_path, DiskByTheRules::Backing::kNotWanted);
  const auto result = CreateImage(files_, options);
  created_ = true;
  if (result && old && old->size() <= kMaxCounted && !options.discard)
    FUZZ_MUST(!old->header().all_allocated && old->CountBits(0, old->clusters()) == 0 &&
                  !old->AnyPartial(),
              "create threw allocated clusters away");
  if (!result) {
    MustBeSound(result.error());
    return MustBeUnchanged("create");
  }
  const auto disk = DiskByTheRules::Read(files_, options.add_cow_path);
  FUZZ_MUST(disk.has_value(), "what create made is not sound");
  FUZZ_MUST(form.Has(disk->header()), "the revision, or the cluster size, of what create made");
  FUZZ_MUST(disk->size() == result->virtual_size, "the size of what create made");
  FUZZ_MUST(disk->header().image_name == options.image_name, "the image file's name");
  FUZZ_MUST(disk->header().all_allocated == !options.backing, "ALL_ALLOCATED");
  FUZZ_MUST(!options.backing || disk->header().noted_edge == 1 << 20, "no hash is noted");
  FUZZ_MUST(disk->StrayBits() == 0, "create left stray bits");
  FUZZ_MUST(!disk->header().subclusters, "create set SUBCLUSTERS");
  FUZZ_MUST(disk->header().no_subclusters == !options.subclusters, "NO_SUBCLUSTERS");
  FUZZ_MUST(disk->add_cow().size() == disk->header().SubclusterPlace(disk->size()),
            "the length of what create made");
  const uint64_t bits = options.backing ? 0 : disk->clusters();
  FUZZ_MUST(disk->CountBits(0, disk->clusters()) == bits, "create made the wrong bits");
  MustChangeOnly(options.add_cow_path, result->image_was_there ? "" : result->image_path);
}

void VerbsSession::Rebase(Input& input) {
  static const std::array<const char*, 11> kNames = {
      "disk.raw", "base.img",  "b.img",   "x.add-cow",  "link",       "hard.raw",
      "loop",     "empty.raw", "nowhere", "v1.add-cow", "v20.add-cow"};
  const unsigned image = input.Byte();
  const unsigned backing = input.Byte();
  RebaseOptions options{.add_cow_path = kAddCow, .backing = {}, .image_name = {}};
  if (image != 0) options.image_name = kNames[image % kNames.size()];
  if (backing != 0)
    options.backing = NamedFile{kNames[backing % kNames.size()], backing < 128 ? "raw" : "vhd"};
  (void)HasTwoNames(false);
  const auto inode = files_.Find(kAddCow);
  const auto disk = DiskByTheRules::Read(files_, kAddCow, DiskByTheRules::Backing::kNotWanted);
  // With a backing file the flag does not suffice: every bit is set then.
  const bool fills = disk && disk->header().all_allocated && disk->header().flag_suffices() &&
                     options.backing.has_value();
  if (fills && disk->clusters() > kMaxWalkedClusters) return;
  const auto result = RebaseUnsafely(files_, options);
  created_ = true;
  if (!result) {
    MustBeSound(result.error());
    return MustBeUnchanged("rebase");
  }
  const auto fields = ReadHeaderByTheRules(*files_.Find(kAddCow));
  FUZZ_MUST(fields.has_value(), "rebase wrote an unsound header");
  const auto was = ReadHeaderByTheRules(*inode);
  FUZZ_MUST(was.has_value(), "rebase accepted an unsound header");
  FUZZ_MUST(fields->revision == was->revision && fields->cluster == was->cluster,
            "rebase changed the revision or the cluster size");
  FUZZ_MUST(fields->image_name == options.image_name.value_or(was->image_name), "the image");
  FUZZ_MUST(fields->all_allocated == was->all_allocated, "ALL_ALLOCATED");
  FUZZ_MUST(fields->subclusters == was->subclusters, "SUBCLUSTERS");
  FUZZ_MUST(fields->no_subclusters == was->no_subclusters, "NO_SUBCLUSTERS");
  // A record that is not known is not written anew.
  FUZZ_MUST(fields->optional_features == ((was->optional_features & ~kIdentityBit) |
                                          (fields->noted() ? kIdentityBit : 0)),
            "the optional features");
  const bool fits =
      fields->header_bytes >= NamesBytes(*fields) + 256 + (fields->revision == 1 ? 80 : 76);
  if (options.backing) {
    FUZZ_MUST(fields->backing_name == options.backing->name, "the backing file");
    if (fits) {
      const FakeInode& base = *files_.Find("/vm/" + options.backing->name);
      FUZZ_MUST(fields->noted_size == base.size(), "the size that is noted");
      FUZZ_MUST(fields->noted_hash == SampleByTheRules(base, 1 << 20),
                "the hash that is noted");
    }
  } else {
    FUZZ_MUST(fields->backing_name == was->backing_name, "the backing file that stays");
    if (fits) FUZZ_MUST(SameNoted(*fields, *was), "what is noted of it");
  }
  FUZZ_MUST(fits || !fields->noted(), "there is no room to note anything");
  const auto header_off = [&](const FakeInode& of) {
    auto clone = of.Clone();
    clone->SetAbilities({});
    (void)clone->PunchHole(0, fills ? was->SubclusterPlace(disk->size()) : was->header_bytes);
    return clone;
  };
  FUZZ_MUST(SameBytes(*header_off(*files_.Find(kAddCow)), *header_off(*inode)),
            "rebase changed the bitmap");
  if (fills) {
    const auto now = DiskByTheRules::Read(files_, kAddCow, DiskByTheRules::Backing::kNotWanted);
    FUZZ_MUST(now && now->CountBits(0, now->clusters()) == now->clusters(),
              "rebase left a bit that the flag had stood for");
  }
  MustChangeOnly(kAddCow, "");
}

void VerbsSession::Convert(Input& input) {
  using Backing = DiskByTheRules::Backing;
  const unsigned code = input.Byte();
  const Form form(code);
  const bool off = (code & 32) != 0;
  const bool two_names = HasTwoNames((code & 64) != 0);
  const auto base_there = DiskByTheRules::Read(files_, kAddCow, Backing::kWanted);
  const auto base_sound = DiskByTheRules::Read(files_, kAddCow, Backing::kOptional);
  const Backing wanted = base_sound ? Backing::kOptional : Backing::kNotWanted;
  ReadWithoutBacking(wanted);
  const HeaderFields was = disk_ ? disk_->header() : HeaderFields();
  const bool same = form.Has(was) && (was.no_subclusters || !off);
  const bool never = off || was.no_subclusters;
  const bool nothing_to_do = same && !(was.subclusters && was.no_subclusters);
  // Whether a cluster may be there in part.
  const bool may_copy = never && !was.all_allocated && form.cluster > kSubcluster &&
                        (was.subclusters || form.cluster > was.cluster);
  if (disk_ && form.is_there()) {
    const uint64_t allocated =
        was.all_allocated ? disk_->clusters() : disk_->CountBits(0, disk_->clusters());
    if (allocated > kMostBits * form.cluster / was.cluster) return;
    const uint64_t in_part = allocated + disk_->CountPartial().clusters;
    if (may_copy && in_part > kMostCopied / std::max(was.cluster, form.cluster)) return;
    if (may_copy && disk_->clusters() > kMostServed) return;
  }

  ConvertOptions options{.source = {.add_cow_path = kAddCow},
                         .revision = form.revision,
                         .cluster_size = form.cluster,
                         .subclusters = !off};
  const auto result = ConvertImage(files_, options, nullptr);
  if (!result) {
    MustBeSound(result.error());
    const bool no_base = may_copy && (!base_there || !base_there->IsSurelyOpened());
    const bool refused = !nothing_to_do && (two_names || !Fits(was, form));
    FUZZ_MUST(!disk_ || Has(kAddCowReadOnly) || no_base || refused, "convert: {}",
              result.error().Message());
    return MustBeUnchanged("convert");
  }
  FUZZ_MUST(disk_.has_value(), "convert accepted what must be refused");
  if (nothing_to_do) return MustBeUnchanged("convert");
  FUZZ_MUST(Fits(was, form), "convert did what cannot be done");
  FUZZ_MUST(!two_names, "convert left a name with the old file");

  MustReadTheSame("convert", wanted);
  const auto now = DiskByTheRules::Read(files_, kAddCow, wanted);
  const HeaderFields& is = now->header();
  FUZZ_MUST(form.Has(is), "the revision or the cluster size after convert");
  FUZZ_MUST(is.image_name == was.image_name, "the image file after convert");
  FUZZ_MUST(is.has_backing == was.has_backing && is.backing_name == was.backing_name &&
                is.backing_format == was.backing_format,
            "the backing file after convert");
  // What was copied up may have been the last that was missing.
  FUZZ_MUST(is.all_allocated == was.all_allocated || (is.all_allocated && may_copy),
            "ALL_ALLOCATED after convert");
  FUZZ_MUST(!is.all_allocated || now->CountBits(0, now->clusters()) == now->clusters(),
            "a bit is 0 under ALL_ALLOCATED after convert");
  FUZZ_MUST(is.no_subclusters == never, "NO_SUBCLUSTERS after convert");
  FUZZ_MUST(is.subclusters == now->AnyPartial() && !(is.subclusters && never),
            "SUBCLUSTERS after convert");
  FUZZ_MUST(IdentityFits(was, form) ? SameNoted(is, was) : !is.noted(),
            "what is noted of the backing file after convert");
  // What nobody knows means nothing in another revision.
  const uint64_t kept = is.revision == was.revision ? was.optional_features & ~kIdentityBit : 0;
  FUZZ_MUST(is.optional_features == (kept | (is.noted() ? kIdentityBit : 0)),
            "the optional features after convert");
  FUZZ_MUST(now->add_cow().size() == (is.subclusters ? is.SubclusterEnd(now->size())
                                                     : is.SubclusterPlace(now->size())),
            "the length of what convert made");
  FUZZ_MUST(now->StrayBits() == 0, "convert left stray bits");
  FUZZ_MUST(result->virtual_size == now->size() && result->after.subclusters == is.subclusters,
            "what convert says that it made");
  FUZZ_MUST(result->copied == 0 || may_copy, "convert copied up");
  MustHaveTheSameInImage(*now, may_copy);
  FUZZ_MUST(may_copy || SameBytes(disk_->image(), now->image()),
            "convert changed the image file");
  if (!base_sound || now->clusters() > kMaxWalkedClusters) return;
  const auto report = CheckImage(files_, kAddCow, Repair::kNone);
  FUZZ_MUST_SUCCEED(report, "check after convert");
  FUZZ_MUST(report->corruptions() == 0 && report->check_errors == 0 &&
                report->grown_clusters == 0 && report->stray_bits == 0,
            "check finds something after convert");
}

// The same subclusters are in the image file; where some were copied up (`may_copy`), also
// others of a cluster, before or now, that was there in part.
void VerbsSession::MustHaveTheSameInImage(const DiskByTheRules& now, bool may_copy) const {
  const uint64_t near = std::max(disk_->per_cluster(), now.per_cluster());
  const auto any_near = [&](uint64_t subcluster) {
    const uint64_t first = subcluster / near * near;
    for (uint64_t i = first; i < std::min(first + near, disk_->subclusters()); i++)
      if (disk_->IsInImage(i)) return true;
    return false;
  };
  for (const DiskByTheRules* disk : {&*disk_, &now})
    for (const uint64_t cluster : disk->Sample())
      for (uint64_t at = disk->Start(cluster); at < disk->EndOf(cluster); at += kSubcluster) {
        const uint64_t subcluster = at / kSubcluster;
        const bool was = disk_->IsInImage(subcluster);
        const bool is = now.IsInImage(subcluster);
        FUZZ_MUST(is || !was, "convert lost subcluster {}", subcluster);
        FUZZ_MUST(was || !is || (may_copy && any_near(subcluster)),
                  "convert has subcluster {} in the image file", subcluster);
      }
}

void VerbsSession::MustChangeOnly(const std::string& add_cow, const std::string& image) {
  for (const std::string& name : files_.List()) {
    if (name == add_cow || name == image) continue;
    const auto old_inode = before_->Find(name);
    FUZZ_MUST(old_inode != nullptr, "{} was left behind", name);
    FUZZ_MUST(SameBytes(*old_inode, *files_.Find(name)), "{} was changed", name);
  }
  for (const std::string& name : before_->List())
    FUZZ_MUST(files_.Find(name) != nullptr, "{} was removed", name);
}

}  // namespace addcow::fuzz
