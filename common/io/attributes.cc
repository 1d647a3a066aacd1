// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See attributes.h. The layout of the list is Linux's (linux/posix_acl_xattr.h): a version, and
// entries of a tag, permissions and a number each, little endian.

#include "common/io/attributes.h"

#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>

#include <cstddef>
#include <vector>

namespace addcow {

namespace {

struct AclEntry {
  uint32_t tag = 0;
  uint32_t permissions = 0;  // 0 to 7
  uint32_t id = 0;
};

// Nothing where it is not one that is known.
std::optional<std::vector<AclEntry>> AclEntriesOf(std::string_view acl) {
  constexpr size_t kAclHeaderSize = 4;
  constexpr size_t kAclEntrySize = 8;
  const auto number = [&](size_t at, size_t size) {
    uint32_t value = 0;
    for (size_t i = 0; i < size; i++)
      value |= uint32_t{static_cast<uint8_t>(acl[at + i])} << (8 * i);
    return value;
  };
  if (acl.size() < kAclHeaderSize || (acl.size() - kAclHeaderSize) % kAclEntrySize != 0 ||
      number(0, 4) != POSIX_ACL_XATTR_VERSION)
    return std::nullopt;
  std::vector<AclEntry> entries;
  for (size_t at = kAclHeaderSize; at < acl.size(); at += kAclEntrySize)
    entries.push_back({number(at, 2), number(at + 2, 2) & 07, number(at + 4, 4)});
  return entries;
}

}  // namespace

std::optional<uint32_t> AclLimit(std::string_view acl) {
  const auto entries = AclEntriesOf(acl);
  if (!entries) return 0;
  uint32_t owning_group = 0;
  // What all have that are named.
  std::optional<uint32_t> users;
  std::optional<uint32_t> groups;
  std::optional<uint32_t> mask;
  for (const AclEntry& entry : *entries) {
    switch (entry.tag) {
      case ACL_USER_OBJ:
      case ACL_OTHER:
        break;
      case ACL_GROUP_OBJ:
        owning_group = entry.permissions;
        break;
      case ACL_USER:
        users = users.value_or(07) & entry.permissions;
        break;
      case ACL_GROUP:
        groups = groups.value_or(07) & entry.permissions;
        break;
      case ACL_MASK:
        mask = entry.permissions;
        break;
      default:
        return 0;
    }
  }
  if (!users && !groups && !mask) return std::nullopt;
  // The mask is for all that are named, and for the owning group.
  const uint32_t most = mask.value_or(07);
  const uint32_t of_users = users ? *users & most : 07;
  const uint32_t of_groups = groups ? *groups & most : 07;
  // Who is named as a user may be in the group, and has then what is said of the user.
  return (owning_group & most & of_users) << 3 | (of_users & of_groups);
}

bool HasForeignNames(std::string_view acl) {
  constexpr uint32_t kNoNumber = UINT32_MAX;
  const auto entries = AclEntriesOf(acl);
  if (!entries) return false;
  for (const AclEntry& entry : *entries)
    if ((entry.tag == ACL_USER || entry.tag == ACL_GROUP) && entry.id == kNoNumber) return true;
  return false;
}

}  // namespace addcow
