// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The engine when the power fails: random disks, random requests of every
// kind, also by a second thread while a flush is under way, processes that
// are killed, syncs that fail, crashes one after the other on the same files.
// At every moment states that a crash may leave are opened and compared.
//
// ADDCOW_SEED repeats a run, ADDCOW_CRASH_STATES makes it shorter or longer.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <iostream>

#include "tests/crash/crash_harness.h"

#ifndef __has_feature  // clang's
#define __has_feature(feature) 0
#endif

namespace addcow {
namespace {

constexpr uint64_t kC = kClusterSize;

// How many are looked at if nobody says. Ten times slower are sanitizers, and
// code that is not optimised.
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer) || \
    __has_feature(thread_sanitizer) || !defined(__OPTIMIZE__)
constexpr uint64_t kStates = 10000;
#else
constexpr uint64_t kStates = 200000;
#endif

ImageSpec RandomSpec(Random& random) {
  ImageSpec spec;
  spec.size = random.Between(1, 4) * kC;
  if (random.OneIn(2)) spec.size -= random.Below(kC);
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
      spec.backing_size = random.Below(spec.size);
      break;  // shorter
  }
  if (spec.backing_size && random.OneIn(2)) {
    spec.backing_data.emplace();
    for (uint64_t at = 0; at < *spec.backing_size; at += 8192)
      if (random.OneIn(3))
        spec.backing_data->push_back({at, std::min<uint64_t>(8192, *spec.backing_size - at)});
  }
  spec.garbage = !random.OneIn(4);
  for (uint64_t i = 0; i < DivideUp(spec.size, kC); i++)
    if (random.OneIn(5)) spec.allocated.push_back(i);
  spec.seed = random.Next() >> 8;
  return spec;
}

FakeInode::Abilities RandomAbilities(Random& random) {
  FakeInode::Abilities abilities;
  abilities.punch_hole = !random.OneIn(4);
  abilities.zero_range = !random.OneIn(4);
  abilities.seek = !random.OneIn(4);
  return abilities;
}

class RandomRun {
 public:
  explicit RandomRun(uint64_t seed)
      : random_(seed), harness_(RandomSpec(random_), RandomAbilities(random_), seed, 12) {
    harness_.SetMeanwhile([this] {
      if (random_.OneIn(3)) Change(Fua::kNo);
    });
  }

  // Until something is wrong or so many states have been looked at.
  void Run(uint64_t states) {
    for (int step = 0; step < 60 && Fine() && harness_.states() < states; step++) Step();
    if (Fine()) harness_.CheckStates();
  }
  const CrashHarness& harness() const { return harness_; }

 private:
  bool Fine() const { return harness_.wrong().empty(); }

  void Step() {
    switch (random_.Below(20)) {
      case 0:
      case 1:
      case 2:
      case 3:
        (void)harness_.Flush();
        break;
      case 4:
        harness_.CrashAndGoOn();
        break;
      case 5:
        harness_.Kill();
        break;
      case 6:
        KillInFlush();
        break;
      case 7:
        FailSync();
        break;
      case 8:
        if (harness_.Close()) harness_.Kill();
        break;
      case 9:
      case 10:
        Change(Fua::kYes);
        break;
      default:
        Change(Fua::kNo);
        break;
    }
  }

  void Change(Fua fua) {
    const uint64_t size = harness_.size();
    uint64_t offset = random_.Below(size);
    uint64_t length = random_.Between(1, std::min<uint64_t>(size - offset, 3000));
    if (random_.OneIn(3)) {  // whole clusters
      offset = RoundDown(offset, kC);
      length = std::min(random_.Between(1, 2) * kC, size - offset);
    } else if (random_.OneIn(3)) {
      length = random_.Between(1, size - offset);
    }
    switch (random_.Below(9)) {
      case 0:
      case 1:
        (void)harness_.Zero(offset, length, {.may_punch = true}, fua);
        break;
      case 2:
        (void)harness_.Zero(offset, length, {.may_punch = false}, fua);
        break;
      case 3:
        (void)harness_.CopyUp(Layout::Touched(offset, length));
        break;
      default:
        (void)harness_.Write(offset, length, fua);
        break;
    }
  }

  void KillInFlush() {
    const OpKind kind = random_.OneIn(3) ? OpKind::kWrite : OpKind::kSyncData;
    harness_.StopBefore(kind, random_.OneIn(3) ? kImagePath : kAddCowPath);
    (void)harness_.Flush();
    harness_.Kill();
  }

  // The process must not trust that file again; the power fails in the end.
  void FailSync() {
    harness_.FailNextSync(random_.OneIn(2) ? kImagePath : kAddCowPath);
    (void)harness_.Flush();
    Change(Fua::kYes);
    (void)harness_.Flush();
    (void)harness_.Close();
    if (Fine()) harness_.CrashAndGoOn();
    harness_.FailNextSync("");
  }

  Random random_;
  CrashHarness harness_;
};

TEST(RandomCrash, EverySectorReadsAVersionThatMayBeThere) {
  const uint64_t wanted = EnvironmentNumber("ADDCOW_CRASH_STATES", kStates);
  uint64_t states = 0;
  uint64_t runs = 0;
  while (states < wanted) {
    const uint64_t seed = TestSeed() + runs++;
    RandomRun run(seed);
    run.Run(wanted - states);
    states += run.harness().states();
    ASSERT_EQ(run.harness().wrong(), "") << "repeat it with ADDCOW_SEED=" << seed;
  }
  std::cout << fmt::format("# {} states of {} disks\n", states, runs);
}

}  // namespace
}  // namespace addcow
