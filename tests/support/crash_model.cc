// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See crash_model.h. Versions are kept as hashes of 64 bits.

#include "tests/support/crash_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace addcow {

namespace {

std::span<const std::byte> SectorOf(std::span<const std::byte> bytes, uint64_t sector) {
  const uint64_t offset = sector * kSectorSize;
  return bytes.subspan(offset, std::min(kSectorSize, bytes.size() - offset));
}

}  // namespace

// Word by word; good enough to tell random sectors apart.
uint64_t CrashModel::HashOf(std::span<const std::byte> bytes, uint64_t sector) const {
  const auto data = SectorOf(bytes, sector);
  uint64_t hash = 0x9e3779b97f4a7c15;
  for (size_t i = 0; i < data.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    if (data.size() - i >= sizeof word)
      std::memcpy(&word, data.data() + i, sizeof word);
    else
      std::memcpy(&word, data.data() + i, data.size() - i);
    hash = (hash ^ word) * 0xff51afd7ed558ccd;
    hash ^= hash >> 32;
  }
  return hash;
}

CrashModel::CrashModel(std::vector<std::byte> contents)
    : contents_(std::move(contents)), sectors_(DivideUp(contents_.size(), kSectorSize)) {
  for (uint64_t i = 0; i < sectors_.size(); i++)
    sectors_[i].versions.push_back(HashOf(contents_, i));
}

void CrashModel::AddVersions(uint64_t offset, uint64_t length) {
  if (length == 0) return;
  for (uint64_t i = offset / kSectorSize; i <= (offset + length - 1) / kSectorSize; i++)
    sectors_[i].versions.push_back(HashOf(contents_, i));
}

void CrashModel::Write(std::span<const std::byte> data, uint64_t offset) {
  std::ranges::copy(data, contents_.begin() + static_cast<std::ptrdiff_t>(offset));
  AddVersions(offset, data.size());
}

void CrashModel::Zero(uint64_t offset, uint64_t length) {
  std::fill_n(contents_.begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte{0});
  AddVersions(offset, length);
}

void CrashModel::SetUnderWay(uint64_t offset, uint64_t length, bool under_way) {
  if (length == 0) return;
  for (uint64_t i = offset / kSectorSize; i <= (offset + length - 1) / kSectorSize; i++)
    sectors_[i].under_way = under_way;
}

CrashModel::Moment CrashModel::Latest() const {
  Moment moment;
  moment.reserve(sectors_.size());
  for (const Sector& sector : sectors_)
    moment.push_back(sector.first + sector.versions.size() - 1);
  return moment;
}

CrashModel::Moment CrashModel::Now() const {
  Moment moment = Latest();
  for (size_t i = 0; i < moment.size(); i++)
    if (sectors_[i].under_way) moment[i]--;
  return moment;
}

void CrashModel::Flushed(const Moment& moment) { Flushed(moment, 0, contents_.size()); }

void CrashModel::Flushed(const Moment& moment, uint64_t offset, uint64_t length) {
  if (length == 0) return;
  for (uint64_t i = offset / kSectorSize; i <= (offset + length - 1) / kSectorSize; i++) {
    Sector& sector = sectors_[i];
    if (moment[i] <= sector.first) continue;
    sector.versions.erase(
        sector.versions.begin(),
        sector.versions.begin() + static_cast<std::ptrdiff_t>(moment[i] - sector.first));
    sector.first = moment[i];
  }
}

std::string CrashModel::Check(std::span<const std::byte> actual) const {
  if (actual.size() != contents_.size())
    return fmt::format("{} bytes read, the disk has {}", actual.size(), contents_.size());
  if (std::memcmp(actual.data(), contents_.data(), actual.size()) == 0) return "";
  for (uint64_t i = 0; i < sectors_.size(); i++) {
    const auto found = SectorOf(actual, i);
    if (std::memcmp(found.data(), contents_.data() + i * kSectorSize, found.size()) == 0)
      continue;
    if (std::ranges::count(sectors_[i].versions, HashOf(actual, i)) != 0) continue;
    const bool zero = std::ranges::all_of(found, [](std::byte b) { return b == std::byte{0}; });
    return fmt::format("sector {} (cluster {}) reads {}, none of its {} versions", i,
                       i * kSectorSize / kClusterSize, zero ? "zeroes" : "something",
                       sectors_[i].versions.size());
  }
  return "";
}

void CrashModel::GoOnWith(std::span<const std::byte> actual) {
  GoOnWith(actual, 0, contents_.size());
}

void CrashModel::GoOnWith(std::span<const std::byte> actual, uint64_t offset, uint64_t length) {
  std::ranges::copy(actual.subspan(offset, length),
                    contents_.begin() + static_cast<std::ptrdiff_t>(offset));
  AddVersions(offset, length);
}

}  // namespace addcow
