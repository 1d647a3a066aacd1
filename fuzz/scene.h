// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The files that a fuzzer's input describes, on a file system in memory:
//
//   /vm/x.add-cow   header and bitmap from the input    /vm/copy.add-cow  a hard link to it
//   /vm/disk.raw    the image file                      /vm/hard.raw      a hard link to it
//   /vm/base.img    the backing file                    /vm/b.img         a symbolic link to it
//   /vm/empty.raw   no bytes                            /vm/base.raw      another one
//   /vm/dir         a directory                         /vm/link          one to disk.raw
//   /vm/loop        a symbolic link to itself           /vm/image.raw     another one
//   /vm/v1.add-cow, /vm/v20.add-cow: files that begin as an add-cow file of either revision
//
// Sizes come from the input too and may be anything up to 2^63 - 1, but there
// is little storage: the size of what exists is bounded, not what it claims.
//
// The encoding (make-corpus.py writes it): numbers are little endian, sizes
// are a number of 4 bytes and one by how many bits it is shifted.
//
//   0      flags of the files, see the enum
//   1      flags of the add-cow file, see the enum
//   2      what the image and the backing file hold
//   3-7    size of the image file
//   8-12   size of the backing file
//   13-17  size of the add-cow file; 0: as long as header and bitmaps are, padded
//          where its revision wants it
//   18-19  bytes of header that follow; 0: it is made here, a sound one
//   20-21  bytes of bitmap that follow
//   22-23  bytes of subcluster bitmap that follow; it is put where it belongs
//   24     of a header that is made here: 0: version 1; else revision 20, 1 to 10: with
//          clusters of 4 KiB to 2 MiB; more: of 4 KiB << (this modulo 5)
//   then the header (up to its length zeroes, and names of files where a name is to lie
//   there), the bitmaps, and the script

#ifndef ADDCOW_FUZZ_SCENE_H
#define ADDCOW_FUZZ_SCENE_H

#include <cstdint>
#include <memory>
#include <string>

#include "fuzz/input.h"
#include "tests/support/fake_file_system.h"

namespace addcow::fuzz {

inline constexpr const char* kAddCow = "/vm/x.add-cow";
inline constexpr const char* kImage = "/vm/disk.raw";
inline constexpr const char* kBacking = "/vm/base.img";

enum FileFlags : unsigned {
  kNoPunch = 1,           // of the image file
  kNoZeroRange = 2,       // of the image file
  kNoSeek = 4,            // of the image file
  kCoarseZero = 8,        // the image file zeroes whole blocks only
  kBlockDevice = 16,      // the image file is one
  kBackingNoSeek = 32,    // the backing file cannot tell its holes
  kReadOnly = 64,         // open for reading only
  kAddCowReadOnly = 128,  // the add-cow file may not be written
};

enum AddCowFlags : unsigned {
  // Of a header that is made here.
  kMadeWithBacking = 1,
  kMadeAllAllocated = 2,
  kMadeQcow2 = 4,  // the backing file's format
  // The file is as long as one with a subcluster bitmap, and a header made here says so;
  // but with clusters of 4 KiB there is none.
  kMadeSubclusters = 8,
  kMadeNoSubclusters = 16,
  kSubclustersOff = 32,  // to whoever serves it
  // Of a header that is made here.
  kMadeIdentity = 64,    // of the backing file: its size; with an odd seed also its hash
  kMadeOtherBits = 128,  // optional features that nobody knows
};

struct Scene {
  unsigned flags = 0;
  bool subclusters = true;  // as ImageSource has it
  FakeFileSystem files;
};

// Takes the scene from the input's front; what is left is the script.
std::unique_ptr<Scene> MakeScene(Input& input);

// Whether all files of both have the same names and bytes.
bool SameFiles(const FakeFileSystem& a, const FakeFileSystem& b);

// Whether both have the same size and bytes. Only storage is compared.
bool SameBytes(const FakeInode& a, const FakeInode& b);

// Calls `use(start, end)` for the data of a file, in order, until it returns
// false.
template <typename Use>
void ForEachData(const FakeInode& inode, Use use) {
  const auto clone = inode.Clone();  // one that can seek
  clone->SetAbilities({});
  for (uint64_t position = 0;;) {
    const auto start = clone->SeekData(position);
    if (!start) return;
    const auto end = clone->SeekHole(*start);
    if (!end || !use(*start, *end)) return;
    position = *end;
  }
}

}  // namespace addcow::fuzz

#endif  // ADDCOW_FUZZ_SCENE_H
