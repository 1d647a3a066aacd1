// SPDX-License-Identifier: LGPL-2.1-or-later
//
// plugin/server_arguments: is there a -r among nbdkit's arguments?

#include "plugin/server_arguments.h"

#include <gtest/gtest.h>

namespace addcow {
namespace {

bool Has(std::vector<std::string> arguments) { return HasReadOnlyOption(arguments); }

TEST(ServerArguments, ReadOnlyInAllItsForms) {
  EXPECT_TRUE(Has({"-r", "addcow", "x.add-cow"}));
  EXPECT_TRUE(Has({"--readonly", "addcow", "x.add-cow"}));
  EXPECT_TRUE(Has({"--read-only", "addcow", "x.add-cow"}));
  EXPECT_TRUE(Has({"--reado", "addcow", "x.add-cow"}));
  EXPECT_TRUE(Has({"-fr", "addcow", "x.add-cow"}));
  EXPECT_TRUE(Has({"-rU-", "addcow", "x.add-cow"}));
  EXPECT_TRUE(Has({"-rU", "-", "addcow", "x.add-cow"}));
  EXPECT_TRUE(Has({"-U", "-", "addcow", "x.add-cow", "-r"}));
  EXPECT_TRUE(Has({"--unix", "-", "-r", "addcow", "x.add-cow"}));
  EXPECT_TRUE(Has({"--run", "nbdinfo $uri", "--log=null", "addcow", "x", "-fvr"}));
}

TEST(ServerArguments, NothingElseIsTakenForIt) {
  EXPECT_FALSE(Has({}));
  EXPECT_FALSE(Has({"addcow", "x.add-cow"}));
  EXPECT_FALSE(Has({"addcow", "file=-r", "r"}));
  EXPECT_FALSE(Has({"-U", "-r", "addcow", "x.add-cow"}));
  EXPECT_FALSE(Has({"-Ur", "addcow", "x.add-cow"}));
  EXPECT_FALSE(Has({"-fP", "-r", "addcow", "x.add-cow"}));
  EXPECT_FALSE(Has({"--run", "-r", "addcow", "x.add-cow"}));
  EXPECT_FALSE(Has({"--pidf", "-r", "addcow", "x.add-cow"}));
  EXPECT_FALSE(Has({"--user", "-r", "addcow", "x.add-cow"}));
  EXPECT_FALSE(Has({"--name", "-r", "addcow", "x.add-cow"}));
  EXPECT_FALSE(Has({"--timeout", "-r", "addcow", "x.add-cow"}));
  EXPECT_FALSE(Has({"--time-out", "-r", "addcow", "x.add-cow"}));
  EXPECT_FALSE(Has({"--tls-priority", "-r", "addcow", "x.add-cow"}));
  EXPECT_FALSE(Has({"--", "-r"}));
  EXPECT_FALSE(Has({"-", "--verbose", "-n", "--newstyle"}));
}

}  // namespace
}  // namespace addcow
