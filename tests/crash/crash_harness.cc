// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See crash_harness.h.

#include "tests/crash/crash_harness.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "common/base/zero_bytes.h"
#include "common/ops/create.h"

namespace addcow {

namespace {

// What the disk reads where none of its clusters were written.
std::vector<std::byte> Unwritten(const FakeFileSystem& files, const ImageSpec& spec) {
  const auto inode = files.Find(spec.backing_size ? kBackingPath : kImagePath);
  if (inode == nullptr) return std::vector<std::byte>(spec.size);
  return inode->Bytes(0, spec.size);
}

constexpr const char* kOtherBackingPath = "/vm/other.img";

// A backing file to be rebased onto: it has some of the bytes of the first.
void PutOtherBase(FakeFileSystem& files, const ImageSpec& spec) {
  if (!spec.backing_size) return;
  Random random(spec.seed + 1);
  auto bytes = files.Find(kBackingPath)->Bytes(0, *spec.backing_size);
  const uint64_t at = random.Below(bytes.size());
  const auto other = random.Bytes(std::min<uint64_t>(bytes.size() - at, 3 * kSubclusterSize));
  std::ranges::copy(other, bytes.begin() + static_cast<std::ptrdiff_t>(at));
  bytes.resize(random.OneIn(2) ? bytes.size() : random.Between(1, spec.size));
  files.Put(kOtherBackingPath, bytes);
}

// Near to it: a larger disk's bits follow those of a smaller one.
bool AnyBitPastEnd(const FakeInode& add_cow, const BitmapPlace& place) {
  if (place.bits % 8 != 0) {
    const std::byte last = add_cow.Bytes(place.end() - 1, 1)[0];
    if ((last >> (place.bits % 8)) != std::byte{0}) return true;
  }
  const uint64_t padding = std::min(place.padded_end() - place.end(), kSectorSize);
  return !IsZero(add_cow.Bytes(place.end(), padding));
}

}  // namespace

CrashHarness::CrashHarness(const ImageSpec& spec, const FakeInode::Abilities& abilities,
                           uint64_t seed, const CrashDisk::Effort& effort, Origin origin,
                           bool subclusters)
    : random_(seed),
      effort_(effort),
      subclusters_(subclusters),
      layout_(spec.size, spec.geometry()) {
  FakeFileSystem files;
  files.MakeDirectory(kDirectory);
  auto contents = MakeTestImage(files, kDirectory, spec);
  if (!contents) {
    Wrong(contents.error().Message());
    return;
  }
  // The padding is a hole, as a writer leaves it: storage is asked for at opening.
  for (const BitmapPlace& place : {layout_.bitmap(), layout_.subcluster_bitmap()}) {
    const uint64_t padding = RoundUp(place.end(), 4096);
    if (padding < std::min(place.padded_end(), files.Find(kAddCowPath)->size()))
      (void)files.Find(kAddCowPath)->PunchHole(padding, place.padded_end() - padding);
  }
  PutOtherBase(files, spec);
  for (const std::string& name : files.List()) files.Find(name)->SetAbilities(abilities);
  if (origin == Origin::kFound) {
    model_.emplace(std::move(*contents));
    Start(files);
    Kill();
    return;
  }
  (void)files.Remove(kAddCowPath);
  if (origin == Origin::kCreated) (void)files.Remove(kImagePath);
  model_.emplace(Unwritten(files, spec));
  Start(files);
  Create(spec);
}

void CrashHarness::Start(const FakeFileSystem& files) {
  DropImage();
  seam_.reset();
  faulty_.reset();
  look_.reset();
  disk_ = std::make_unique<CrashDisk>(files);
  sync_failed_ = false;
  disk_->SetHook([this](const Operation& operation) { return OnOperation(operation); });
  faulty_ = std::make_unique<ForwardingFileSystem>(*disk_, faults_);
  seam_ = std::make_unique<ForwardingFileSystem>(*faulty_, schedule_);
}

void CrashHarness::Create(const ImageSpec& spec) {
  Begin("create");
  Count("create");
  CreateOptions options;
  options.add_cow_path = kAddCowPath;
  options.image_name = "disk.raw";
  if (spec.backing_size) options.backing = NamedFile{"base.img", "raw"};
  options.size = spec.size;
  options.revision = spec.revision;
  options.cluster_size = spec.cluster_size;
  options.reuse_image = true;
  created_ = false;
  if (const auto made = CreateImage(*seam_, options); !made) Wrong(made.error().Message());
  created_ = true;
  look_.reset();
  CheckStates();
  if (wrong_.empty()) Kill();
}

void CrashHarness::Wrong(const std::string& what) {
  if (!wrong_.empty()) return;
  const size_t shown = std::min<size_t>(requests_.size(), 20);
  wrong_ = fmt::format(
      "{}\nthe last requests:\n  {}", what,
      fmt::join(requests_.end() - static_cast<std::ptrdiff_t>(shown), requests_.end(), "\n  "));
}

int CrashHarness::OnOperation(const Operation& operation) {
  if (GatedSchedule::InLane()) {
    // Also between what a sync covers and its effect others may go on. Race
    // looks at the states.
    if (IsSync(operation.kind)) (void)schedule_.Before(operation);
  } else {
    if (!wrong_.empty()) return 0;
    CheckStates();
    // Only while a flush holds no lock that a writer wants. Not in a durable
    // write (a sync of a part): it may be half of a request that is to fail, and
    // the model knows no others beside that.
    const bool flushing = (IsSync(operation.kind) && operation.length == 0) ||
                          (operation.path == kAddCowPath && operation.kind == OpKind::kWrite &&
                           !IsZero(operation.data));
    if (meanwhile_ && image_ && flushing && !in_meanwhile_) {
      in_meanwhile_ = true;
      Begin("meanwhile:");
      std::thread(meanwhile_).join();
      Begin("(goes on)");
      in_meanwhile_ = false;
      CheckStates();
    }
  }
  if (IsSync(operation.kind) && operation.path == failing_sync_) {
    failing_sync_.clear();
    Begin(fmt::format("(sync of {} failed: {})", operation.path, sync_error_));
    sync_failed_ = true;
    return sync_error_;
  }
  return 0;
}

void CrashHarness::CheckStates() {
  if (!wrong_.empty()) return;
  if (!base_gone_ && image_ && image_->backing().size() > 0 && !image_->backing().there()) {
    base_gone_ = true;
    look_.reset();  // what was allowed before may be wrong now
    Count("backing file let go");
  }
  CrashDisk::Effort effort = effort_;
  const Look now{disk_->retired(), disk_->pending()};
  if (look_ && look_->retired == now.retired) {
    if (look_->entries == now.entries) return;
    effort.known = look_->entries;
  }
  look_ = now;
  Count(now.entries <= effort.exhaustive ? "moment with every subset" : "moment with samples");
  const Bits durable = BitsIn(*disk_->CrashLosingAll());
  for (const CrashDisk::Choice& choice : disk_->Choices(random_, effort)) {
    const auto files = disk_->Crash(choice);
    const std::string wrong = CheckState(*files, durable);
    checked_++;
    if (!wrong.empty()) return Wrong(wrong + "\n" + disk_->Describe(choice));
  }
}

uint64_t CrashHarness::SizeIn(const FakeFileSystem& files) const {
  const auto image = files.Find(kImagePath);
  return resized_ && image != nullptr && image->size() == resized_->size() ? resized_->size()
                                                                           : size();
}

CrashHarness::Bits CrashHarness::BitsIn(const FakeFileSystem& files) const {
  const auto inode = files.Find(kAddCowPath);
  const Layout layout(SizeIn(files),
                      inode != nullptr ? ReadGeometry(*inode) : layout_.geometry());
  const BitmapPlace place = layout.subcluster_bitmap();
  Bits bits{layout.cluster_size(), std::vector<bool>(layout.clusters()),
            std::vector<bool>(place.bits)};
  if (inode == nullptr) return bits;
  const auto is_set = [](const std::vector<std::byte>& bytes, uint64_t bit) {
    return (bytes[bit / 8] >> (bit % 8) & std::byte{1}) != std::byte{0};
  };
  const auto clusters = inode->Bytes(layout.bitmap().offset, layout.bitmap().bytes());
  std::vector<std::byte> subclusters(place.bytes());
  if (ReadFlags(*inode).subclusters) subclusters = inode->Bytes(place.offset, place.bytes());
  for (uint64_t i = 0; i < bits.clusters.size(); i++) bits.clusters[i] = is_set(clusters, i);
  for (uint64_t i = 0; i < bits.subclusters.size(); i++)
    bits.subclusters[i] =
        bits.clusters[layout.ClusterOf(i * kSubclusterSize)] || is_set(subclusters, i);
  return bits;
}

bool CrashHarness::IsDurable(uint64_t offset) const {
  return BitsIn(*disk_->CrashLosingAll()).subclusters[offset / kSubclusterSize];
}

bool CrashHarness::HasSubclusters() const {
  return ReadFlags(*disk_->live().Find(kAddCowPath)).subclusters;
}

std::string CrashHarness::CheckState(FakeFileSystem& files, const Bits& durable) const {
  if (files.Find(kAddCowPath) == nullptr)
    return created_ ? "the add-cow file is not there" : "";
  const Bits bits = BitsIn(files);
  const bool same_clusters = bits.cluster_size == durable.cluster_size;
  const size_t clusters = std::min(bits.clusters.size(), durable.clusters.size());
  for (size_t i = 0; same_clusters && i < clusters; i++)
    if (!bits_may_go_ && durable.clusters[i] && !bits.clusters[i])
      return fmt::format("the durable bit of cluster {} is gone", i);
  for (size_t i = 0; i < std::min(bits.subclusters.size(), durable.subclusters.size()); i++)
    if (!bits_may_go_ && durable.subclusters[i] && !bits.subclusters[i])
      return fmt::format("the durable bit of subcluster {} is gone", i);
  const auto [all, subclusters] = ReadFlags(*files.Find(kAddCowPath));
  if (all && subclusters) return "SUBCLUSTERS is set beside ALL_ALLOCATED";
  // Where all is allocated the flags change together, of which one may have failed.
  const bool every = std::ranges::find(bits.clusters, false) == bits.clusters.end();
  const Layout layout(SizeIn(files), ReadGeometry(*files.Find(kAddCowPath)));
  const BitmapPlace place = layout.subcluster_bitmap();
  if (!resized_ && AnyBitPastEnd(*files.Find(kAddCowPath), layout.bitmap()))
    return "a cluster past the end of the disk has a bit";
  if (!resized_ && subclusters && AnyBitPastEnd(*files.Find(kAddCowPath), place))
    return "a subcluster past the end of the disk has a bit";
  auto second = files.Find(kAddCowPath)->Bytes(place.offset, place.bytes());
  // Past the end of a disk that was cut there may be some, of which the flag says nothing.
  if (resized_ && place.bits % 8 != 0) second.back() &= ~(std::byte{0xff} << place.bits % 8);
  if (!every && !subclusters && !IsZero(second))
    return "a subcluster has a bit, and the file not SUBCLUSTERS";
  if (!all && base_gone_) return "the backing file was let go, and is needed";
  if (all) {
    for (size_t i = 0; i < bits.clusters.size(); i++)
      if (!bits.clusters[i]) return fmt::format("ALL_ALLOCATED is set and bit {} is not", i);
    for (const char* const base : {kBackingPath, kOtherBackingPath})
      if (files.Find(base) != nullptr) (void)files.Remove(base);
  }
  auto image = OpenTestImage(files);
  if (!image) return image.error().Message();
  const auto contents = ReadAll(**image);
  if (contents.size() != SizeIn(files))
    return fmt::format("the disk has {} bytes", contents.size());
  return (contents.size() == size() ? *model_ : *resized_).Check(contents);
}

void CrashHarness::StopBefore(OpKind kind, const std::string& path, uint64_t n) {
  Begin(fmt::format("to be killed before: {} {} {}", n, Name(kind), path));
  faults_.Set({.at = n,
               .error = EIO,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = [kind, path](const Operation& operation) {
                 return operation.kind == kind && operation.path == path;
               }});
}

void CrashHarness::KillBefore(uint64_t change) {
  faults_.Set({.at = change,
               .error = EIO,
               .lasting = FaultPlan::Lasting::kPersistent,
               .where = ChangesOrSyncs});
}

void CrashHarness::FailChange(uint64_t n, FaultPlan::Effect effect, const std::string& path) {
  Begin(fmt::format("to fail: change {} {}", n, path));
  faults_.Set(
      {.at = n, .error = ENOSPC, .effect = effect, .where = [](const Operation& operation) {
         return IsChange(operation.kind);
       }});
}

void CrashHarness::DropImage() {
  fill_.reset();
  fetch_.reset();
  image_.reset();
}

void CrashHarness::Kill() {
  Begin("open");
  faults_.Clear();
  DropImage();
  auto image = OpenTestImage(*seam_, kDirectory, OpenMode::kReadWrite, nullptr, subclusters_);
  if (!image) return Wrong(image.error().Message());
  image_ = std::move(*image);
  layout_ = image_->files().layout();
  fetch_ = std::make_unique<Fetch>(
      *image_,
      Fetch::Options{.size = (4 * kKiB) << random_.Below(6), .pause = std::chrono::seconds(0)},
      nullptr);
  fill_ = std::make_unique<Fill>(
      *image_,
      Fill::Options{.piece = layout_.cluster_size(), .first_retry = {}, .look_again = {}},
      nullptr);
  (void)fill_->Start(random_.OneIn(4) ? FillMode::kTouched : FillMode::kAll);
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
  Kill();
  if (wrong_.empty()) model_ = CrashModel(model_->contents());
}

void CrashHarness::Flushed(const CrashModel::Moment& moment, uint64_t offset, uint64_t length) {
  model_->Flushed(moment, offset, length);
  look_.reset();  // what was allowed before may be wrong now
}

void CrashHarness::CheckContents(const std::string& when) {
  if (const std::string wrong = Difference(ReadAll(*image_), model_->contents());
      !wrong.empty())
    Wrong(when + ": " + wrong);
}

template <typename Request>
Status CrashHarness::Run(uint64_t offset, uint64_t length, Fua fua, Request request) {
  const bool wrote = wrote_;
  if (fua == Fua::kYes) wrote_ = false;  // what another thread writes meanwhile counts
  const CrashModel::Moment moment = model_->Latest();
  Status done = request();
  if (done && fua == Fua::kYes) {
    Flushed(moment, offset, length);
  } else if (done) {
    wrote_ = true;
  } else {
    wrote_ = wrote_ || wrote;
    model_->GoOnWith(ReadAll(*image_));
  }
  return done;
}

Status CrashHarness::Do(const CrashRequest& request) {
  switch (request.kind) {
    case CrashRequest::Kind::kWrite:
      return Write(request.offset, request.length, request.fua);
    case CrashRequest::Kind::kZero:
    case CrashRequest::Kind::kTrim:
      return Zero(request.offset, request.length,
                  {.may_punch = request.kind == CrashRequest::Kind::kTrim}, request.fua);
    case CrashRequest::Kind::kCopyUp:
      return CopyUp(image_->files().layout().Touched(request.offset, request.length));
    case CrashRequest::Kind::kRead:
      return Read(request.offset, request.length);
    case CrashRequest::Kind::kFlush:
      return Flush();
    case CrashRequest::Kind::kFill:
      return FillSome(request.offset);
  }
  return {};
}

Status CrashHarness::Write(uint64_t offset, std::span<const std::byte> data, Fua fua) {
  Begin(fmt::format("write {}+{}{}", offset, data.size(), fua == Fua::kYes ? " FUA" : ""));
  model_->Write(data, offset);
  return Run(offset, data.size(), fua, [&] { return image_->Write(data, offset, fua); });
}

Status CrashHarness::Write(uint64_t offset, uint64_t length, Fua fua) {
  return Write(offset, random_.Bytes(length), fua);
}

Status CrashHarness::Zero(uint64_t offset, uint64_t length, ZeroOptions options, Fua fua) {
  Begin(fmt::format("{} {}+{}{}", options.may_punch ? "trim" : "zero", offset, length,
                    fua == Fua::kYes ? " FUA" : ""));
  model_->Zero(offset, length);
  return Run(offset, length, fua, [&] { return image_->Zero(offset, length, options, fua); });
}

Status CrashHarness::CopyUp(ClusterRange range) {
  Begin(fmt::format("copy up {}+{}", range.first, range.count));
  Status done = image_->CopyUp(range);
  if (done) wrote_ = true;
  return done;
}

Status CrashHarness::Read(uint64_t offset, uint64_t length) {
  Begin(fmt::format("read {}+{}", offset, length));
  std::vector<std::byte> bytes(length);
  Status done = fetch_->Read(bytes, offset);
  const auto wanted = std::span(model_->contents()).subspan(offset, length);
  if (const auto wrong = Difference(bytes, wanted, offset); done && !wrong.empty())
    Wrong("read: " + wrong);
  while (fetch_->RunOne()) {
  }
  return done;
}

// Some of its failures are there to stay.
void CrashHarness::StepFill(uint64_t offset) {
  for (uint64_t i = 0; i <= offset % 8; i++)
    if (!fill_->Step().worked) break;
}

Status CrashHarness::FillSome(uint64_t offset) {
  Begin("fill");
  StepFill(offset);
  wrote_ = true;
  CheckContents("while it is filled");
  return {};
}

Status CrashHarness::Flush() {
  Begin("flush");
  return Run(0, size(), Fua::kYes, [&] { return image_->Flush(); });
}

// It flushes what this process wrote since its last flush. What a killed one
// left is not its own, nor what a write that failed did.
Status CrashHarness::Close() {
  Begin("close");
  if (!wrote_) return image_->Close();
  return Run(0, size(), Fua::kYes, [&] { return image_->Close(); });
}

}  // namespace addcow
