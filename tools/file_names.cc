// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See file_names.h.

#include "tools/file_names.h"

#include "tools/verbs.h"

namespace addcow {

std::string FileNames::Problem() const {
  if (backing && !backing_format)
    return "-b needs -F FORMAT: the backing file's format is never guessed, since a guest can "
           "write another format's header into a raw disk";
  if (backing_format && !backing) return "-F FORMAT needs -b BACKING";
  if (backing && backing->empty()) return "-b: the name of the backing file is empty";
  if (backing && backing_format->empty()) return "-F: the format of the backing file is empty";
  if (image && image->empty()) return "-i: the name of the image file is empty";
  return "";
}

std::optional<NamedFile> FileNames::Backing() const {
  if (!backing) return std::nullopt;
  return NamedFile{*backing, *backing_format};
}

void AddFileNames(CLI::App& app, FileNames& names, const char* backing, const char* image) {
  AddStringOption(app, "-b,--backing", "BACKING", names.backing, backing);
  AddStringOption(app, "-F,-B,--backing-format", "FORMAT", names.backing_format,
                  "Its format, which is never guessed: raw, add-cow for\nanother image, or one "
                  "of QEMU's, as qcow2");
  AddStringOption(app, "-i,--image", "IMAGE", names.image, image);
}

}  // namespace addcow
