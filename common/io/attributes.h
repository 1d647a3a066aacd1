// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Extended attributes of a file, and what its access control list says (acl(5)): a file that
// takes another one's place gets them, and a new one gets no more rights than they give.

#ifndef ADDCOW_COMMON_IO_ATTRIBUTES_H
#define ADDCOW_COMMON_IO_ATTRIBUTES_H

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace addcow {

// Values by their names: bytes, of any length.
using Attributes = std::map<std::string, std::string>;

// Where Linux keeps a file's access control list.
inline constexpr const char* kAclAttribute = "system.posix_acl_access";

// Of the value of that attribute: which bits of the mode's 077 everybody has, that the list
// names or not, who is not the file's owner: the group's bits of who is in its group, the
// others' bits of all the rest. Nothing where the list says no more than the mode. 0 where it
// is not understood.
std::optional<uint32_t> AclLimit(std::string_view acl);

// Whether the list names a user or group that this process has no number for (a user name
// space). Such a list can be read, and not be given to a file.
bool HasForeignNames(std::string_view acl);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IO_ATTRIBUTES_H
