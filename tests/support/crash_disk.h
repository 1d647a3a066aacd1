// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A file system whose power can fail at any moment. There is one ordered log
// of the changes to all files and names. A sync of a file retires that file's
// entries: they are durable. A crash keeps, drops or tears each of the others.
//
// How it models reality, and where it is worse:
//
// - Programs see all changes at once, as through the page cache.
// - Storage keeps or loses sectors of 512 bytes. An entry holds, for each
//   sector that it touched, the whole sector as it was afterwards: two small
//   writes into one sector cannot both be lost in part. After a crash a sector
//   is as the last entry left it that was kept for it.
// - No order holds without a sync: of two writes, to one file or to two, the
//   later one may be kept and the earlier one lost.
// - A sync covers what was complete when it began. What is written while it
//   runs stays in the log.
// - A sync that fails retires nothing, and what it should have covered will
//   never be: later syncs pass over it, since the kernel dropped the pages. Each
//   other handle that was open is told once, by its next sync or durable write,
//   or by a plain write where the file's abilities say so.
// - A file's new size is kept or lost apart from its data. Names are kept or
//   lost one by one, until their directory is synced; a rename is kept whole
//   or not at all. The sync of a file does not keep its name.
//
// The idea of one list of writes over all files, each kept, dropped or torn,
// is that of SQLite's crash tests.
//
// Threads: any, but for Crash and SetHook. The hook is called from the thread
// whose operation it is.

#ifndef ADDCOW_TESTS_SUPPORT_CRASH_DISK_H
#define ADDCOW_TESTS_SUPPORT_CRASH_DISK_H

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/mutex.h"
#include "tests/support/fake_file_system.h"
#include "tests/support/operation.h"
#include "tests/support/random.h"

namespace addcow {

class CrashDisk final : public FileSystem {
 public:
  // Starts with the contents of `initial`, all durable.
  explicit CrashDisk(const FakeFileSystem& initial);

  Result<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  Result<std::unique_ptr<File>> OpenBeneath(const std::string& directory,
                                            const std::string& name, OpenMode mode) override;
  Result<std::unique_ptr<File>> Create(const std::string& path,
                                       const NewRights& rights) override;
  using FileSystem::Create;
  Status Rename(const std::string& from, const std::string& to, RenameMode mode) override;
  Status Remove(const std::string& path) override;
  Status SyncDirectory(const std::string& directory) override;
  Result<std::vector<DirectoryEntry>> ReadDirectory(const std::string& directory) override;
  Result<bool> Exists(const std::string& path) override;
  Result<FileInfo> Identify(const std::string& path) override;
  Status CheckMayChange(const std::string& path, FileChange change) override;
  Result<std::string> RealPath(const std::string& path) override;

  // Called before each change, and inside of each sync, between what it will
  // cover and its effect: at every moment between two states of the log.
  // Returns the errno that the operation fails with, or 0.
  using Hook = std::function<int(const Operation&)>;
  void SetHook(Hook hook) { hook_ = std::move(hook); }

  // What a crash keeps of the log: whole entries by the bits of `mask`, or
  // parts of entries as the seed has it.
  struct Choice {
    bool torn = false;
    uint64_t mask = 0;
    uint64_t seed = 0;
  };

  // How many of the crashes that are possible at one moment are tried.
  struct Effort {
    size_t exhaustive = 8;  // every subset of the entries, if there are no more
    uint64_t samples = 32;  // else so many
    // The first so many entries were there, and every subset of them was
    // tried, at an earlier moment: only what has a newer entry in it is new.
    size_t known = 0;
  };

  // Crashes that are possible now. All subsets of few entries, plus a quarter
  // as many torn ones; of many, torn ones, and that nothing or everything is
  // kept.
  std::vector<Choice> Choices(Random& random, const Effort& effort) const;

  // The file system as it is found after a crash now. This one goes on.
  std::unique_ptr<FakeFileSystem> Crash(const Choice& choice) const;
  std::unique_ptr<FakeFileSystem> CrashLosingAll() const { return Crash({}); }

  size_t pending() const;
  // Changes when entries are retired or marked as lost. As long as it does
  // not, the log only grows at its end.
  uint64_t retired() const;
  // What the running program sees.
  const FakeFileSystem& live() const { return *live_; }
  // The pending entries and what the choice keeps, for messages.
  std::string Describe(const Choice& choice) const;

 private:
  friend class CrashFile;

  struct Entry {
    Operation operation;  // for messages
    uint64_t inode = 0;
    bool lost_by_sync = false;  // a failed sync covered it
    // Parts that are durable, or that something durable has replaced since.
    std::vector<bool> replaced = {};
    // A change of contents: whole sectors from `offset` on.
    uint64_t offset = 0;
    std::vector<std::byte> after = {};
    std::optional<uint64_t> size = {};  // and of the size
    // A change of names: one that is set to `inode`, one that goes.
    std::string name = {};
    std::string gone = {};

    size_t parts() const;
  };
  using Keep = std::function<bool(size_t entry, size_t part)>;
  using Inodes = std::map<uint64_t, std::shared_ptr<FakeInode>>;

  int CallHook(const Operation& operation) const { return hook_ ? hook_(operation) : 0; }
  void LogContents(const Operation& operation, const FakeInode& inode, uint64_t offset,
                   uint64_t length, std::optional<uint64_t> size) ADDCOW_REQUIRES(mutex_);
  // Retires the first `count` entries that `covers` says yes to, or marks
  // them as lost where `failed`.
  void Retire(size_t count, bool failed, const std::function<bool(const Entry&)>& covers)
      ADDCOW_REQUIRES(mutex_);
  // `told`: how many losses the handle knows of.
  using Told = std::atomic<uint64_t>;
  int SyncRange(const Operation& operation, FakeInode& inode, Told& told)
      ADDCOW_EXCLUDES(mutex_);
  int SyncFile(const Operation& operation, FakeInode& inode, Told& told)
      ADDCOW_EXCLUDES(mutex_);
  static int TellLoss(int error, FakeInode& inode, Told& told);
  static void ReplaceLost(Entry& lost, const Entry& durable);
  static void Apply(const Entry& entry, size_t index, const Keep& keep,
                    FakeFileSystem& file_system, Inodes& inodes);
  Keep KeepOf(const Choice& choice) const ADDCOW_REQUIRES(mutex_);

  Hook hook_;
  const std::unique_ptr<FakeFileSystem> live_;

  mutable Mutex mutex_;
  const std::unique_ptr<FakeFileSystem> durable_;    // names and the files that have one
  Inodes durable_inodes_ ADDCOW_GUARDED_BY(mutex_);  // all files
  std::vector<Entry> log_ ADDCOW_GUARDED_BY(mutex_);
  uint64_t retired_ ADDCOW_GUARDED_BY(mutex_) = 0;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_CRASH_DISK_H
