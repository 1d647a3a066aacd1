// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A picture of a disk as one SVG file: no script, nothing that is fetched, light and dark.
//
// The disk is drawn as a text is written, in rows, each with its offset, and not as a
// Hilbert curve: there no offset can be read. A cell is a part of the disk. Within it the
// kinds are stacked, so that an area is true however finely they are mixed.

#ifndef ADDCOW_TOOLS_DISK_SVG_H
#define ADDCOW_TOOLS_DISK_SVG_H

#include <cstdint>
#include <string>
#include <string_view>

#include "common/ops/summary.h"

namespace addcow {

// No picture is larger, in bytes, whatever the disk is and however its files are called.
inline constexpr uint64_t kMostSvgBytes = 200 * kKiB;

// How large a part shall be for DiskSvg: a power of two, from 4 KiB on, so that rows begin
// at round offsets.
uint64_t SvgPartSize(uint64_t size);

// Of the add-cow file `name`, whose summary has parts of SvgPartSize.
std::string DiskSvg(const std::string& name, const ImageSummary& summary);

// `text` in an XML document: what is no character there, or would turn the writing
// around, is replaced.
std::string XmlText(std::string_view text);

}  // namespace addcow

#endif  // ADDCOW_TOOLS_DISK_SVG_H
