// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A real NBD server for a base, on a Unix socket in a scratch directory. It is ended with
// the object.

#ifndef ADDCOW_TESTS_SOURCE_BASE_SERVER_H
#define ADDCOW_TESTS_SOURCE_BASE_SERVER_H

#include <sys/types.h>

#include <string>
#include <vector>

namespace addcow {

class BaseServer {
 public:
  explicit BaseServer(std::string directory) : directory_(std::move(directory)) {}
  ~BaseServer();
  BaseServer(const BaseServer&) = delete;
  BaseServer& operator=(const BaseServer&) = delete;

  std::string socket() const { return directory_ + "/base.sock"; }
  std::string uri() const { return "nbd+unix:///?socket=" + socket(); }

  // nbdkit with these words after its own; waits until it listens.
  void Start(const std::vector<std::string>& words);
  // qemu-nbd for a raw file, which does not mind clients that hang up.
  void StartQemu(const std::string& file);

  // SIGKILL; waits for the end.
  void Kill();
  void Freeze();
  void Thaw();

 private:
  void Spawn(std::vector<std::string> words);

  const std::string directory_;
  pid_t server_ = -1;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SOURCE_BASE_SERVER_H
