// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See posix_attributes.h.

#include "common/io/posix_attributes.h"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

namespace addcow {

namespace {

// There is none; or no way to have one.
bool IsNoAttribute(int code) { return code == ENODATA || code == EOPNOTSUPP || code == ENOSYS; }

// What `get(buffer, size)` gives, which tells the size where that is 0. It may grow meanwhile.
template <typename Get>
SysResult<std::string> ReadAll(Get get) {
  constexpr int kTries = 100;
  for (int tries = 1;; tries++) {
    const ssize_t size = get(nullptr, 0);
    if (size < 0) return tl::unexpected<int>(errno);
    std::string value(static_cast<size_t>(size), '\0');
    if (value.empty()) return value;
    const ssize_t count = get(value.data(), value.size());
    if (count >= 0) {
      value.resize(static_cast<size_t>(count));
      return value;
    }
    if (errno != ERANGE || tries == kTries) return tl::unexpected<int>(errno);
  }
}

SysResult<std::string> ReadAttribute(int fd, const char* name) {
  return ReadAll(
      [&](char* buffer, size_t size) { return ::fgetxattr(fd, name, buffer, size); });
}

// Those of the contents, which the kernel makes by itself.
bool IsOfContents(std::string_view name) {
  constexpr std::array<std::string_view, 2> kHashes = {"security.ima", "security.evm"};
  return std::ranges::find(kHashes, name) != kHashes.end();
}

SysResult<void> GiveAcl(int fd, const NewRights& rights) {
  if (const auto acl = rights.attributes.find(kAclAttribute); acl != rights.attributes.end()) {
    const std::string& value = acl->second;
    if (::fsetxattr(fd, kAclAttribute, value.data(), value.size(), 0) != 0)
      return tl::unexpected<int>(errno);
    return {};
  }
  // A directory can give a list to what is made in it: with the mode, names in it get rights.
  if (::fremovexattr(fd, kAclAttribute) != 0 && !IsNoAttribute(errno)) {
    const int code = errno;
    const auto there = ReadAttribute(fd, kAclAttribute);
    if (there || !IsNoAttribute(there.error())) return tl::unexpected<int>(code);
  }
  struct stat st;
  if (::fstat(fd, &st) != 0) return tl::unexpected<int>(errno);
  if ((st.st_mode & 0777) != rights.model.permissions &&
      ::fchmod(fd, rights.model.permissions) != 0)
    return tl::unexpected<int>(errno);
  return {};
}

}  // namespace

SysResult<Attributes> AttributesOf(int fd) {
  Attributes attributes;
  auto acl = ReadAttribute(fd, kAclAttribute);
  if (acl)
    attributes.emplace(kAclAttribute, std::move(*acl));
  else if (!IsNoAttribute(acl.error()))
    return tl::unexpected<int>(acl.error());
  const auto names =
      ReadAll([&](char* buffer, size_t size) { return ::flistxattr(fd, buffer, size); });
  if (!names) return attributes;
  for (size_t at = 0; at < names->size();) {
    const std::string name(names->c_str() + at);
    at += name.size() + 1;
    if (name == kAclAttribute || IsOfContents(name)) continue;
    if (auto value = ReadAttribute(fd, name.c_str()); value)
      attributes.emplace(name, std::move(*value));
  }
  return attributes;
}

SysResult<std::string> AclAt(const std::string& path) {
  auto acl = ReadAll([&](char* buffer, size_t size) {
    return ::getxattr(path.c_str(), kAclAttribute, buffer, size);
  });
  if (!acl && IsNoAttribute(acl.error())) return std::string();
  return acl;
}

std::optional<uint32_t> AclLimitOf(int fd) {
  const auto acl = ReadAttribute(fd, kAclAttribute);
  if (acl) return AclLimit(*acl);
  if (IsNoAttribute(acl.error())) return std::nullopt;
  return 0;
}

// The owner comes last: whoever gives a file away may not change it any more.
SysResult<void> GiveRights(int fd, const NewRights& rights) {
  const FileInfo& model = rights.model;
  constexpr ::uid_t kSameUser = static_cast<::uid_t>(-1);
  constexpr ::gid_t kSameGroup = static_cast<::gid_t>(-1);
  struct stat st;
  if (::fstat(fd, &st) != 0) return tl::unexpected<int>(errno);
  if (st.st_gid != model.group && ::fchown(fd, kSameUser, model.group) != 0)
    return tl::unexpected<int>(errno);
  for (const auto& [name, value] : rights.attributes)
    if (name != kAclAttribute)
      (void)::fsetxattr(fd, name.c_str(), value.data(), value.size(), 0);
  if (auto given = GiveAcl(fd, rights); !given) return given;
  if (st.st_uid != model.owner && ::fchown(fd, model.owner, kSameGroup) != 0)
    return tl::unexpected<int>(errno);
  return {};
}

}  // namespace addcow
