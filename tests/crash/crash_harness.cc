// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See crash_harness.h.

#include "tests/crash/crash_harness.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

namespace addcow {

namespace {

// The bitmap's bytes in the file.
std::vector<std::byte> BitsIn(const FakeFileSystem& files, uint64_t virtual_size) {
  return files.Find(kAddCowPath)->Bytes(kBitmapOffset, Layout(virtual_size).bitmap_bytes());
}

}  // namespace

CrashHarness::CrashHarness(const ImageSpec& spec, const FakeInode::Abilities& abilities,
                           uint64_t seed, uint64_t states)
    : random_(seed), states_(states) {
  FakeFileSystem files;
  files.MakeDirectory(kDirectory);
  auto contents = MakeTestImage(files, kDirectory, spec);
  if (!contents) {
    Wrong(contents.error().Message());
    return;
  }
  for (const std::string& name : files.List()) files.Find(name)->SetAbilities(abilities);
  model_.emplace(std::move(*contents));
  Start(files);
}

void CrashHarness::Start(const FakeFileSystem& files) {
  image_.reset();
  seam_.reset();
  disk_ = std::make_unique<CrashDisk>(files);
  disk_->SetHook([this](const Operation& operation) { return OnOperation(operation); });
  seam_ = std::make_unique<ForwardingFileSystem>(*disk_, faults_);
  Kill();
}

void CrashHarness::Wrong(const std::string& what) {
  if (!wrong_.empty()) return;
  const size_t shown = std::min<size_t>(requests_.size(), 20);
  wrong_ = fmt::format(
      "{}\nthe last requests:\n  {}", what,
      fmt::join(requests_.end() - static_cast<std::ptrdiff_t>(shown), requests_.end(), "\n  "));
}

int CrashHarness::OnOperation(const Operation& operation) {
  if (!wrong_.empty()) return 0;
  CheckStates();
  // Only while a flush holds no lock that a writer wants.
  const bool flushing = IsSync(operation.kind) || operation.path == kAddCowPath;
  if (meanwhile_ && flushing && !in_meanwhile_) {
    in_meanwhile_ = true;
    Begin("meanwhile:");
    std::thread(meanwhile_).join();
    Begin("(goes on)");
    in_meanwhile_ = false;
    CheckStates();
  }
  if (IsSync(operation.kind) && operation.path == failing_sync_) {
    failing_sync_.clear();
    Begin("(sync of " + operation.path + " failed)");
    return EIO;
  }
  return 0;
}

void CrashHarness::CheckStates() {
  const auto durable_bits = BitsIn(*disk_->CrashLosingAll(), size());
  for (const CrashDisk::Choice& choice : disk_->Choices(random_, states_)) {
    const auto files = disk_->Crash(choice);
    const std::string wrong = CheckState(*files, durable_bits);
    checked_++;
    if (!wrong.empty()) return Wrong(wrong + "\n" + disk_->Describe(choice));
  }
}

std::string CrashHarness::CheckState(FakeFileSystem& files,
                                     std::span<const std::byte> durable_bits) const {
  const auto bits = BitsIn(files, size());
  for (size_t i = 0; i < bits.size(); i++)
    if ((bits[i] & durable_bits[i]) != durable_bits[i])
      return fmt::format("a durable bit is gone from byte {} of the bitmap", i);
  const auto flags = files.Find(kAddCowPath)->Bytes(kFeaturesOffset, 1)[0];
  const bool all = (flags & std::byte{kFeatureAllAllocated}) != std::byte{0};
  if (all) {
    for (uint64_t i = 0; i < Layout(size()).clusters(); i++)
      if ((bits[i / 8] >> (i % 8) & std::byte{1}) == std::byte{0})
        return fmt::format("ALL_ALLOCATED is set and bit {} is not", i);
    if (files.Find(kBackingPath) != nullptr) (void)files.Remove(kBackingPath);
  }
  auto image = OpenTestImage(files);
  if (!image) return image.error().Message();
  return model_->Check(ReadAll(**image));
}

void CrashHarness::StopBefore(OpKind kind, const std::string& path) {
  Begin(fmt::format("to be killed before: {} {}", Name(kind), path));
  faults_.Set({.at = 1,
               .error = EIO,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = [kind, path](const Operation& operation) {
                 return operation.kind == kind && operation.path == path;
               }});
}

void CrashHarness::Kill() {
  Begin("open");
  faults_.Clear();
  auto image = OpenTestImage(*seam_);
  if (!image) return Wrong(image.error().Message());
  image_ = std::move(*image);
  wrote_ = false;
  const auto contents = ReadAll(*image_);
  if (const std::string wrong = model_->Check(contents); !wrong.empty())
    return Wrong("in a new process: " + wrong);
  model_->GoOnWith(contents);
}

void CrashHarness::CrashAndGoOn() {
  const CrashDisk::Choice choice{.torn = true, .seed = random_.Next()};
  Begin(disk_->Describe(choice));
  Start(*disk_->Crash(choice));
  if (!wrong_.empty()) return;
  model_ = CrashModel(model_->contents());
}

template <typename Request>
Status CrashHarness::Do(uint64_t offset, uint64_t length, Fua fua, Request request) {
  wrote_ = true;
  const CrashModel::Moment moment = model_->Now();
  Status done = request();
  if (!done)
    model_->GoOnWith(ReadAll(*image_));
  else if (fua == Fua::kYes)
    model_->Flushed(moment, offset, length);
  return done;
}

Status CrashHarness::Write(uint64_t offset, std::span<const std::byte> data, Fua fua) {
  Begin(fmt::format("write {}+{}{}", offset, data.size(), fua == Fua::kYes ? " FUA" : ""));
  model_->Write(data, offset);
  return Do(offset, data.size(), fua, [&] { return image_->Write(data, offset, fua); });
}

Status CrashHarness::Write(uint64_t offset, uint64_t length, Fua fua) {
  return Write(offset, random_.Bytes(length), fua);
}

Status CrashHarness::Zero(uint64_t offset, uint64_t length, ZeroOptions options, Fua fua) {
  Begin(fmt::format("{} {}+{}{}", options.may_punch ? "trim" : "zero", offset, length,
                    fua == Fua::kYes ? " FUA" : ""));
  model_->Zero(offset, length);
  return Do(offset, length, fua, [&] { return image_->Zero(offset, length, options, fua); });
}

Status CrashHarness::CopyUp(ClusterRange range) {
  Begin(fmt::format("copy up {}+{}", range.first, range.count));
  wrote_ = true;
  return image_->CopyUp(range);
}

Status CrashHarness::Flush() {
  Begin("flush");
  return Do(0, size(), Fua::kYes, [&] { return image_->Flush(); });
}

// It flushes what this process wrote; what a killed one left is not its own.
Status CrashHarness::Close() {
  Begin("close");
  if (!wrote_) return image_->Close();
  return Do(0, size(), Fua::kYes, [&] { return image_->Close(); });
}

}  // namespace addcow
