// SPDX-License-Identifier: LGPL-2.1-or-later
//
// -b, -F and -i: the names that an add-cow file is given, when it is made (create)
// and later (rebase).

#ifndef ADDCOW_TOOLS_FILE_NAMES_H
#define ADDCOW_TOOLS_FILE_NAMES_H

#include <optional>
#include <string>

#include "common/format/header.h"

namespace CLI {
class App;
}

namespace addcow {

// What was not given is not there.
struct FileNames {
  std::optional<std::string> backing;
  std::optional<std::string> backing_format;
  std::optional<std::string> image;

  // What is wrong with them as they were given; empty: nothing.
  std::string Problem() const;
  // -b and -F, where there is no problem.
  std::optional<NamedFile> Backing() const;
};

// `backing` and `image` say what the names are, in the help.
void AddFileNames(CLI::App& app, FileNames& names, const char* backing, const char* image);

}  // namespace addcow

#endif  // ADDCOW_TOOLS_FILE_NAMES_H
