// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The system calls on owners, permissions and extended attributes.

#ifndef ADDCOW_COMMON_IO_POSIX_ATTRIBUTES_H
#define ADDCOW_COMMON_IO_POSIX_ATTRIBUTES_H

#include <cstdint>
#include <optional>
#include <string>

#include "common/io/file_calls.h"
#include "common/io/file_system.h"

namespace addcow {

// See File::ReadAttributes. None where the file system has no attributes.
SysResult<Attributes> AttributesOf(int fd);

// The access control list of the file at `path`; empty: none.
SysResult<std::string> AclAt(const std::string& path);

// AclLimit of an open file's. 0 where it has a list that cannot be read.
std::optional<uint32_t> AclLimitOf(int fd);

// Gives a new file of this process's, which is open and which nobody else may open, the rights
// that NewRights::Kind::kSame means. What its directory has given it goes. On failure it has
// some of them.
SysResult<void> GiveRights(int fd, const NewRights& rights);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IO_POSIX_ATTRIBUTES_H
