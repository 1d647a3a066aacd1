// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See random_run.h. Disks are small, so that requests meet, and so that
// every cluster gets allocated now and then.

#include "tests/crash/random_run.h"

#include <fmt/format.h>

#include <algorithm>

namespace addcow {

namespace {

// Every subset of up to twelve changes that no sync has covered.
constexpr CrashDisk::Effort kEffort{.exhaustive = 12, .samples = 24};

// Half of the disks are of version 1.
void SetGeometry(ImageSpec& spec, Random& random) {
  if (random.OneIn(2)) return;
  spec.revision = Revision::kAcow;
  const uint64_t of_4k_in_64k[] = {kC, 4 * kKiB, 4 * kKiB, 8 * kKiB, 16 * kKiB};
  spec.cluster_size = of_4k_in_64k[random.Below(std::size(of_4k_in_64k))];
  // They take long.
  if (random.OneIn(20)) spec.cluster_size = 2 * kMiB;
}

ImageSpec RandomSpec(Random& random, uint64_t seed) {
  ImageSpec spec;
  Random of_geometry(seed);
  SetGeometry(spec, of_geometry);
  spec.size = random.Between(1, 4) * kC;
  if (random.OneIn(2)) spec.size -= random.Below(kC);
  if (spec.cluster_size > kC) spec.size += spec.cluster_size - random.Below(4 * kC);
  switch (random.Below(5)) {
    case 0:
      spec.backing_size.reset();
      break;
    case 1:
      spec.backing_size = spec.size;
      break;
    case 2:
      spec.backing_size = spec.size + random.Below(kC);
      break;
    default:
      spec.backing_size = random.Between(1, spec.size);
      break;  // shorter
  }
  if (spec.backing_size && random.OneIn(2)) {
    spec.backing_data.emplace();
    for (uint64_t at = 0; at < *spec.backing_size; at += 8192)
      if (random.OneIn(3))
        spec.backing_data->push_back({at, std::min<uint64_t>(8192, *spec.backing_size - at)});
  }
  spec.garbage = !random.OneIn(4);
  for (uint64_t i = 0; i < DivideUp(spec.size, spec.cluster_size); i++)
    if (random.OneIn(5)) spec.allocated.push_back(i);
  if (random.OneIn(3) && spec.cluster_size > kSubclusterSize)
    for (uint64_t i = 0; i < DivideUp(spec.size, kSubclusterSize); i++)
      if (random.OneIn(8)) spec.subclusters.push_back(i);
  spec.seed = random.Next() >> 8;
  return spec;
}

FakeInode::Abilities RandomAbilities(Random& random) {
  FakeInode::Abilities abilities;
  abilities.punch_hole = !random.OneIn(4);
  abilities.zero_range = !random.OneIn(4);
  abilities.seek = !random.OneIn(4);
  abilities.write_durably = !random.OneIn(4);
  abilities.clone = random.OneIn(3);
  abilities.reserve = random.OneIn(2);
  abilities.storage_at = !random.OneIn(4);
  abilities.writes_tell_losses = random.OneIn(3);
  abilities.well_known = !random.OneIn(4);
  abilities.seek_knows_unsynced = abilities.well_known || random.OneIn(2);
  return abilities;
}

CrashHarness::Origin RandomOrigin(Random& random) {
  switch (random.Below(6)) {
    case 0:
      return CrashHarness::Origin::kCreated;
    case 1:
      return CrashHarness::Origin::kCreatedForImage;
    default:
      return CrashHarness::Origin::kFound;
  }
}

const char* NameOf(const CrashRequest& request, uint64_t cluster_size) {
  switch (request.kind) {
    case CrashRequest::Kind::kWrite:
      return request.offset % cluster_size == 0 && request.length % cluster_size == 0
                 ? "whole-cluster write"
                 : "write";
    case CrashRequest::Kind::kZero:
      return "zero";
    case CrashRequest::Kind::kTrim:
      return "trim";
    case CrashRequest::Kind::kCopyUp:
      return "copy-up";
    case CrashRequest::Kind::kFlush:
      return "flush";
  }
  return "?";
}

}  // namespace

RandomRun::RandomRun(uint64_t seed)
    : random_(seed),
      harness_(RandomSpec(random_, seed), RandomAbilities(random_), seed, kEffort,
               RandomOrigin(random_), !random_.OneIn(4)) {
  harness_.Count(
      fmt::format("disk with clusters of {} KiB", harness_.layout().cluster_size() / kKiB));
  harness_.SetMeanwhile([this] {
    if (random_.OneIn(3)) Do(RandomChange(Fua::kNo));
  });
}

void RandomRun::Run(uint64_t states) {
  const uint64_t steps = random_.Between(10, 40);
  // It leaves all clusters allocated, so not in most runs, and somewhere.
  const uint64_t flatten_at = random_.OneIn(3) ? random_.Below(steps) : steps;
  // There is most to allocate on a disk that is new.
  if (Fine()) StartNew();
  for (uint64_t step = 0; step < steps && Fine() && harness_.states() < states; step++)
    step == flatten_at ? Flatten() : Step();
  if (Fine()) harness_.CheckStates();
}

void RandomRun::StartNew() {
  switch (random_.Below(5)) {
    case 0:
    case 1:
      return Race();
    case 2:
      return FuaBesideFlush();
    case 3:
      return KillInFlush();
    default:
      return;
  }
}

void RandomRun::Step() {
  bool had = false;
  const uint64_t step = random_.Below(30);
  if (step < 5) return Flush();
  if (step < 8) return Race();
  if (step < 10) return Change(Fua::kYes);
  switch (step) {
    case 10:
      harness_.Count("power failure");
      return harness_.CrashAndGoOn();
    case 11:
      harness_.Count("process killed");
      return harness_.Kill();
    case 12:
      return KillInFlush();
    case 13:
      return random_.OneIn(2) ? FailSync() : FailFua();
    case 14:
      return FailChange();
    case 17:
      harness_.Count("rebase");
      return harness_.Rebase();
    case 15:
    case 16:
      had = harness_.HasSubclusters();
      if (!harness_.Close()) return;
      harness_.Count("clean close");
      if (had && !harness_.HasSubclusters()) harness_.Count("SUBCLUSTERS dropped");
      return harness_.Kill();
    default:
      return Change(Fua::kNo);
  }
}

// Where something may wait for a flush.
CrashRequest RandomRun::FuaOverLast() const {
  CrashRequest request = last_;
  request.kind = CrashRequest::Kind::kWrite;
  request.fua = Fua::kYes;
  return request;
}

CrashRequest RandomRun::RandomChange(Fua fua) {
  const uint64_t size = harness_.size();
  CrashRequest request;
  request.fua = fua;
  if (fua == Fua::kYes && last_.length > 0 && random_.OneIn(2)) return FuaOverLast();
  request.offset = random_.Below(size);
  request.length = random_.Between(1, std::min<uint64_t>(size - request.offset, 3000));
  if (random_.OneIn(3)) {  // whole clusters
    const uint64_t cluster = harness_.layout().cluster_size();
    request.offset = RoundDown(request.offset, cluster);
    request.length = std::min(random_.Between(1, 2) * cluster, size - request.offset);
  } else if (random_.OneIn(6)) {
    request.length = random_.Between(1, size - request.offset);
  }
  if (!random_.OneIn(3)) {  // whole sectors, as most clients have, or subclusters
    const uint64_t grain = random_.OneIn(2) ? kSectorSize : kSubclusterSize;
    const uint64_t end = RoundUp(request.offset + request.length, grain);
    request.offset = RoundDown(request.offset, grain);
    request.length = std::min(end, size) - request.offset;
  }
  switch (random_.Below(9)) {
    case 0:
    case 1:
      request.kind = CrashRequest::Kind::kTrim;
      break;
    case 2:
      request.kind = CrashRequest::Kind::kZero;
      break;
    case 3:
      request.kind = CrashRequest::Kind::kCopyUp;
      break;
    default:
      request.kind = CrashRequest::Kind::kWrite;
      break;
  }
  if (fua == Fua::kNo) last_ = request;
  return request;
}

void RandomRun::Change(Fua fua) { Do(RandomChange(fua)); }

void RandomRun::Do(const CrashRequest& request) {
  if (!harness_.Do(request)) return;
  harness_.Count(NameOf(request, harness_.layout().cluster_size()));
  if (request.fua == Fua::kYes && request.kind != CrashRequest::Kind::kCopyUp)
    harness_.Count("FUA");
}

void RandomRun::Flush() {
  const bool all = harness_.image().bitmap().all();
  const bool had = harness_.HasSubclusters();
  if (!harness_.Flush()) return;
  harness_.Count("flush");
  if (!had && harness_.HasSubclusters()) harness_.Count("SUBCLUSTERS");
  if (all && harness_.image().files().backing != nullptr) harness_.Count("ALL_ALLOCATED");
}

void RandomRun::Flatten() {
  if (random_.OneIn(3)) {
    (void)harness_.Flatten(random_.Between(1, 12));
    return harness_.Count("flatten killed");
  }
  if (harness_.Flatten()) harness_.Count("flatten");
}

void RandomRun::Race() {
  if (random_.OneIn(10))
    harness_.FailNextSync(random_.OneIn(2) ? kImagePath : kAddCowPath,
                          random_.OneIn(2) ? EIO : ENOSPC);
  if (random_.OneIn(10)) harness_.FailChange(random_.Between(1, 10), FaultPlan::Effect::kError);
  harness_.Count("race");
  harness_.Race(random_.Between(2, 8), [this] {
    CrashRequest request;
    if (random_.OneIn(3)) return request;  // a flush
    if (last_.length > 0 && random_.OneIn(5)) {
      request = last_;  // where a write may be under way
      request.kind = CrashRequest::Kind::kCopyUp;
      return request;
    }
    return RandomChange(random_.OneIn(6) ? Fua::kYes : Fua::kNo);
  });
  harness_.FailNextSync("");
  if (Fine() && harness_.sync_failed()) harness_.CrashAndGoOn();
}

// It must not rely on what the flush is about to make durable.
void RandomRun::FuaBesideFlush() {
  harness_.Count("FUA beside a flush");
  Flush();  // else the bits that were found are not durable, and FUA is a flush
  Change(Fua::kNo);
  bool flushes = false;
  harness_.Race(2, [this, &flushes] {
    flushes = !flushes;
    return flushes ? CrashRequest() : FuaOverLast();
  });
}

void RandomRun::KillInFlush() {
  harness_.Count("killed in a flush");
  const OpKind kind = random_.OneIn(3) ? OpKind::kWrite : OpKind::kSyncData;
  if (random_.OneIn(2)) Flush();
  Change(Fua::kNo);
  // The first flush with subclusters has up to three of a kind.
  const char* const path = random_.OneIn(3) ? kImagePath : kAddCowPath;
  const bool first = path == kAddCowPath && !harness_.HasSubclusters();
  harness_.StopBefore(kind, path, random_.Between(1, first ? 3 : 1));
  (void)harness_.Flush();
  harness_.Kill();
  if (!Fine()) return;
  // With nothing new to publish, only what the killed one left.
  if (random_.OneIn(2))
    Flush();
  else if (random_.OneIn(2))
    Change(Fua::kYes);
}

// The process must not trust that file again; the power fails in the end.
void RandomRun::FailSync() {
  harness_.Count("failed sync");
  harness_.FailNextSync(random_.OneIn(2) ? kImagePath : kAddCowPath);
  (void)harness_.Flush();
  Change(Fua::kYes);
  (void)harness_.Flush();
  (void)harness_.Close();
  harness_.FailNextSync("");
  if (Fine()) harness_.CrashAndGoOn();
}

// For want of room, so that it is that write's own failure; but it may have cost
// others their data, and a plain write may be told so before the flush is.
void RandomRun::FailFua() {
  harness_.Count("FUA without room");
  Flush();  // else the bits that were found are not durable, and FUA is a flush
  Change(Fua::kNo);
  harness_.FailNextSync(kImagePath, ENOSPC);
  Do(FuaOverLast());
  Change(Fua::kNo);
  Change(Fua::kNo);
  (void)harness_.Flush();
  (void)harness_.Flush();
  (void)harness_.Close();
  harness_.FailNextSync("");
  if (Fine()) harness_.CrashAndGoOn();
}

// It happens in one of the next requests, or in a flush, which leaves its
// bits to the next one.
void RandomRun::FailChange() {
  harness_.Count("failed change");
  const auto effect = random_.OneIn(2) ? FaultPlan::Effect::kTorn : FaultPlan::Effect::kError;
  if (random_.OneIn(2)) {
    harness_.FailChange(random_.Between(1, 6), effect);
    Change(Fua::kNo);
  } else {
    Change(Fua::kNo);
    harness_.FailChange(1, effect, kAddCowPath);
  }
  Flush();
  if (random_.OneIn(2)) Change(Fua::kNo);
  Flush();
}

}  // namespace addcow
