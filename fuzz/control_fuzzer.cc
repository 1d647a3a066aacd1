// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The control socket's line protocol (common/control). The input is what a peer sends: its
// first byte says in what pieces, and how much the peer reads between them. It must hold:
//
//   - what is answered is lines, each a JSON object with "return" or "error", and one line
//     for each that is not blank; flushes are answered in their turn
//   - in whatever pieces it comes, and however slowly it is read, the answers are the same
//   - no more is kept for a peer than ControlSession promises
//   - an answer, read as a server's status, breaks nothing

#include "common/control/control_session.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "common/control/status_json.h"
#include "fuzz/must.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace addcow::fuzz {

AcceptedInputs accepted_inputs;

namespace {

// An answer has a status and an id, which is no longer than the line.
constexpr size_t kMostAnswer = 16 * 1024;

// Every third command fails.
class Double {
 public:
  ControlHandlers Handlers() {
    return {.status = [] { return ServerStatus{.version = "1", .size = 4096}; },
            .fill = [this](const FillCommand& command) { return Fill(command); },
            .flush = [this] { return Result(); }};
  }
  Status Result() {
    return ++calls_ % 3 == 0 ? Status(Fail(Error::Because(EIO, "x", "third"))) : Status();
  }

 private:
  Status Fill(const FillCommand& command) {
    const bool starts = command.action == FillCommand::Action::kStart;
    FUZZ_MUST(starts == (command.mode != FillMode::kOff), "a mode where one starts");
    FUZZ_MUST(command.action != FillCommand::Action::kRate || command.rate, "a rate");
    return Result();
  }

  int calls_ = 0;
};

// What is answered to `input`, in pieces of `piece` bytes, of which `read` are read at once.
std::string Converse(std::string_view input, size_t piece, size_t read) {
  Double handlers_double;
  const ControlHandlers handlers = handlers_double.Handlers();
  ControlSession session(handlers);
  std::string heard;
  const auto listen = [&] {
    const auto part = session.output().substr(0, read);
    heard += part;
    session.Sent(part.size());
  };
  while (!input.empty() || session.waits_for_flush() || !session.output().empty()) {
    FUZZ_MUST(session.output().size() < ControlSession::kMostQueued + kMostAnswer,
              "{} bytes are queued", session.output().size());
    if (session.waits_for_flush()) {
      session.FlushDone(handlers_double.Result());
    } else if (session.WantsInput() && !input.empty()) {
      const auto part = input.substr(0, piece);
      input.remove_prefix(part.size());
      session.Receive(part);
    }
    listen();
  }
  return heard;
}

void MustBeAnswers(std::string_view heard) {
  while (!heard.empty()) {
    const size_t end = heard.find('\n');
    FUZZ_MUST(end != std::string_view::npos, "half a line is answered");
    const auto answer = ControlJson::parse(heard.substr(0, end), nullptr, false);
    heard.remove_prefix(end + 1);
    FUZZ_MUST(answer.is_object(), "an answer is no object");
    const bool done = answer.contains("return");
    FUZZ_MUST(done != answer.contains("error"), "an answer is one or the other");
    // Those that were done, and those that were refused.
    accepted_inputs.Count(done ? 1 : 20);
    if (done) (void)StatusFromJson(answer["return"]);
    if (!done) FUZZ_MUST(!answer["error"]["desc"].get<std::string>().empty(), "no reason");
  }
}

void TryInput(std::string_view input) {
  const size_t how = input.empty() ? 0 : static_cast<unsigned char>(input.front());
  const std::string whole = Converse(input, 4096, SIZE_MAX);
  MustBeAnswers(whole);
  const std::string pieces = Converse(input, how % 16 * 16 + 1, how / 16 * 300 + 1);
  FUZZ_MUST(pieces == whole, "answers differ:\n{}\n{}", pieces, whole);
  (void)StatusFromJson(ControlJson::parse(input, nullptr, false));
}

}  // namespace
}  // namespace addcow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  addcow::fuzz::TryInput({reinterpret_cast<const char*>(data), size});
  return 0;
}
