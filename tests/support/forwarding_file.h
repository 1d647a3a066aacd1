// SPDX-License-Identifier: LGPL-2.1-or-later
//
// ForwardingFile and ForwardingFileSystem pass every call on to another file
// or file system, and tell an Interceptor before and after. What is passed on
// are File's raw private functions, one for each system call: what an
// interceptor injects (EINTR, a short transfer) meets the same public
// functions of File that production code uses.
//
// Interceptors: FaultPlan (fault_file.h), Gate (gated_file.h) and
// OperationLog (operation_log.h). For more than one, stack file systems.

#ifndef ADDCOW_TESTS_SUPPORT_FORWARDING_FILE_H
#define ADDCOW_TESTS_SUPPORT_FORWARDING_FILE_H

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "common/io/file_system.h"
#include "tests/support/operation.h"

namespace addcow {

// What becomes of an operation. Both: a read or write is done for `transfer`
// bytes and then fails all the same, as a device does that breaks half way.
struct Verdict {
  int error = 0;                     // fails with this errno
  std::optional<uint64_t> transfer;  // reads and writes no more bytes than that
};

// Called from the thread that does the operation; may block it.
class Interceptor {
 public:
  virtual ~Interceptor() = default;
  virtual Verdict Before(const Operation&) { return {}; }
  // `error` is the errno that the caller gets, 0 for success.
  virtual void After(const Operation&, int /*error*/) {}
};

class ForwardingFile final : public File {
 public:
  // `interceptor` must outlive the file.
  ForwardingFile(std::unique_ptr<File> inner, Interceptor& interceptor)
      : File(inner->name()), inner_(std::move(inner)), interceptor_(interceptor) {}

 private:
  SysResult<size_t> DoRead(std::span<std::byte> buffer, uint64_t offset) override;
  SysResult<size_t> DoWrite(std::span<const std::byte> data, uint64_t offset) override;
  SysResult<size_t> DoWriteDurably(std::span<const std::byte> data, uint64_t offset) override;
  SysResult<void> DoCloneFrom(const File& source, uint64_t offset, uint64_t length) override;
  SysResult<void> DoPunchHole(uint64_t offset, uint64_t length) override;
  SysResult<void> DoZeroRange(uint64_t offset, uint64_t length) override;
  SysResult<void> DoReserve(uint64_t offset, uint64_t length) override;
  SysResult<StorageRun> DoStorageAt(uint64_t offset, uint64_t length) override;
  SysResult<void> DoSyncData() override;
  SysResult<void> DoSync() override;
  SysResult<uint64_t> DoSize() override;
  SysResult<void> DoTruncate(uint64_t size) override;
  SysResult<uint64_t> DoSeekData(uint64_t offset) override;
  SysResult<uint64_t> DoSeekHole(uint64_t offset) override;
  SysResult<void> DoStartWriteback(uint64_t offset, uint64_t length) override;
  SysResult<void> DoPrefetch(uint64_t offset, uint64_t length) override;
  SysResult<FileInfo> DoInfo() override;
  SysResult<Attributes> DoAttributes() override;
  SysResult<std::unique_ptr<File>> DoReopen() override;
  SysResult<void> DoLock(LockKind kind) override;
  SysResult<FileUse> DoUseByOthers() override;

  const File& Innermost() const override { return inner_->Innermost(); }

  // Runs `call` between the interceptor's Before and After.
  template <typename Call>
  auto Pass(const Operation& operation, Call call) -> decltype(call(Verdict()));

  const std::unique_ptr<File> inner_;
  Interceptor& interceptor_;
};

class ForwardingFileSystem final : public FileSystem {
 public:
  // Both must outlive this object and the files opened here.
  ForwardingFileSystem(FileSystem& inner, Interceptor& interceptor)
      : inner_(inner), interceptor_(interceptor) {}

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

 private:
  template <typename Call>
  auto Pass(const Operation& operation, Call call) -> decltype(call());
  Result<std::unique_ptr<File>> Wrap(Result<std::unique_ptr<File>> file);

  FileSystem& inner_;
  Interceptor& interceptor_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SUPPORT_FORWARDING_FILE_H
