// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See control_session.h. What a peer sends is parsed, and looked at by its first two levels;
// nothing deeper is copied or printed, which would recurse.

#include "common/control/control_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace addcow {

namespace {

// The classes of errors.
constexpr const char* kBadRequest = "BadRequest";
constexpr const char* kUnknownCommand = "UnknownCommand";
constexpr const char* kBadArguments = "BadArguments";
constexpr const char* kFailed = "Failed";

std::string ToLine(const ControlJson& json) {
  return json.dump(-1, ' ', false, ControlJson::error_handler_t::replace);
}

// What nobody would take for a mistake is not said: a key that is none of `known`.
std::string UnknownKey(const ControlJson& object, std::initializer_list<const char*> known) {
  for (const auto& [key, value] : object.items())
    if (std::ranges::find(known, key) == known.end()) return key;
  return "";
}

}  // namespace

void ControlSession::Receive(std::string_view bytes) {
  input_ += bytes;
  Proceed();
}

void ControlSession::Proceed() {
  size_t start = 0;
  while (WantsInput()) {
    const size_t end = input_.find('\n', start);
    const bool whole = end != std::string::npos;
    const size_t length = (whole ? end : input_.size()) - start;
    const bool too_long = length > kMostLine;
    if (too_long && !skips_)
      Refuse(kBadRequest, fmt::format("the line is longer than {} bytes", kMostLine));
    skips_ = skips_ || too_long;
    if (!whole) {
      if (skips_) start = input_.size();
      break;
    }
    const std::string_view line(input_.data() + start, length);
    start = end + 1;
    if (!std::exchange(skips_, false)) Answer(line);
  }
  input_.erase(0, start);
}

void ControlSession::Answer(std::string_view line) {
  if (line.find_first_not_of(" \t\r") == std::string_view::npos) return;
  const auto request = ControlJson::parse(line, nullptr, false);
  if (!request.is_object()) return Refuse(kBadRequest, "the line is no JSON object");
  if (const auto id = request.find("id"); id != request.end()) {
    if (id->is_structured())
      return Refuse(kBadRequest, "'id' is an object or an array, must be a number or a string");
    id_ = ToLine(*id);
  }
  const auto command = request.find("execute");
  if (command == request.end() || !command->is_string())
    return Refuse(kBadRequest, "'execute' is missing, must be a string, the command");
  if (const std::string key = UnknownKey(request, {"execute", "arguments", "id"}); !key.empty())
    return Refuse(kBadRequest, fmt::format("'{}' is not known", key));
  static const ControlJson kNoArguments = ControlJson::object();
  const auto arguments = request.find("arguments");
  if (arguments == request.end()) return Execute(*command, kNoArguments);
  if (!arguments->is_object()) return Refuse(kBadArguments, "'arguments' is no object");
  Execute(*command, *arguments);
}

void ControlSession::Execute(const std::string& command, const ControlJson& arguments) {
  if (command == "fill") return ExecuteFill(arguments);
  if (command != "status" && command != "flush")
    return Refuse(kUnknownCommand, fmt::format("there is no command '{}', but: status, fill, "
                                               "flush",
                                               command));
  if (!arguments.empty())
    return Refuse(kBadArguments, fmt::format("'{}' takes no arguments", command));
  if (command == "status") return Return(ToJson(handlers_.status()));
  waits_for_flush_ = true;
}

void ControlSession::ExecuteFill(const ControlJson& arguments) {
  const auto text = [&](const char* key) {
    const auto found = arguments.find(key);
    return found != arguments.end() && found->is_string() ? found->get<std::string>() : "";
  };
  const auto refuse = [&](const std::string& why) { Refuse(kBadArguments, why); };
  FillCommand command;
  const std::string action = text("action");
  const bool starts = action == "start";
  if (action == "pause")
    command.action = FillCommand::Action::kPause;
  else if (action == "resume")
    command.action = FillCommand::Action::kResume;
  else if (action == "rate")
    command.action = FillCommand::Action::kRate;
  else if (!starts)
    return refuse("'action' must be 'start', 'pause', 'resume' or 'rate'");
  const bool takes_rate = command.action != FillCommand::Action::kPause;
  for (const auto& [key, value] : arguments.items())
    if (key != "action" && !(key == "mode" && starts) && !(key == "rate" && takes_rate))
      return refuse(fmt::format("'{}' has no '{}'", action, key));
  if (starts) {
    const auto mode = FillModeOf(text("mode"));
    if (!mode) return refuse("'mode' must be 'touched' or 'all'");
    command.mode = *mode;
  }
  if (const auto rate = arguments.find("rate"); rate != arguments.end()) {
    if (!rate->is_number_unsigned())
      return refuse("'rate' must be bytes a second, a whole number; 0 is no limit");
    command.rate = rate->get<uint64_t>();
  }
  if (command.action == FillCommand::Action::kRate && !command.rate)
    return refuse("'rate' is missing, bytes a second; 0 is no limit");
  const Status done = handlers_.fill(command);
  if (!done) return Refuse(kFailed, done.error().Message());
  Return(ControlJson::object());
}

void ControlSession::FlushDone(const Status& flushed) {
  waits_for_flush_ = false;
  if (flushed)
    Return(ControlJson::object());
  else
    Refuse(kFailed, flushed.error().Message());
  Proceed();
}

void ControlSession::Sent(size_t bytes) {
  output_.erase(0, bytes);
  Proceed();
}

void ControlSession::Goodbye(const ServerStatus& status) {
  id_.clear();
  Send({{"event", "stop"}, {"status", ToJson(status)}});
}

void ControlSession::Return(ControlJson value) { Send({{"return", std::move(value)}}); }

void ControlSession::Refuse(const char* error_class, const std::string& description) {
  Send({{"error", {{"class", error_class}, {"desc", description}}}});
}

void ControlSession::Send(ControlJson reply) {
  std::string line = ToLine(reply);
  if (!id_.empty()) line.insert(line.size() - 1, ",\"id\":" + std::exchange(id_, ""));
  output_ += line;
  output_ += '\n';
}

}  // namespace addcow
