// SPDX-License-Identifier: LGPL-2.1-or-later
//
// common/io/attributes: what an access control list gives to everybody; and, on the file
// system of the temporary directory, that new files get the list of what they replace, and no
// more than their model's lets.

#include "common/io/attributes.h"

#include <gtest/gtest.h>
#include <linux/posix_acl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <vector>

#include "common/io/file_system.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"

namespace addcow {
namespace {

struct Named {
  unsigned tag;
  unsigned permissions;
  uint32_t id = UINT32_MAX;
};

// As it lies in the attribute.
std::string AclOf(const std::vector<Named>& entries, uint32_t version = 2) {
  std::string bytes;
  const auto put = [&](uint32_t value, int size) {
    for (int i = 0; i < size; i++) bytes += static_cast<char>(value >> (8 * i) & 0xff);
  };
  put(version, 4);
  for (const Named& entry : entries) {
    put(entry.tag, 2);
    put(entry.permissions, 2);
    put(entry.id, 4);
  }
  return bytes;
}

std::vector<Named> ListWith(std::vector<Named> named, unsigned group, unsigned mask,
                            unsigned other) {
  std::vector<Named> list = {{ACL_USER_OBJ, 6}};
  for (const Named& entry : named)
    if (entry.tag == ACL_USER) list.push_back(entry);
  list.push_back({ACL_GROUP_OBJ, group});
  for (const Named& entry : named)
    if (entry.tag == ACL_GROUP) list.push_back(entry);
  list.push_back({ACL_MASK, mask});
  list.push_back({ACL_OTHER, other});
  return list;
}

std::optional<uint32_t> LimitOf(const std::vector<Named>& named, unsigned group, unsigned mask,
                                unsigned other = 0) {
  return AclLimit(AclOf(ListWith(named, group, mask, other)));
}

TEST(AclLimitTest, AListThatSaysNoMoreThanTheModeIsNoLimit) {
  EXPECT_EQ(AclLimit(AclOf({{ACL_USER_OBJ, 6}, {ACL_GROUP_OBJ, 4}, {ACL_OTHER, 0}})),
            std::nullopt);
}

TEST(AclLimitTest, TheOwningGroupHasItsOwnEntryWithinTheMask) {
  EXPECT_EQ(LimitOf({{ACL_USER, 6, 7}}, 0, 6), 006u);
  EXPECT_EQ(LimitOf({{ACL_USER, 6, 7}}, 4, 6), 046u);
  EXPECT_EQ(LimitOf({}, 6, 4), 047u);
}

TEST(AclLimitTest, WhoIsNamedMayHaveLessThanAllOthers) {
  // A user that is named may be in the group; who is in two groups has what either has.
  EXPECT_EQ(LimitOf({{ACL_USER, 0, 7}}, 6, 6), 0u);
  EXPECT_EQ(LimitOf({{ACL_GROUP, 0, 7}}, 6, 6), 060u);
  EXPECT_EQ(LimitOf({{ACL_USER, 6, 7}, {ACL_USER, 4, 8}, {ACL_GROUP, 2, 9}}, 7, 7), 040u);
  // Within the mask, also where the entry has all.
  EXPECT_EQ(LimitOf({{ACL_USER, 7, 7}}, 7, 4), 044u);
}

TEST(AclLimitTest, WhatIsNotUnderstoodGivesNothing) {
  EXPECT_EQ(AclLimit(""), 0u);
  EXPECT_EQ(AclLimit(AclOf({{ACL_USER_OBJ, 6}}, 3)), 0u);
  EXPECT_EQ(AclLimit(AclOf({{ACL_USER_OBJ, 6}, {0x40, 6}})), 0u);
  EXPECT_EQ(AclLimit(AclOf({{ACL_USER_OBJ, 6}}).substr(0, 11)), 0u);
}

TEST(AclLimitTest, ItHoldsForANewFile) {
  FileInfo model{.permissions = 0664, .acl_limit = 004};
  EXPECT_EQ(RightsWithin(model, true), 0604u);
  EXPECT_EQ(RightsWithin(model, false), 0600u);
  model.acl_limit = std::nullopt;
  EXPECT_EQ(RightsWithin(model, true), 0664u);
}

TEST(AclLimitTest, NamesWithoutANumberAreForeign) {
  EXPECT_FALSE(HasForeignNames(AclOf(ListWith({{ACL_USER, 6, 7}}, 4, 6, 0))));
  EXPECT_TRUE(HasForeignNames(AclOf(ListWith({{ACL_USER, 6}}, 4, 6, 0))));
  EXPECT_TRUE(HasForeignNames(AclOf(ListWith({{ACL_GROUP, 6}}, 4, 6, 0))));
  EXPECT_FALSE(HasForeignNames(""));
}

class RealAclTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(PosixFileSystem().Create(old_));
    ASSERT_EQ(::chmod(old_.c_str(), 0600), 0);
    if (!Give(old_, kAclAttribute, list_))
      GTEST_SKIP() << "no access control lists in " << directory_.path();
  }

  static bool Give(const std::string& path, const char* name, const std::string& value) {
    return ::setxattr(path.c_str(), name, value.data(), value.size(), 0) == 0;
  }
  static ::mode_t ModeOf(const std::string& path) {
    struct stat st = {};
    EXPECT_EQ(::stat(path.c_str(), &st), 0);
    return st.st_mode & 0777;
  }
  static Result<Attributes> AttributesOf(const std::string& path) {
    ADDCOW_TRY_ASSIGN(const auto file, PosixFileSystem().Open(path, OpenMode::kReadOnly));
    return file->ReadAttributes();
  }
  NewRights RightsOfOld(NewRights::Kind kind) {
    NewRights rights{.kind = kind, .model = {}, .attributes = {}};
    const auto file = PosixFileSystem().Open(old_, OpenMode::kReadOnly);
    EXPECT_OK(file);
    rights.model = (*file)->Info().value_or(FileInfo());
    rights.attributes = (*file)->ReadAttributes().value_or(Attributes());
    return rights;
  }

  const std::string list_ = AclOf(ListWith({{ACL_USER, 6, 65534}}, 0, 6, 0));
  const TempDir directory_;
  const std::string old_ = directory_ / "old";
  const std::string new_ = directory_ / "new";
};

TEST_F(RealAclTest, AReplacementHasTheSame) {
  const bool has_others = Give(old_, "user.note", "5");
  ASSERT_OK(PosixFileSystem().Create(new_, RightsOfOld(NewRights::Kind::kSame)));
  ASSERT_OK_AND_ASSIGN(Attributes attributes, AttributesOf(new_));
  EXPECT_EQ(attributes[kAclAttribute], list_);
  EXPECT_EQ(attributes["user.note"], has_others ? "5" : "");
  EXPECT_EQ(ModeOf(new_), 0660u);
}

// What cannot be set, here for want of such a name, is left out.
TEST_F(RealAclTest, OnlyTheListHasToBeKept) {
  NewRights rights = RightsOfOld(NewRights::Kind::kSame);
  rights.attributes["none.such"] = "5";
  ASSERT_OK(PosixFileSystem().Create(new_, rights));
  rights.attributes[kAclAttribute] = "no list";
  ASSERT_OK(PosixFileSystem().Remove(new_));
  EXPECT_TRUE(FailsSaying(PosixFileSystem().Create(new_, rights), "cannot be given the owner"));
  EXPECT_FALSE(PosixFileSystem().Exists(new_).value_or(true));
}

TEST_F(RealAclTest, WhatADirectoryGivesDoesNotStay) {
  const TempDir parent;
  ASSERT_TRUE(Give(parent.path(), "system.posix_acl_default", list_));
  NewRights rights{.kind = NewRights::Kind::kSame, .model = {}, .attributes = {}};
  rights.model = RightsOfOld(NewRights::Kind::kSame).model;
  rights.model.permissions = 0640;
  ASSERT_OK(PosixFileSystem().Create(parent / "same", rights));
  ASSERT_OK_AND_ASSIGN(const Attributes same, AttributesOf(parent / "same"));
  EXPECT_FALSE(same.contains(kAclAttribute));
  EXPECT_EQ(ModeOf(parent / "same"), 0640u);

  // Whom the list names may not use the model.
  rights.kind = NewRights::Kind::kWithin;
  rights.model.acl_limit = std::nullopt;
  ASSERT_OK(PosixFileSystem().Create(parent / "within", rights));
  EXPECT_EQ(ModeOf(parent / "within"), 0600u) << "with a list the group's bits are its mask";
}

TEST_F(RealAclTest, ANewFileGetsWhatTheOwningGroupHas) {
  const NewRights rights = RightsOfOld(NewRights::Kind::kWithin);
  EXPECT_EQ(rights.model.permissions, 0660u);
  EXPECT_EQ(rights.model.acl_limit, 006u);
  ASSERT_OK(PosixFileSystem().Create(new_, rights));
  EXPECT_EQ(ModeOf(new_), 0600u);
  ASSERT_OK_AND_ASSIGN(const Attributes attributes, AttributesOf(new_));
  EXPECT_FALSE(attributes.contains(kAclAttribute));
}

}  // namespace
}  // namespace addcow
