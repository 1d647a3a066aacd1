// SPDX-License-Identifier: LGPL-2.1-or-later
//
// CrashHarness::Race: requests of several threads, one operation at a time.
//
// No two requests in flight share a sector, so each sector's versions have an
// order; they do share clusters, which is where the engine's races are.

#include <fmt/format.h>

#include <algorithm>

#include "tests/crash/crash_harness.h"

namespace addcow {

namespace {

bool ChangesDisk(const CrashRequest& request) {
  return request.kind != CrashRequest::Kind::kFlush &&
         request.kind != CrashRequest::Kind::kCopyUp &&
         request.kind != CrashRequest::Kind::kRead && request.kind != CrashRequest::Kind::kFill;
}

bool ShareSectors(const CrashRequest& a, const CrashRequest& b) {
  return ChangesDisk(a) && ChangesDisk(b) &&
         RoundDown(a.offset, kSectorSize) < b.offset + b.length &&
         RoundDown(b.offset, kSectorSize) < a.offset + a.length;
}

std::string ToString(const CrashRequest& request) {
  const std::string where = fmt::format("{}+{}{}", request.offset, request.length,
                                        request.fua == Fua::kYes ? " FUA" : "");
  switch (request.kind) {
    case CrashRequest::Kind::kWrite:
      return "write " + where;
    case CrashRequest::Kind::kZero:
      return "zero " + where;
    case CrashRequest::Kind::kTrim:
      return "trim " + where;
    case CrashRequest::Kind::kCopyUp:
      return "copy up " + where;
    case CrashRequest::Kind::kRead:
      return "read " + where;
    case CrashRequest::Kind::kFlush:
      return "flush";
    case CrashRequest::Kind::kFill:
      return "fill";
  }
  return "?";
}

}  // namespace

// In the lane's own thread.
Status CrashHarness::Perform(const Lane& lane) {
  const CrashRequest& request = lane.request;
  switch (request.kind) {
    case CrashRequest::Kind::kWrite:
      return image_->Write(lane.data, request.offset, request.fua);
    case CrashRequest::Kind::kZero:
    case CrashRequest::Kind::kTrim:
      return image_->Zero(request.offset, request.length,
                          {.may_punch = request.kind == CrashRequest::Kind::kTrim},
                          request.fua);
    case CrashRequest::Kind::kCopyUp:
      return image_->CopyUp(image_->files().layout().Touched(request.offset, request.length));
    case CrashRequest::Kind::kRead: {
      // What it reads may be in flight.
      std::vector<std::byte> bytes(request.length);
      Status done = fetch_->Read(bytes, request.offset);
      while (fetch_->RunOne()) {
      }
      return done;
    }
    case CrashRequest::Kind::kFlush:
      return image_->Flush();
    case CrashRequest::Kind::kFill:
      StepFill(request.offset);
      return {};
  }
  return {};
}

bool CrashHarness::StartLane(std::vector<Lane>& lanes, size_t index,
                             const CrashRequest& request) {
  for (size_t i = 0; i < lanes.size(); i++)
    if (schedule_.state(i) != GatedSchedule::State::kIdle &&
        ShareSectors(lanes[i].request, request))
      return false;
  Lane& lane = lanes[index];
  lane = {request, {}, {}, {}};
  Begin(fmt::format("[{}] {}", index, ToString(request)));
  if (request.kind == CrashRequest::Kind::kWrite) {
    lane.data = random_.Bytes(request.length);
    model_->Write(lane.data, request.offset);
  } else if (ChangesDisk(request)) {
    model_->Zero(request.offset, request.length);
  }
  if (ChangesDisk(request)) model_->SetUnderWay(request.offset, request.length, true);
  // FUA covers the request's own sectors, a flush what has returned.
  lane.moment = ChangesDisk(request) ? model_->Latest() : model_->Now();
  schedule_.Start(index, [this, &lane] { lane.done = Perform(lane); });
  return true;
}

void CrashHarness::EndLane(Lane& lane, size_t index) {
  schedule_.Finish(index);
  const CrashRequest& request = lane.request;
  const bool done = lane.done->has_value();
  Begin(fmt::format("[{}] {}", index, done ? "done" : lane.done->error().Message()));
  if (ChangesDisk(request)) {
    model_->SetUnderWay(request.offset, request.length, false);
    if (!done) model_->GoOnWith(ReadAll(*image_), request.offset, request.length);
    if (done && request.fua == Fua::kYes) Flushed(lane.moment, request.offset, request.length);
  } else if (done && request.kind == CrashRequest::Kind::kFlush) {
    Flushed(lane.moment, 0, size());
  }
}

void CrashHarness::Race(uint64_t requests, const std::function<CrashRequest()>& next) {
  using State = GatedSchedule::State;
  std::vector<Lane> lanes(schedule_.lanes());
  // Which writes came after the last flush is not followed here: Close is not
  // held to them.
  wrote_ = false;
  Begin("race:");
  // In some races the lanes take turns, in some one goes far while the others
  // stand: a whole flush, say, between two steps of a write.
  const uint64_t stays = random_.OneIn(2) ? 6 : 1;
  size_t last = 0;
  while (wrong_.empty()) {
    schedule_.Settle();
    // Those that may be next, and whether any other is to be waited for.
    std::vector<size_t> ready;
    bool waiting = false;
    for (size_t i = 0; i < lanes.size(); i++) {
      if (schedule_.state(i) == State::kDone) EndLane(lanes[i], i);
      const State state = schedule_.state(i);
      if (state == State::kParked || (state == State::kIdle && requests > 0))
        ready.push_back(i);
      if (state == State::kWaiting) waiting = true;
    }
    CheckStates();
    if (ready.empty()) {
      if (!waiting) break;
      continue;  // a lane took its time: it will come
    }
    const bool reads = schedule_.state(last) == State::kParked && !schedule_.AtChange(last);
    const bool stay = std::ranges::count(ready, last) != 0 && !random_.OneIn(reads ? 8 : stays);
    const size_t index = stay ? last : ready[random_.Below(ready.size())];
    last = index;
    if (schedule_.state(index) == State::kParked)
      schedule_.Step(index);
    else if (requests--; !StartLane(lanes, index, next()))
      Begin("(left out)");
  }
  schedule_.LetGo();
  Begin("(end of the race)");
  CheckContents("after a race");
}

}  // namespace addcow
