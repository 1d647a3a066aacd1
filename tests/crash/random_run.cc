// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See random_run.h. Disks are small, so that requests meet, and so that
// every cluster gets allocated now and then.

#include "tests/crash/random_run.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/crash/random_disk.h"

namespace addcow {

namespace {

// Of a disk with a cluster of 2 MiB each takes as long as ten of another.
constexpr uint64_t kStatesOfALargeDisk = 300;

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
    case CrashRequest::Kind::kRead:
      return "read";
    case CrashRequest::Kind::kFlush:
      return "flush";
    case CrashRequest::Kind::kFill:
      return "fill";
  }
  return "?";
}

}  // namespace

RandomRun::RandomRun(uint64_t seed)
    : random_(seed),
      harness_(RandomSpec(random_, seed), RandomAbilities(random_), seed, RandomEffort(random_),
               RandomOrigin(random_), !random_.OneIn(4)) {
  harness_.Count(
      fmt::format("disk with clusters of {} KiB", harness_.layout().cluster_size() / kKiB));
  harness_.SetMeanwhile([this] {
    if (!random_.OneIn(3)) return;
    CrashRequest request = RandomChange(Fua::kNo);
    if (request.kind == CrashRequest::Kind::kFill) request.kind = CrashRequest::Kind::kCopyUp;
    Do(request);
  });
}

void RandomRun::Run(uint64_t states) {
  if (harness_.size() > kMiB) states = std::min(states, kStatesOfALargeDisk);
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
  switch (random_.Below(7)) {
    case 0:
    case 1:
      return Race();
    case 2:
      return FuaBesideFlush();
    case 3:
    case 4:
      return KillInFlush();
    case 5:
      return FailFua();
    default:
      return;
  }
}

void RandomRun::Step() {
  const uint64_t step = random_.Below(32);
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
    case 18:
      return Convert();
    case 19:
      return CommitOrRebase(true);
    case 20:
      return CommitOrRebase(false);
    case 21:
      return Resize();
    case 15:
    case 16:
      return Close();
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

// Which leaves a cluster that was not allocated in part.
CrashRequest RandomRun::SmallWrite() {
  const uint64_t offset = random_.Below(harness_.size());
  last_ = {.kind = CrashRequest::Kind::kWrite,
           .offset = offset,
           .length = random_.Between(1, std::min<uint64_t>(harness_.size() - offset, 3000))};
  return last_;
}

// Other sectors of the subcluster in which the last one began.
CrashRequest RandomRun::WriteBesideLast() {
  uint64_t offset = RoundDown(last_.offset, kSubclusterSize);
  const uint64_t sectors =
      DivideUp(std::min(harness_.size() - offset, kSubclusterSize), kSectorSize);
  offset += kSectorSize * random_.Below(sectors);
  return {.kind = CrashRequest::Kind::kWrite,
          .offset = offset,
          .length = random_.Between(1, std::min(harness_.size() - offset, kSectorSize))};
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
  const uint64_t kind = random_.Below(10);
  if (kind < 4 && random_.OneIn(4)) {  // longer than is zeroed by one write
    request.offset = random_.Below(DivideUp(size, 2));
    request.length = size - request.offset;
  }
  if (!random_.OneIn(3)) {  // whole sectors, as most clients have, or subclusters
    const uint64_t grain = random_.OneIn(2) ? kSectorSize : kSubclusterSize;
    const uint64_t end = RoundUp(request.offset + request.length, grain);
    request.offset = RoundDown(request.offset, grain);
    request.length = std::min(end, size) - request.offset;
  }
  switch (kind) {
    case 0:
    case 1:
      request.kind = CrashRequest::Kind::kTrim;
      break;
    case 2:
      request.kind = CrashRequest::Kind::kZero;
      break;
    case 3:
      request.kind = random_.OneIn(2) ? CrashRequest::Kind::kCopyUp : CrashRequest::Kind::kFill;
      break;
    case 4:
      request.kind = CrashRequest::Kind::kRead;
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
  if (request.fua == Fua::kYes && request.kind != CrashRequest::Kind::kCopyUp &&
      request.kind != CrashRequest::Kind::kRead && request.kind != CrashRequest::Kind::kFill)
    harness_.Count("FUA");
}

void RandomRun::Flush() {
  const bool all = harness_.image().bitmap().all();
  const bool had = harness_.HasSubclusters();
  if (!harness_.Flush()) return;
  harness_.Count("flush");
  if (!had && harness_.HasSubclusters()) harness_.Count("SUBCLUSTERS");
  if (all && harness_.image().backing().size() > 0) harness_.Count("ALL_ALLOCATED");
}

void RandomRun::Close() {
  // Often without a partial cluster, but not all allocated.
  const uint64_t clusters = harness_.layout().clusters();
  if (clusters > 1 && random_.OneIn(3)) (void)harness_.CopyUp({0, clusters - 1});
  const bool had = harness_.HasSubclusters();
  if (!harness_.Close()) return;
  harness_.Count("clean close");
  if (had && !harness_.HasSubclusters()) harness_.Count("SUBCLUSTERS dropped");
  harness_.Kill();
}

void RandomRun::Flatten() {
  if (random_.OneIn(3)) {
    (void)harness_.Flatten(random_.Between(1, 12));
    return harness_.Count("flatten killed");
  }
  if (harness_.Flatten()) harness_.Count("flatten");
}

void RandomRun::Convert() {
  ConvertOptions options{.source = {.add_cow_path = kAddCowPath}};
  if (!random_.OneIn(4)) {
    options.revision = Revision::kAcow;
    options.cluster_size = (4 * kKiB) << random_.Below(6);
    if (random_.OneIn(8)) options.cluster_size = 2 * kMiB;
  }
  options.subclusters = !random_.OneIn(8);
  const bool killed = random_.OneIn(2);
  const bool done = harness_.Convert(options, killed ? random_.Between(1, 12) : 0).has_value();
  if (killed) harness_.Count("conversion killed");
  if (done) harness_.Count("conversion");
}

void RandomRun::CommitOrRebase(bool commit) {
  const char* const name = commit ? "commit" : "rebase of data";
  const uint64_t killed_before = random_.OneIn(2) ? random_.Between(1, 25) : 0;
  const Status done =
      commit ? harness_.Commit(killed_before) : harness_.RebaseData(killed_before);
  harness_.Count(done ? name : fmt::format("{} killed", name));
}

// Not much larger each time, so that there are many states of it.
void RandomRun::Resize() {
  if (harness_.sync_failed()) return;
  const uint64_t cluster = harness_.layout().cluster_size();
  // Often with a last cluster that alone is there in part: what completes it then ends
  // SUBCLUSTERS.
  if (random_.OneIn(3)) {
    const uint64_t last = harness_.layout().clusters() - 1;
    if (last > 0) (void)harness_.CopyUp({0, last});
    (void)harness_.Write(harness_.size() - 1, 1);
    if (!Fine()) return;
  }
  uint64_t size = random_.Between(1, harness_.size() + 2 * std::min(cluster, kC));
  if (random_.OneIn(3)) size = std::max(RoundDown(size, cluster), kSectorSize);
  const bool killed = random_.OneIn(2);
  harness_.Count(size < harness_.size() ? "shrink" : "grow");
  harness_.Resize(size, killed ? random_.Between(1, 10) : 0);
  last_ = {};  // it may lie past the end
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
      request.kind = random_.OneIn(2) ? CrashRequest::Kind::kCopyUp : CrashRequest::Kind::kRead;
      return request;
    }
    if (last_.length > 0 && random_.OneIn(6)) return WriteBesideLast();
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
  if (random_.OneIn(2)) Flush();
  Change(Fua::kNo);
  // The first flush with subclusters has up to three of a kind: the second is that of
  // the feature.
  const bool first = !harness_.HasSubclusters() && !random_.OneIn(3) &&
                     harness_.layout().cluster_size() > kSubclusterSize;
  if (first || random_.OneIn(2)) Do(SmallWrite());
  const OpKind kind = random_.OneIn(3) ? OpKind::kWrite : OpKind::kSyncData;
  const char* const path = random_.OneIn(first ? 6 : 3) ? kImagePath : kAddCowPath;
  const bool feature = first && path == kAddCowPath && random_.OneIn(2);
  harness_.StopBefore(kind, path,
                      feature ? 2 : random_.Between(1, first && path == kAddCowPath ? 3 : 1));
  (void)harness_.Flush();
  harness_.Kill();
  if (!Fine()) return;
  // With nothing new to publish, only what the killed one left.
  if (random_.OneIn(4)) return Flush();
  if (random_.OneIn(2)) return Do(FuaOverLast());
  Do(SmallWrite());
  Flush();
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
