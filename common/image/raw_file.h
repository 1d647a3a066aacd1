// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What is looked at before a file is used as raw: whether its first bytes are those
// of something else. A format is never guessed from them: they can make us refuse or warn, and
// change nothing about how the file is read.

#ifndef ADDCOW_COMMON_IMAGE_RAW_FILE_H
#define ADDCOW_COMMON_IMAGE_RAW_FILE_H

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/error.h"
#include "common/io/file.h"

namespace addcow {

// A line for the log: nothing failed, but somebody should know.
using Note = std::optional<std::string>;

// Refuses a raw file that is read, and not one of an image, without a byte, and one that is
// an add-cow file. EINVAL. `role`: "backing file", for example.
Status CheckReadRaw(File& file, uint64_t size, const std::string& role);

// Refuses an add-cow file where a raw one is wanted. EINVAL. A file whose beginning
// cannot be read is let pass: those who read it will see.
Status RefuseAddCowFile(File& file, const std::string& role);

// Where `file` begins as a file of another format does.
Note NoteOtherFormat(File& file, const std::string& role);

// Where the disk ends before its backing file does.
Note NoteSmallerDisk(const std::string& image, uint64_t virtual_size, uint64_t backing_size);

}  // namespace addcow

#endif  // ADDCOW_COMMON_IMAGE_RAW_FILE_H
