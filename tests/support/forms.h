// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The forms that an image can have, for tests that must hold in each: both revisions,
// and clusters from the smallest to the largest.

#ifndef ADDCOW_TESTS_SUPPORT_FORMS_H
#define ADDCOW_TESTS_SUPPORT_FORMS_H

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <vector>

#include "tests/support/random.h"
#include "tests/support/test_image.h"

namespace addcow {

struct Form {
  const char* name;
  Revision revision;
  uint64_t cluster_size;

  friend void PrintTo(const Form& form, std::ostream* out) { *out << form.name; }
};

inline constexpr Form kVersion1Form{"Version1", Revision::kVersion1, kClusterSize};
inline constexpr Form k64kForm{"Acow64k", Revision::kAcow, 64 * kKiB};
inline constexpr Form k4kForm{"Acow4k", Revision::kAcow, 4 * kKiB};
inline constexpr Form k8kForm{"Acow8k", Revision::kAcow, 8 * kKiB};
inline constexpr Form k2MForm{"Acow2M", Revision::kAcow, 2 * kMiB};

inline ImageSpec InForm(ImageSpec spec, const Form& form) {
  spec.revision = form.revision;
  spec.cluster_size = form.cluster_size;
  return spec;
}

// A disk by the 4096 bytes: which of them the image file has.
using Units = std::vector<bool>;

// Runs of any length, up to some times `longest`; now and then long ones.
inline Units RandomUnits(uint64_t size, uint64_t longest, Random& random) {
  Units units(DivideUp(size, kSubclusterSize));
  for (uint64_t at = random.Below(longest); at < units.size();) {
    const uint64_t count =
        random.OneIn(3) ? random.Between(longest, 3 * longest) : random.Between(1, 5);
    for (uint64_t i = at; i < std::min<uint64_t>(at + count, units.size()); i++)
      units[i] = true;
    at += count + random.Between(1, random.OneIn(2) ? longest : 4);
  }
  return units;
}

// Gives the spec the bits for `units`, in its form: clusters that are there wholly have
// their own, and of the others the subclusters do.
inline void SetUnits(ImageSpec& spec, const Units& units) {
  const uint64_t ratio = spec.cluster_size / kSubclusterSize;
  spec.allocated.clear();
  spec.subclusters.clear();
  for (uint64_t at = 0; at < units.size(); at += ratio) {
    const uint64_t end = std::min<uint64_t>(at + ratio, units.size());
    const auto from = units.begin() + static_cast<std::ptrdiff_t>(at);
    const auto to = units.begin() + static_cast<std::ptrdiff_t>(end);
    if (std::find(from, to, false) == to) {
      spec.allocated.push_back(at / ratio);
      continue;
    }
    for (uint64_t i = at; i < end; i++)
      if (units[i]) spec.subclusters.push_back(i);
  }
}

// Sets all units of the clusters of that size in which there are some, but not all.
inline Units Completed(Units units, uint64_t cluster_size) {
  const uint64_t ratio = cluster_size / kSubclusterSize;
  for (uint64_t at = 0; at < units.size(); at += ratio) {
    const auto from = units.begin() + static_cast<std::ptrdiff_t>(at);
    const auto to = units.begin() +
                    static_cast<std::ptrdiff_t>(std::min<uint64_t>(at + ratio, units.size()));
    if (std::find(from, to, true) != to) std::fill(from, to, true);
  }
  return units;
}

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_FORMS_H
