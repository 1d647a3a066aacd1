// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The text of an Error. strerrordesc_np is thread-safe, which strerror is not.

#include "common/base/error.h"

#include <fmt/format.h>

#include <cstring>

#include "common/base/printable.h"

namespace addcow {

Error Error::System(int code, std::string operation, std::string file) {
  Error error;
  error.code_ = code == kErrCorrupt ? EIO : code;
  if (code == kErrCorrupt) error.reason_ = "the file system is corrupt (EUCLEAN)";
  error.operation_ = std::move(operation);
  error.file_ = std::move(file);
  return error;
}

Error Error::Io(int code, std::string operation, std::string file, uint64_t offset,
                uint64_t count) {
  Error error = System(code, std::move(operation), std::move(file));
  error.offset_ = offset;
  error.count_ = count;
  return error;
}

Error Error::Because(int code, std::string file, std::string reason) {
  Error error;
  error.code_ = code;
  error.file_ = std::move(file);
  error.reason_ = std::move(reason);
  return error;
}

Error Error::OfFile(const std::string& file) const {
  Error error = *this;
  error.file_ = file;
  return error;
}

Error Error::WithNote(const std::string& note) const {
  Error error = *this;
  error.notes_ += "; " + note;
  return error;
}

Error Error::WithCode(int code) const {
  Error error = *this;
  if (error.reason_.empty()) error.reason_ = ErrnoText(code_);
  error.code_ = code;
  return error;
}

std::string ErrnoText(int code) {
  const char* text = strerrordesc_np(code);
  return text != nullptr ? text : fmt::format("error {}", code);
}

std::string Error::Message() const {
  std::string text;
  if (!operation_.empty()) text += operation_ + ": ";
  if (!file_.empty()) text += file_ + ": ";
  if (offset_) text += fmt::format("offset={}, count={}: ", *offset_, count_);
  text += reason_.empty() ? ErrnoText(code_) : reason_;
  return Printable(text + notes_);  // one line, whatever a file is called
}

}  // namespace addcow
