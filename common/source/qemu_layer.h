// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What one qcow2 image holds itself, apart from what it stands on. Asked of qemu-img; no
// format is decoded here, and nothing that the image names as its backing file is opened.

#ifndef ADDCOW_COMMON_SOURCE_QEMU_LAYER_H
#define ADDCOW_COMMON_SOURCE_QEMU_LAYER_H

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/format/layout.h"
#include "common/source/program.h"
#include "common/source/qemu_chain.h"
#include "common/source/qemu_server.h"

namespace addcow {

inline constexpr std::string_view kQcow2Format = "qcow2";

// A stretch of the disk that the image has: data, or zeroes.
struct LayerRun {
  ByteRange range;
  bool data = false;

  bool operator==(const LayerRun&) const = default;
};

struct QemuLayerInfo {
  QemuImageInfo image;
  bool encrypted = false;
  // What it has that is no part of the disk, in words: "2 internal snapshots".
  std::vector<std::string> extras;
  // All that was printed: the same again where nothing has changed since.
  std::string printed;
};

struct QemuLayerMap {
  std::vector<LayerRun> runs;  // ascending, neighbours apart or different
  uint64_t compressed = 0;     // bytes of the disk that are kept so
};

// `image` is a qcow2. EBUSY where `image.lock` is set and another program has it open for
// writing; EIO where qemu-img fails otherwise, with what it says.
Result<QemuLayerInfo> InfoOfQemuLayer(const QemuImage& image, const ProgramLimits& limits);

// The same for where its data is. kErrUnsupported with a QEMU before 6.1, which does not say
// what is not there. It reads all tables of the qcow2, which can take long on a slow disk: of
// `limits` only an interrupt ends it.
Result<QemuLayerMap> MapOfQemuLayer(const QemuImage& image, ProgramLimits limits);

// The image without what it stands on, as QEMU's programs take it in place of a file's name.
// EINVAL where its path is not UTF-8.
Result<std::string> NameOfQemuLayer(const QemuImage& image);

struct NewQcow2 {
  std::string path;            // absolute; what is there is lost
  uint64_t size = 0;           // bytes, a multiple of 512
  uint64_t cluster_size = 0;   // bytes, a power of two
  std::string backing;         // as it is to be named; empty: none
  std::string backing_format;  // QEMU's name
};

// Makes one that holds nothing. Its backing file is not opened.
Status MakeQcow2(const NewQcow2& image, const ProgramLimits& limits);

// For InfoOfQemuLayer and MapOfQemuLayer: what qemu-img printed.
Result<QemuLayerInfo> ParseQemuLayerInfo(const std::string& json, const QemuImage& image);
Result<QemuLayerMap> ParseQemuLayerMap(const std::string& json, const std::string& path);

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_QEMU_LAYER_H
