// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A file descriptor that closes itself.

#ifndef ADDCOW_COMMON_BASE_UNIQUE_FD_H
#define ADDCOW_COMMON_BASE_UNIQUE_FD_H

#include <unistd.h>

#include <utility>

namespace addcow {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~UniqueFd() {
    if (fd_ >= 0) ::close(fd_);
  }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

}  // namespace addcow

#endif  // ADDCOW_COMMON_BASE_UNIQUE_FD_H
