// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/control/control_session: the protocol, with no connection.

#include "common/control/control_session.h"

#include <gtest/gtest.h>

#include "common/control/status_json.h"
#include "tests/support/control_double.h"

namespace addcow {
namespace {

class ControlSessionTest : public testing::Test {
 protected:
  // What is answered to these bytes; all of it is taken.
  std::string Say(const std::string& bytes) {
    session_.Receive(bytes);
    return Take();
  }
  std::string Take() {
    std::string output(session_.output());
    session_.Sent(output.size());
    return output;
  }
  std::string ErrorOf(const std::string& line) {
    const auto answer = ControlJson::parse(Say(line + "\n"));
    return answer.at("error").at("class").get<std::string>();
  }

  ControlDouble double_;
  const ControlHandlers handlers_ = double_.Handlers();
  ControlSession session_{handlers_};
};

TEST_F(ControlSessionTest, AnswersStatus) {
  double_.SetStatus({.version = "7", .size = 4096});
  const auto answer = ControlJson::parse(Say("{\"execute\": \"status\"}\n"));
  EXPECT_EQ(answer.at("return").at("version"), "7");
  EXPECT_EQ(answer.at("return").at("size"), 4096);
  EXPECT_FALSE(answer.contains("id"));
}

TEST_F(ControlSessionTest, EchoesTheId) {
  for (const char* id : {"5", "\"a\\\"b\"", "null", "true", "-1.5"}) {
    const auto said = Say("{\"execute\": \"nothing\", \"id\": " + std::string(id) + "}\n");
    EXPECT_EQ(ControlJson::parse(said).at("id"), ControlJson::parse(id));
  }
  // Of the next it knows nothing.
  EXPECT_EQ(Say("{\"execute\": \"x\"}\n").find("\"id\""), std::string::npos);
}

TEST_F(ControlSessionTest, RefusesWhatItDoesNotUnderstand) {
  EXPECT_EQ(ErrorOf("garbage"), "BadRequest");
  EXPECT_EQ(ErrorOf("[1, 2]"), "BadRequest");
  EXPECT_EQ(ErrorOf("{}"), "BadRequest");
  EXPECT_EQ(ErrorOf("\xff\xfe"), "BadRequest");
  EXPECT_EQ(ErrorOf("{\"execute\": 5}"), "BadRequest");
  EXPECT_EQ(ErrorOf("{\"execute\": \"status\", \"id\": {}}"), "BadRequest");
  EXPECT_EQ(ErrorOf("{\"execute\": \"status\", \"argument\": {}}"), "BadRequest");
  EXPECT_EQ(ErrorOf("{\"execute\": \"quit\"}"), "UnknownCommand");
  EXPECT_EQ(ErrorOf("{\"execute\": \"status\", \"arguments\": 5}"), "BadArguments");
  EXPECT_EQ(ErrorOf("{\"execute\": \"status\", \"arguments\": {\"a\": 1}}"), "BadArguments");
}

TEST_F(ControlSessionTest, TakesBytesInAnyPieces) {
  const std::string line = "{\"execute\": \"fill\", \"arguments\": {\"action\": \"pause\"}}\n";
  std::string said;
  for (const char c : line + line) said += Say(std::string(1, c));
  EXPECT_EQ(said, "{\"return\":{}}\n{\"return\":{}}\n");
  EXPECT_EQ(Say("\n \r\n\t\n"), "");
  EXPECT_EQ(Say(line + line + line), said + "{\"return\":{}}\n");
}

TEST_F(ControlSessionTest, SkipsLinesThatAreTooLong) {
  std::string said = Say(std::string(1 << 20, 'x'));
  EXPECT_NE(said.find("BadRequest"), std::string::npos);
  EXPECT_EQ(Say(std::string(1 << 20, 'x')), "");
  said = Say("x\n{\"execute\": \"status\"}\n");
  EXPECT_TRUE(said.starts_with("{\"return\"")) << said;
  const std::string whole(ControlSession::kMostLine + 1, ' ');
  EXPECT_NE(Say(whole + "\n").find("BadRequest"), std::string::npos);
  EXPECT_EQ(Say(whole.substr(1) + "\n"), "");  // blank
}

TEST_F(ControlSessionTest, StandsNestedInput) {
  EXPECT_EQ(ErrorOf(std::string(ControlSession::kMostLine, '[')), "BadRequest");
  const std::string deep = std::string(1500, '[') + std::string(1500, ']');
  EXPECT_EQ(ErrorOf("{\"execute\": \"status\", \"id\": " + deep + "}"), "BadRequest");
  EXPECT_EQ(ErrorOf("{\"execute\": \"status\", \"arguments\": {\"a\": " + deep + "}}"),
            "BadArguments");
}

TEST_F(ControlSessionTest, FillCommandsArePassedOn) {
  const auto fill = [&](const std::string& arguments) {
    return Say("{\"execute\": \"fill\", \"arguments\": {" + arguments + "}}\n");
  };
  for (const char* arguments :
       {"\"action\": \"start\", \"mode\": \"all\"",
        "\"action\": \"start\", \"mode\": \"touched\", \"rate\": 1000", "\"action\": \"pause\"",
        "\"action\": \"resume\"", "\"action\": \"rate\", \"rate\": 0",
        "\"action\": \"resume\", \"rate\": 7"})
    EXPECT_EQ(fill(arguments), "{\"return\":{}}\n") << arguments;
  const auto fills = double_.fills();
  ASSERT_EQ(fills.size(), 6u);
  EXPECT_EQ(fills[0].mode, FillMode::kAll);
  EXPECT_EQ(fills[0].rate, std::nullopt);
  EXPECT_EQ(fills[1].mode, FillMode::kTouched);
  EXPECT_EQ(fills[1].rate, 1000u);
  EXPECT_EQ(fills[2].action, FillCommand::Action::kPause);
  EXPECT_EQ(fills[3].action, FillCommand::Action::kResume);
  EXPECT_EQ(fills[3].rate, std::nullopt);
  EXPECT_EQ(fills[4].rate, 0u);
  EXPECT_EQ(fills[5].action, FillCommand::Action::kResume);
  EXPECT_EQ(fills[5].rate, 7u);
  for (const char* arguments :
       {"", "\"action\": 5", "\"action\": \"start\"",
        "\"action\": \"start\", \"mode\": \"off\"", "\"action\": \"rate\"",
        "\"action\": \"rate\", \"rate\": -1", "\"action\": \"rate\", \"rate\": \"1M\"",
        "\"action\": \"pause\", \"rate\": 5", "\"action\": \"resume\", \"mode\": \"all\""})
    EXPECT_NE(fill(arguments).find("BadArguments"), std::string::npos) << arguments;
  EXPECT_EQ(double_.fills().size(), 6u);
}

TEST_F(ControlSessionTest, WhatFailsSaysWhy) {
  double_.Fail("no room");
  EXPECT_EQ(Say("{\"execute\": \"fill\", \"arguments\": {\"action\": \"pause\"}, \"id\": 1}\n"),
            "{\"error\":{\"class\":\"Failed\",\"desc\":\"x.add-cow: no room\"},\"id\":1}\n");
}

TEST_F(ControlSessionTest, NothingIsDoneBeforeTheFlushIs) {
  EXPECT_EQ(Say("{\"execute\": \"flush\", \"id\": 8}\n{\"execute\": \"x\", \"id\": 9}\n"), "");
  EXPECT_TRUE(session_.waits_for_flush());
  EXPECT_FALSE(session_.WantsInput());
  session_.FlushDone({});
  const std::string said = Take();
  EXPECT_TRUE(said.starts_with("{\"return\":{},\"id\":8}\n{\"error\"")) << said;
  EXPECT_TRUE(session_.WantsInput());
}

TEST_F(ControlSessionTest, DoesNothingForWhoDoesNotRead) {
  const std::string line = "{\"execute\": \"status\"}\n";
  size_t asked = 0;
  while (session_.WantsInput()) {
    session_.Receive(line);
    ASSERT_LT(++asked, 10000u);
  }
  EXPECT_LT(session_.output().size(), ControlSession::kMostQueued + 8192);
  session_.Receive(line + line);
  const std::string first = Take();
  EXPECT_EQ(std::ranges::count(first, '\n'), static_cast<std::ptrdiff_t>(asked));
  EXPECT_EQ(std::ranges::count(Take(), '\n'), 2);
}

TEST_F(ControlSessionTest, SaysGoodbyeWithTheStatus) {
  session_.Goodbye(WithFill(FillState::kDone));
  const auto said = ControlJson::parse(Take());
  EXPECT_EQ(said.at("event"), "stop");
  EXPECT_EQ(said.at("status").at("fill").at("state"), "done");
}

}  // namespace
}  // namespace addcow
