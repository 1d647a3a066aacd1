// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Measures what an open reads: bytes and calls must be bounded by the storage
// that exists, whatever sizes a header or a sparse file claims.

#ifndef ADDCOW_FUZZ_OPEN_METER_H
#define ADDCOW_FUZZ_OPEN_METER_H

#include <cstdint>

#include "fuzz/disk_rules.h"
#include "fuzz/must.h"
#include "fuzz/scene.h"
#include "tests/support/forwarding_file.h"

namespace addcow::fuzz {

class OpenMeter final : public Interceptor {
 public:
  Verdict Before(const Operation& operation) override {
    calls_++;
    if (operation.kind == OpKind::kRead) bytes_read_ += operation.length;
    FUZZ_MUST(!IsChange(operation.kind), "an open changes {}", operation.path);
    return {};
  }

  // The header, asked for twice where the file is shorter, a few bytes of each
  // file's beginning, the base's sample, then what storage the bitmap has, in whole words.
  void MustBeBounded(const FakeInode& add_cow) const {
    const uint64_t header_bytes = HeaderLengthByTheRules(add_cow.Bytes(0, kLeastHeaderBytes));
    uint64_t storage = 0;
    uint64_t pieces = 0;
    ForEachData(add_cow, [&](uint64_t start, uint64_t end) {
      storage += end - start;
      pieces++;
      return true;
    });
    const auto header = ReadHeaderByTheRules(add_cow);
    const uint64_t edge = header ? header->noted_edge : 0;
    const uint64_t sample = edge > 0 ? 2 * edge + 27 * 4096 : 0;
    FUZZ_MUST(bytes_read_ <= 2 * header_bytes + 200 + sample + storage + 16 * pieces,
              "open reads {} bytes of a file with {} bytes in {} pieces", bytes_read_, storage,
              pieces);
    const uint64_t for_sample = edge > 0 ? 30 : 0;
    const uint64_t least = header && header->subclusters ? 56 : 46;  // a bitmap costs ten
    FUZZ_MUST(calls_ <= least + for_sample + 4 * pieces + storage / 65536,
              "open makes {} calls for {} bytes in {} pieces", calls_, storage, pieces);
  }

 private:
  uint64_t calls_ = 0;
  uint64_t bytes_read_ = 0;
};

}  // namespace addcow::fuzz

#endif  // ADDCOW_FUZZ_OPEN_METER_H
