// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The three files of an image, found, opened and checked against each other.
// The engine serves from what this opens; the tool's verbs look at it.
// Nothing is written here.

#ifndef ADDCOW_COMMON_IMAGE_IMAGE_FILES_H
#define ADDCOW_COMMON_IMAGE_IMAGE_FILES_H

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/interrupted.h"
#include "common/base/log.h"
#include "common/format/header.h"
#include "common/io/file_system.h"
#include "common/source/program.h"
#include "common/source/source.h"

namespace addcow {

// How the files may be opened.
struct AccessOptions {
  // Tell other programs that the files are in use, and refuse to open what
  // another one uses in a way that does not go together with it (File::Lock).
  bool lock = true;
  // The files that the header names must lie beneath this directory, symbolic
  // links followed. For add-cow files that somebody else has made.
  std::optional<std::string> confine = std::nullopt;
  // With `confine`: what a header may have done all the same.
  bool allow_uri = false;      // read from a server
  bool allow_formats = false;  // have QEMU read other formats
  // Without what needs another program or host: a base that does is kErrUnsupported.
  bool no_servers = false;
  // How long a server of a base may take to answer.
  std::chrono::seconds timeout{60};
  // Told when such a server is lost, and when it is back; may be empty.
  LogSink log = {};
  // Ends what waits for such a server; may be empty. Any thread.
  Interrupted interrupted = {};
  // What the program puts before the name of an option, for messages that tell
  // which one helps: nothing (image=FILE) or "--" (--image=FILE).
  const char* option_prefix = "";
  // Whether what images stand on is compared with what they noted of it.
  bool check_identity = true;

  // Of programs of QEMU's that are asked about a base.
  ProgramLimits program_limits() const {
    return {.timeout = timeout, .interrupted = interrupted, .option_prefix = option_prefix};
  }
};

class Image;

// A file of an image, or of what it stands on, that is open.
struct ChainFile {
  FileInfo info;
  std::string path;
  bool add_cow = false;
  // With contents of an image of QEMU's that is stood on: written to where that is.
  bool with_contents = false;
};

// Images that stand on one which is opened for them.
struct Above {
  size_t images = 0;                  // also one that is only to be made
  std::vector<ChainFile> files = {};  // theirs, from the top down
};

// kErrCorrupt where the file is one of them: an image would stand on itself.
Status CheckNotAbove(const FileInfo& file, const std::string& path, const Above& above);

struct ImageSource {
  std::string add_cow_path;
  // Used instead of the names in the header, for images that were moved;
  // relative to the working directory, as any path a user gives.
  std::optional<std::string> image_path = std::nullopt;
  std::optional<std::string> backing_path = std::nullopt;
  // kReadWrite falls back to reading only where a file may not be written.
  OpenMode mode = OpenMode::kReadWrite;
  // Whether the backing file is opened. A tool that only looks at the
  // metadata need not have it.
  bool want_backing = true;
  // Go on without a backing file that cannot be opened, locked or served. One
  // that is there is still compared with the other files.
  bool backing_optional = false;
  // The backing file also where ALL_ALLOCATED says that nobody needs it.
  bool backing_always = false;
  AccessOptions access = {};
  // Whether copy-up may share the backing file's storage (where it can).
  bool reflink = true;
  // Whether a file that has no subclusters may get them.
  bool subclusters = true;
  // Whether an image_path may be written through that is another file than the header's
  // while that is there as well: EINVAL where it may not. Not looked at with confine.
  bool may_be_another = false;
  // What is not found is given another name by `addcow rebase -u`, and not by an option:
  // another image stands on this one, or the command has no such option.
  bool remedy_is_rebase = false;
};

struct ImageFiles {
  Header header;
  OpenMode mode = OpenMode::kReadOnly;  // what all files that are written allow
  // Why `mode` is kReadOnly although kReadWrite was asked for.
  std::optional<Error> not_writable;
  std::unique_ptr<File> add_cow;
  std::unique_ptr<File> image;  // the one that is locked
  // The same file twice more, where it may be written (image_store.h): for
  // durable writes, and for syncs only.
  std::unique_ptr<File> image_durable;
  std::unique_ptr<File> image_sync;
  std::unique_ptr<Source> backing;  // none: no backing file, or not to be opened
  Image* base_image = nullptr;      // what `backing` reads, where that is an add-cow file
  // Its own files, and those of what it stands on; empty in one that is stood on.
  std::vector<ChainFile> chain;
  std::string add_cow_path;  // absolute, without symbolic links
  std::string image_path;
  std::string backing_path;   // or a URI; empty without a backing file
  uint64_t virtual_size = 0;  // the image file's size
  Layout layout() const { return {virtual_size, header.geometry()}; }
  // What somebody should know of them, a line each.
  std::vector<std::string> notes;
};

// Opens the add-cow file at `source.add_cow_path`, locks it for reading and
// reads its header; the other members of the result are empty. `opened`: that file, at
// its real path, for who has opened it.
Result<ImageFiles> OpenAddCowFile(FileSystem& file_system, const ImageSource& source,
                                  std::unique_ptr<File> opened = nullptr);

// Opens the backing file that the header of `files` names, or `source` instead, for
// reading, whatever its format. It is neither locked nor looked at, but for being
// another one than the two files.
Result<std::unique_ptr<File>> OpenBackingFile(FileSystem& file_system,
                                              const ImageSource& source,
                                              const ImageFiles& files);

// Opens all files, locks them, and checks them: that they are three different
// ones, that the disk has a byte at least, that the bitmaps are as long as the
// disk needs (with subclusters not longer either), that the backing file is not
// empty and is what it was when it was named (identity.h), and that none of the raw
// files is an add-cow file. The locks are held as long as the files are open. With
// ALL_ALLOCATED set the backing file is left alone: it may be gone.
// What the image stands on is opened in the same way, to any depth: all of it from the
// top down, and then checked from the bottom up. `above`: what stands on it already.
Result<ImageFiles> OpenImageFiles(FileSystem& file_system, const ImageSource& source,
                                  std::unique_ptr<File> opened = nullptr, Above above = {});

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_IMAGE_FILES_H
