// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Runs another program, with what it says in a file. It is killed when the
// object goes, or this process ends in any way, and it has not ended by then.

#ifndef ADDCOW_TESTS_REPLAY_PROGRAM_H
#define ADDCOW_TESTS_REPLAY_PROGRAM_H

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace addcow {

class Program {
 public:
  // Standard output and error go to `output`. A program that is not there ends
  // with status 127.
  Program(std::vector<std::string> words, std::string output);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Waits for the end. The exit status, or minus the signal that ended it.
  int Wait();
  bool HasEnded();
  void Kill();

  std::string Output() const;

 private:
  const std::string output_;
  pid_t pid_ = -1;   // of a program that has not been waited for
  int status_ = -1;  // else
};

// fio with random writes of 512 bytes to 64 KiB to the bytes from `start` on
// of the disk behind `socket`, flushes between them, and reads that verify
// what was written. Offsets and sizes are multiples of 512, and writes that are
// in flight together do not overlap.
std::vector<std::string> FioWords(const std::string& socket, uint64_t start, uint64_t size,
                                  uint64_t seed, const std::vector<std::string>& more);

// Whether there is a fio here that can do that.
bool HaveFio();

// Exit status of "addcow check" of the file; what it says goes to `output`.
int RunCheck(const std::string& add_cow_path, const std::string& output);

// The whole disk through a read-only nbdkit with the real plugin, on a Unix
// socket. Empty where it cannot be served: the reason is printed, and whether that is wrong is
// for who knows what the disk should have.
std::vector<std::byte> ReadThroughServer(const std::string& add_cow_path);

}  // namespace addcow

#endif  // ADDCOW_TESTS_REPLAY_PROGRAM_H
