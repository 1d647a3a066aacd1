// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A fixture of the engine's four rooms without the facade: on the files of a test
// image, behind an operation log and a fault plan, and put together as Image does.

#ifndef ADDCOW_TESTS_SUPPORT_ENGINE_ROOMS_H
#define ADDCOW_TESTS_SUPPORT_ENGINE_ROOMS_H

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/image/copy_up.h"
#include "common/image/durability.h"
#include "tests/support/expect.h"
#include "tests/support/fault_file.h"
#include "tests/support/operation_log.h"
#include "tests/support/test_image.h"

namespace addcow {

class EngineRooms : public testing::Test {
 protected:
  struct Rooms {
    Rooms(FileSystem& file_system, ImageFiles opened, std::vector<std::string>& messages)
        : files(std::move(opened)),
          log([&messages](LogLevel, const std::string& text) { messages.push_back(text); }),
          backing(std::move(files.backing)),
          store(files, backing.shared_file()),
          allocation(files),
          copy_up(files, backing, allocation, store),
          durability(file_system, files, log, allocation, store) {}

    ImageFiles files;
    const LogSink log;
    const Backing backing;
    ImageStore store;
    Allocation allocation;
    CopyUp copy_up;
    Durability durability;
  };

  void Make(const ImageSpec& spec, bool subclusters = true) {
    fake_.MakeDirectory(kDirectory);
    auto disk = MakeTestImage(fake_, kDirectory, spec);
    ASSERT_OK(disk);
    disk_ = *disk;
    Reopen(subclusters);
  }

  // As a new process finds the files.
  void Reopen(bool subclusters = true) {
    rooms_.reset();
    auto files = OpenImageFiles(seam_, {.add_cow_path = kAddCowPath});
    ASSERT_OK(files);
    rooms_ = std::make_unique<Rooms>(seam_, std::move(*files), messages_);
    ASSERT_OK(store().Open());
    ASSERT_OK(allocation().Open(subclusters));
    log_.Clear();
  }

  ImageStore& store() { return rooms_->store; }
  Allocation& allocation() { return rooms_->allocation; }
  CopyUp& copy_up() { return rooms_->copy_up; }
  Durability& durability() { return rooms_->durability; }

  // The bits of a range that a write has brought into the image file.
  void SetInImage(uint64_t offset, uint64_t end) {
    ASSERT_OK(allocation().TakeStorage(offset, end));
    allocation().SetInImage(offset, end);
  }
  bool InImage(uint64_t offset, uint64_t end) {
    const Allocation::Run run = allocation().RunAt(offset, end);
    return run.in_image && run.end == end;
  }
  std::vector<std::byte> OfImage(uint64_t offset, uint64_t length) const {
    return fake_.Find(kImagePath)->Bytes(offset, length);
  }
  std::vector<std::byte> OfDisk(uint64_t offset, uint64_t length) const {
    const auto from = disk_.begin() + static_cast<std::ptrdiff_t>(offset);
    return {from, from + static_cast<std::ptrdiff_t>(length)};
  }
  size_t Reads(const char* path) const {
    return log_
        .Records([path](const Operation& operation) {
          return operation.kind == OpKind::kRead && operation.path == path;
        })
        .size();
  }
  std::vector<std::string> Done() const { return log_.Lines(ChangesOrSyncs); }

  FakeFileSystem fake_;
  FaultPlan faults_;
  ForwardingFileSystem faulty_{fake_, faults_};
  OperationLog log_;
  ForwardingFileSystem seam_{faulty_, log_};
  CopyUp::Told told_;            // of copy-ups
  std::vector<std::byte> disk_;  // what it read when it was made
  std::vector<std::string> messages_;
  std::unique_ptr<Rooms> rooms_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_ENGINE_ROOMS_H
