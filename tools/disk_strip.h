// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A picture of a disk for a terminal: a line for each kind of bytes, all of them over the
// same parts of the disk, and how much of a part is of that kind is how tall, or how dense,
// its character is. So it is read without colours, and a small share is seen.

#ifndef ADDCOW_TOOLS_DISK_STRIP_H
#define ADDCOW_TOOLS_DISK_STRIP_H

#include <cstdint>
#include <string>

#include "common/ops/summary.h"

namespace addcow {

struct StripStyle {
  uint64_t columns = 80;  // of the terminal
  bool unicode = false;   // block elements; else ASCII
  bool colour = false;
};

// For standard output: the width of the terminal, or COLUMNS, which goes before it, 10000 at
// most (one that is no number counts for nothing); what
// the locale can write; colours on a terminal where NO_COLOR is not set.
StripStyle StyleOfOutput();

// How large a part shall be for DiskStrip.
uint64_t StripPartSize(uint64_t size, const StripStyle& style);

// Some lines, none longer than the terminal is wide, if that is 48 columns or more.
std::string DiskStrip(const ImageSummary& summary, const StripStyle& style);

}  // namespace addcow

#endif  // ADDCOW_TOOLS_DISK_STRIP_H
