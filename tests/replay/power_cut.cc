// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See power_cut.h.

#include "tests/replay/power_cut.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/units.h"

namespace addcow {

namespace {

// Writing past the end makes a file longer.
void CopyTo(std::vector<std::byte>& file, std::span<const std::byte> bytes, uint64_t offset) {
  if (file.size() < offset + bytes.size()) file.resize(offset + bytes.size());
  std::ranges::copy(bytes, file.begin() + static_cast<std::ptrdiff_t>(offset));
}

}  // namespace

PowerCut::PowerCut(Files files) : durable_(std::move(files)) {
  for (const auto& file : durable_) sizes_.push_back(file.size());
}

uint64_t PowerCut::Change::first_sector() const { return offset / kSectorSize; }

uint64_t PowerCut::Change::sectors() const {
  if (new_size) return 1;
  if (bytes.empty()) return 0;
  return (offset + bytes.size() - 1) / kSectorSize - first_sector() + 1;
}

std::string PowerCut::Apply(const Record& record) {
  switch (record.header.kind) {
    case RecordKind::kFileWrite:
    case RecordKind::kFileZero:
    case RecordKind::kFileTruncate:
    case RecordKind::kFileSync:
      return Begin(record);
    case RecordKind::kEnd:
      return End(record.header.id, record.header.result);
    case RecordKind::kWrite:
    case RecordKind::kZero:
    case RecordKind::kFlush:
      break;
  }
  return "";
}

std::string PowerCut::Begin(const Record& record) {
  const RecordHeader& header = record.header;
  if (header.file >= durable_.size()) return fmt::format("no file {}", header.file);
  if (header.kind == RecordKind::kFileSync) {
    std::vector<uint64_t>& covers = syncing_[header.id];
    for (const Change& change : pending_)
      if (change.file == header.file && change.returned) covers.push_back(change.id);
    return "";
  }
  if (header.kind == RecordKind::kFileTruncate) {
    pending_.push_back({header.id, header.file, 0, {}, header.length});
    sizes_[header.file] = header.length;
    return "";
  }
  const uint64_t size = sizes_[header.file];
  if (header.offset > size || header.length > size - header.offset)
    return fmt::format("a change at {}+{} of file {}, which has {} bytes", header.offset,
                       header.length, header.file, size);
  Change change{header.id, header.file, header.offset, {}};
  if (header.kind == RecordKind::kFileWrite)
    change.bytes.assign(record.data.begin(), record.data.end());
  else
    change.bytes.resize(header.length);
  pending_.push_back(std::move(change));
  return "";
}

std::string PowerCut::End(uint64_t id, int64_t result) {
  if (const auto sync = syncing_.find(id); sync != syncing_.end()) {
    if (result < 0) return fmt::format("a sync failed with errno {}", -result);
    syncs_++;
    std::vector<Change> rest;
    for (Change& change : pending_) {
      if (std::ranges::find(sync->second, change.id) == sync->second.end())
        rest.push_back(std::move(change));
      else if (change.new_size)
        durable_[change.file].resize(*change.new_size);
      else
        CopyTo(durable_[change.file], change.bytes, change.offset);
    }
    pending_ = std::move(rest);
    syncing_.erase(sync);
    return "";
  }
  const auto change = std::ranges::find(pending_, id, &Change::id);
  if (change == pending_.end()) return "";  // of a request
  // One that the file system cannot do changes nothing; a write that failed
  // otherwise, or was short, has no place in these tests.
  if (result < 0) {
    if (result != -EOPNOTSUPP) return fmt::format("a change failed with errno {}", -result);
    pending_.erase(change);
    return "";
  }
  changes_++;
  change->returned = true;
  if (result > 0) change->bytes.resize(static_cast<size_t>(result));
  return "";
}

// The kinds of states are those of CrashDisk: sectors at random; everything
// up to a moment; all of one file and nothing of the other; everything but one
// change.
std::vector<std::vector<bool>> PowerCut::Kept(const Choice& choice) const {
  Random random(choice.seed);
  const uint64_t kind = random.Below(4);
  const uint64_t moment = random.Below(pending_.size() + 1);
  const uint64_t files = random.Next();
  std::vector<std::vector<bool>> kept(pending_.size());
  for (size_t i = 0; i < pending_.size(); i++) {
    const uint64_t whole = random.Below(3);  // 0: lost, 1: kept, 2: torn
    for (uint64_t sector = 0; sector < pending_[i].sectors(); sector++) {
      const bool coin = random.OneIn(2);
      bool keep = whole == 2 ? coin : whole == 1;
      if (kind == 1) keep = i < moment || (i == moment && coin);
      if (kind == 2) keep = (files >> (pending_[i].file % 64) & 1) != 0;
      if (kind == 3) keep = i != moment || (whole == 2 && coin);
      if (choice.keep != Choice::Keep::kSome) keep = choice.keep == Choice::Keep::kEverything;
      kept[i].push_back(keep);
    }
  }
  return kept;
}

// A file system has a journal for sizes: one that is kept brings those before it along.
// So does a sector that is kept past the end.
bool PowerCut::SizeIsKept(size_t index, const std::vector<std::vector<bool>>& kept) const {
  const uint32_t file = pending_[index].file;
  for (size_t i = index; i < pending_.size(); i++) {
    const Change& change = pending_[i];
    if (change.file != file) continue;
    if (change.new_size && kept[i][0]) return true;
    for (uint64_t k = 0; !change.new_size && k < change.sectors(); k++)
      if (kept[i][k] && (change.first_sector() + k) * kSectorSize >= durable_[file].size())
        return true;
  }
  return false;
}

PowerCut::Files PowerCut::Cut(const Choice& choice) const {
  Files files = durable_;
  const auto kept = Kept(choice);
  // Of each file and sector, the last change that is kept.
  std::map<std::pair<uint32_t, uint64_t>, size_t> last;
  for (size_t i = 0; i < pending_.size(); i++)
    for (uint64_t k = 0; !pending_[i].new_size && k < pending_[i].sectors(); k++)
      if (kept[i][k]) last[{pending_[i].file, pending_[i].first_sector() + k}] = i;
  for (size_t i = 0; i < pending_.size(); i++) {
    const Change& change = pending_[i];
    if (change.new_size && SizeIsKept(i, kept)) files[change.file].resize(*change.new_size);
    for (uint64_t k = 0; !change.new_size && k < change.sectors(); k++) {
      const uint64_t sector = change.first_sector() + k;
      const auto found = last.find({change.file, sector});
      if (found == last.end() || found->second < i) continue;
      const uint64_t start = std::max(sector * kSectorSize, change.offset);
      const uint64_t end =
          std::min((sector + 1) * kSectorSize, change.offset + change.bytes.size());
      CopyTo(files[change.file],
             std::span(change.bytes).subspan(start - change.offset, end - start), start);
    }
  }
  return files;
}

std::string PowerCut::Describe(const Choice& choice) const {
  std::string text;
  switch (choice.keep) {
    case Choice::Keep::kNothing:
      text = "only what was synced";
      break;
    case Choice::Keep::kEverything:
      text = "everything";
      break;
    case Choice::Keep::kSome:
      text = fmt::format("chosen by seed {:#x}", choice.seed);
      break;
  }
  const auto kept = Kept(choice);
  for (size_t i = 0; i < pending_.size(); i++)
    text += fmt::format("\n  kept {} of {} sectors of file {} {}+{}{}",
                        std::ranges::count(kept[i], true), kept[i].size(), pending_[i].file,
                        pending_[i].offset, pending_[i].bytes.size(),
                        pending_[i].returned ? "" : " (under way)");
  return text;
}

}  // namespace addcow
