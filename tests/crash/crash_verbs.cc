// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The tool's verbs in the crash search: each in a process of its own, after that of the server
// was killed, and killed in turn, perhaps.

#include <fmt/format.h>

#include <utility>

#include "common/ops/commit.h"
#include "common/ops/flatten.h"
#include "common/ops/rebase_data.h"
#include "common/ops/resize.h"
#include "tests/crash/crash_harness.h"
#include "tests/support/with_subclusters.h"

namespace addcow {

bool CrashHarness::HasBase() const {
  return !base_gone_ && TestHeader(disk_->live()).backing.has_value();
}

std::string CrashHarness::BaseName() const {
  const std::string name = TestHeader(disk_->live()).backing->name;
  return name.substr(name.rfind('/') + 1);
}

void CrashHarness::Rebase() {
  Kill();
  if (!wrong_.empty()) return;
  DropImage();
  Begin("rebase");
  // The same files by other names.
  RebaseOptions options{.add_cow_path = kAddCowPath, .backing = {}, .image_name = "./disk.raw"};
  if (HasBase()) options.backing = NamedFile{"./" + BaseName(), "raw"};
  if (const auto done = RebaseUnsafely(*seam_, options); !done) Wrong(done.error().Message());
  CheckStates();
  if (wrong_.empty()) Kill();
}

Status CrashHarness::Flatten(uint64_t killed_before) {
  Kill();
  if (!wrong_.empty()) return {};
  DropImage();
  Begin(killed_before == 0 ? "flatten"
                           : fmt::format("flatten, killed before operation {}", killed_before));
  KillBefore(killed_before);
  const CrashModel::Moment moment = model_->Latest();
  const auto done = FlattenImage(
      *seam_, kAddCowPath, [](LogLevel, const std::string&) {}, [](uint64_t, uint64_t) {});
  if (done) {
    Flushed(moment, 0, size());
    CheckStates();
    if (const auto image = disk_->live().Find(kImagePath)->Bytes(0, size());
        wrong_.empty() && image != model_->contents())
      Wrong("flattened, the image file is not the disk: " +
            Difference(image, model_->contents()));
  }
  if (wrong_.empty()) Kill();
  if (!done) return Fail(done.error());
  return {};
}

Status CrashHarness::Convert(const ConvertOptions& options, uint64_t killed_before) {
  Kill();
  if (!wrong_.empty()) return {};
  DropImage();
  Begin(
      fmt::format("to revision {}, clusters of {}{}{}", static_cast<uint32_t>(options.revision),
                  options.cluster_size, options.subclusters ? "" : " without subclusters",
                  killed_before == 0 ? "" : fmt::format(", killed before {}", killed_before)));
  KillBefore(killed_before);
  const auto done = ConvertImage(*seam_, options, [](LogLevel, const std::string&) {});
  if (done) CheckStates();
  if (!done && killed_before == 0) Wrong(done.error().Message());
  if (wrong_.empty()) Kill();
  if (done && wrong_.empty() && layout_.cluster_size() != options.cluster_size)
    Wrong("not converted");
  return done ? Status() : Fail(done.error());
}

Status CrashHarness::RunVerb(const std::string& name, uint64_t killed_before,
                             const std::function<Status()>& verb) {
  Kill();
  if (!wrong_.empty()) return {};
  DropImage();
  Begin(killed_before == 0 ? name : fmt::format("{}, killed before {}", name, killed_before));
  KillBefore(killed_before);
  Status done = verb();
  if (done) CheckStates();
  if (!done && killed_before == 0) Wrong(done.error().Message());
  if (wrong_.empty()) Kill();
  return done;
}

Status CrashHarness::Commit(uint64_t killed_before) {
  if (!HasBase()) return {};
  bits_may_go_ = true;
  Status done = RunVerb("commit", killed_before, [&]() -> Status {
    ADDCOW_TRY(CommitImages(*seam_, {.add_cow_paths = {kAddCowPath}}));
    return {};
  });
  bits_may_go_ = false;
  look_.reset();
  return done;
}

Status CrashHarness::RebaseData(uint64_t killed_before) {
  if (!HasBase()) return {};
  const std::string other = BaseName() == "base.img" ? "other.img" : "base.img";
  return RunVerb("rebase onto " + other, killed_before, [&]() -> Status {
    ADDCOW_TRY(RebaseSafely(
        *seam_, {.add_cow_path = kAddCowPath, .backing = NamedFile{other, "raw"}},
        [](LogLevel, const std::string&) {}, [](uint64_t, uint64_t) {}));
    return {};
  });
}

void CrashHarness::Resize(uint64_t size, uint64_t killed_before) {
  // What somebody writes beside this flush would not be durable after it.
  auto meanwhile = std::exchange(meanwhile_, nullptr);
  const Status flushed = Flush();
  meanwhile_ = std::move(meanwhile);
  if (!flushed) return;
  Kill();
  if (!wrong_.empty()) return;
  DropImage();
  Begin(
      fmt::format("resize to {}{}", size,
                  killed_before == 0 ? "" : fmt::format(", killed before {}", killed_before)));
  // All is durable, so that each sector has one version.
  auto contents = model_->contents();
  model_ = CrashModel(contents);
  contents.resize(size);
  resized_ = CrashModel(std::move(contents));
  look_.reset();
  const auto resize = [&] {
    return ResizeImage(
        *seam_,
        {.source = {.add_cow_path = kAddCowPath}, .size = {.bytes = size}, .shrink = true},
        [](LogLevel, const std::string&) {});
  };
  KillBefore(killed_before);
  auto done = resize();
  if (!done && killed_before != 0) {
    Count("resize killed");
    faults_.Clear();
    CheckStates();
    done = resize();
  }
  faults_.Clear();
  if (!done) return Wrong(done.error().Message());
  model_ = std::exchange(resized_, std::nullopt);
  look_.reset();  // what was allowed before is wrong now
  CheckStates();
  if (wrong_.empty()) Kill();
}

}  // namespace addcow
