// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How a failure travels: as a value, Result<T> or Status, that the compiler
// does not let a caller ignore. No exceptions of our own; an errno never
// shares a type with a result, so that "failed" cannot be read as "true".

#ifndef ADDCOW_COMMON_BASE_ERROR_H
#define ADDCOW_COMMON_BASE_ERROR_H

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace addcow {

// Codes that mean something of ours; both are errno values. A system call that
// gives EUCLEAN (a broken file system) is reported as EIO, so that a broken
// disk is not taken for a broken image.
inline constexpr int kErrCorrupt = EUCLEAN;      // breaks a rule of the format
inline constexpr int kErrUnsupported = ENOTSUP;  // sound, but not for this version

// An errno in words. Any thread.
std::string ErrnoText(int code);

// One failure: what was tried, on which file, where, and why it failed.
class Error {
 public:
  // `code` is a positive errno. `reason` replaces the errno's own text.
  static Error System(int code, std::string operation, std::string file);
  static Error Io(int code, std::string operation, std::string file, uint64_t offset,
                  uint64_t count);
  static Error Because(int code, std::string file, std::string reason);

  // The same of another file: of what the user knows, not what stands in for it.
  Error OfFile(const std::string& file) const;
  // The same words with another code.
  Error WithCode(int code) const;

  // The same with more to say at its end: "; " and the note.
  Error WithNote(const std::string& note) const;

  int code() const { return code_; }
  // The file system, the quota or the limit of file sizes has no room for it.
  bool IsNoRoom() const { return code_ == ENOSPC || code_ == EDQUOT || code_ == EFBIG; }
  // The file system cannot do that, or not there: to be done in another way.
  bool IsUnsupported() const { return code_ == EOPNOTSUPP || code_ == EINVAL; }
  const std::string& file() const { return file_; }
  const std::string& operation() const { return operation_; }
  std::optional<uint64_t> offset() const { return offset_; }

  // One line, for example
  //   pread: test.raw: offset=65536, count=4096: Input/output error
  std::string Message() const;

 private:
  int code_ = 0;
  std::string operation_;
  std::string file_;
  std::optional<uint64_t> offset_;
  uint64_t count_ = 0;
  std::string reason_;
  std::string notes_;
};

template <typename T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};

using Status = Result<void>;

inline tl::unexpected<Error> Fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}

}  // namespace addcow

#define ADDCOW_CONCAT_(a, b) a##b
#define ADDCOW_CONCAT(a, b) ADDCOW_CONCAT_(a, b)

// Returns the error of EXPR, a Status or Result, from the calling function.
// The counter keeps names apart where EXPR holds a lambda that uses it too.
#define ADDCOW_TRY(...) ADDCOW_TRY_(ADDCOW_CONCAT(addcow_status_, __COUNTER__), __VA_ARGS__)
#define ADDCOW_TRY_(status, ...)                        \
  do {                                                  \
    if (auto status = (__VA_ARGS__); !status)           \
      return ::addcow::Fail(std::move(status).error()); \
  } while (false)

// Declares DECL and gives it the value of EXPR, or returns EXPR's error.
#define ADDCOW_TRY_ASSIGN(decl, ...) \
  ADDCOW_TRY_ASSIGN_(ADDCOW_CONCAT(addcow_result_, __COUNTER__), decl, __VA_ARGS__)
#define ADDCOW_TRY_ASSIGN_(result, decl, ...)                    \
  auto result = (__VA_ARGS__);                                   \
  if (!result) return ::addcow::Fail(std::move(result).error()); \
  decl = std::move(*result)

#endif  // ADDCOW_COMMON_BASE_ERROR_H
