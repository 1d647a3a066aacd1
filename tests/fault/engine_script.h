// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A sequence of requests that uses all of the engine, to be run while files
// fail. It knows for each request whether it succeeded and whether a flush
// followed that did, and so what each byte of the disk may be: after a request
// that failed its old or its new value, otherwise the new one.
//
// Checked on the way: what a read gives, that extents leave no gap and call
// nothing a hole that is not zero, and that a failure is one that a client is
// told as EIO or ENOSPC.

#ifndef ADDCOW_TESTS_FAULT_ENGINE_SCRIPT_H
#define ADDCOW_TESTS_FAULT_ENGINE_SCRIPT_H

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/image/image.h"
#include "tests/support/forms.h"
#include "tests/support/test_image.h"

namespace addcow {

class EngineScript {
 public:
  // The image that the script is for. It is about areas of 64 KiB: a cluster each, or
  // many of them, or parts of two.
  static ImageSpec Spec(const Form& form = kVersion1Form);
  // Where the first area begins.
  static uint64_t Start(uint64_t cluster_size);

  // `contents`: what the disk reads at first.
  EngineScript(Image& image, const std::vector<std::byte>& contents)
      : image_(image),
        contents_(contents),
        start_(Start(image.files().layout().cluster_size())) {}

  // All of it; at its end every area is allocated.
  void Run();

  // What the documents promise of requests that come after a failure, once
  // the fault is gone. `sync_failed`: writing has ended, reads go on. If not,
  // everything works, in every cluster; a cluster's lock that was left behind
  // would hang here.
  void RunAfterFault(bool sync_failed);

  void Close();

  size_t failures() const { return failures_; }
  // Errors that said that writing has ended.
  size_t ends() const { return ends_; }

  // What went wrong with the engine, not with its files; empty if nothing.
  const std::string& wrong() const { return wrong_; }

  // Empty where the whole disk is what it may be. `reopened`: only what a
  // flush covered has to be there.
  std::string Check(const std::vector<std::byte>& actual, bool reopened) const;

 private:
  struct Change {
    uint64_t offset;
    uint64_t length;
    std::byte value;
    bool succeeded;
    bool flushed;
  };

  // Bytes of which the same is known. Where their values may be from: bit 0
  // is what was there first, bit n + 1 is changes_[n].
  struct Segment {
    uint64_t start;
    uint64_t end;
    uint64_t origins;
  };

  std::vector<Segment> Segments(bool reopened) const;
  // The first byte of the segment's part that is in `bytes` but is none that
  // may be there, or the part's end. `bytes` are those from `offset` on.
  uint64_t FirstWrong(const Segment& segment, std::span<const std::byte> bytes,
                      uint64_t offset) const;
  void Wrong(const std::string& what);
  void Note(const char* what, const Status& status);
  void ExpectRefused(const char* what, const Status& status);
  void Write(uint64_t offset, uint64_t length, Fua fua = Fua::kNo);
  void Zero(uint64_t offset, uint64_t length, ZeroOptions options, Fua fua = Fua::kNo);
  void Record(const char* what, const Change& change, const Status& done, Fua fua);
  void Flush();
  void Read();
  void Map();
  void Prefetch() { Note("prefetch", image_.Prefetch(0, image_.virtual_size())); }
  void CopyUp(uint64_t offset, uint64_t length) {
    const Layout layout = image_.files().layout();
    Note("copy up", image_.CopyUp(layout.Touched(start_ + offset, length)));
  }
  ClusterRange All() const { return {0, image_.files().layout().clusters()}; }
  void MarkFlushed();

  Image& image_;
  const std::vector<std::byte>& contents_;
  const uint64_t start_;
  std::vector<Change> changes_;
  size_t failures_ = 0;
  size_t ends_ = 0;
  std::string wrong_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_FAULT_ENGINE_SCRIPT_H
