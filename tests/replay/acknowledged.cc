// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See acknowledged.h.

#include "tests/replay/acknowledged.h"

#include <fmt/format.h>

#include <algorithm>

namespace addcow {

namespace {

// The sectors that a range of one byte or more touches.
uint64_t FirstSector(uint64_t offset) { return offset / kSectorSize; }
uint64_t LastSector(uint64_t offset, uint64_t length) {
  return (offset + length - 1) / kSectorSize;
}

}  // namespace

void Acknowledged::BeginWrite(uint64_t id, std::span<const std::byte> data, uint64_t offset,
                              bool fua) {
  model_.Write(data, offset);
  in_flight_[id] = {offset, data.size(), fua};
}

void Acknowledged::BeginZero(uint64_t id, uint64_t offset, uint64_t length, bool fua) {
  model_.Zero(offset, length);
  in_flight_[id] = {offset, length, fua};
}

void Acknowledged::BeginFlush(uint64_t id) { in_flight_[id] = {.covers = Answered()}; }

void Acknowledged::End(uint64_t id, bool success) {
  const Request request = std::move(in_flight_.at(id));
  in_flight_.erase(id);
  if (!success) {
    counts_.failed++;
    return;
  }
  if (request.length == 0) {
    model_.Flushed(request.covers);
  } else {
    counts_.writes++;
    // Nothing else is in flight in its sectors.
    if (request.fua) model_.Flushed(model_.Now(), request.offset, request.length);
  }
  if (request.length == 0 || request.fua) counts_.flushes++;
}

bool Acknowledged::IsBusy(uint64_t offset, uint64_t length) const {
  return std::ranges::any_of(in_flight_, [&](const auto& entry) {
    const Request& other = entry.second;
    return other.length > 0 && FirstSector(offset) <= LastSector(other.offset, other.length) &&
           FirstSector(other.offset) <= LastSector(offset, length);
  });
}

CrashModel::Moment Acknowledged::Answered() const {
  CrashModel::Moment moment = model_.Now();
  for (const auto& [id, request] : in_flight_) {
    if (request.length == 0) continue;
    for (uint64_t i = FirstSector(request.offset);
         i <= LastSector(request.offset, request.length); i++)
      moment[i]--;
  }
  return moment;
}

void Acknowledged::AllDurable() { model_.Flushed(Answered()); }

std::string Acknowledged::Apply(const Record& record) {
  const RecordHeader& header = record.header;
  const bool changes = header.kind == RecordKind::kWrite || header.kind == RecordKind::kZero;
  if (changes && IsBusy(header.offset, header.length))
    return fmt::format("the load has two changes of one sector in flight, at {}+{}",
                       header.offset, header.length);
  switch (header.kind) {
    case RecordKind::kWrite:
      BeginWrite(header.id, record.data, header.offset, header.fua != 0);
      break;
    case RecordKind::kZero:
      BeginZero(header.id, header.offset, header.length, header.fua != 0);
      break;
    case RecordKind::kFlush:
      BeginFlush(header.id);
      break;
    case RecordKind::kEnd:
      if (IsInFlight(header.id)) End(header.id, header.result == 0);
      break;
    case RecordKind::kFileWrite:
    case RecordKind::kFileZero:
    case RecordKind::kFileTruncate:
    case RecordKind::kFileSync:
      break;
  }
  return "";
}

}  // namespace addcow
