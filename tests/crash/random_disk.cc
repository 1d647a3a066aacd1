// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See random_disk.h.

#include "tests/crash/random_disk.h"

#include <iterator>

namespace addcow {

namespace {

// Half of the disks are of version 1.
void SetGeometry(ImageSpec& spec, Random& random) {
  if (random.OneIn(2)) return;
  spec.revision = Revision::kAcow;
  const uint64_t of_4k_in_64k[] = {kC, 4 * kKiB, 4 * kKiB, 8 * kKiB, 16 * kKiB};
  spec.cluster_size = of_4k_in_64k[random.Below(std::size(of_4k_in_64k))];
  if (random.OneIn(10)) spec.cluster_size = 2 * kMiB;
}

}  // namespace

// Every subset of up to so many changes that no sync has covered. Twelve have eight times
// the subsets of nine, and seldom show more.
CrashDisk::Effort RandomEffort(Random& random) {
  return {.exhaustive = random.OneIn(4) ? 12u : 9u, .samples = 24};
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

}  // namespace addcow
