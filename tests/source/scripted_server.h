// SPDX-License-Identifier: LGPL-2.1-or-later
//
// An NBD server that does what a test says, right or wrong, on a Unix socket. It knows as
// much of the protocol as that takes: fixed newstyle, structured replies, base:allocation.

#ifndef ADDCOW_TESTS_SOURCE_SCRIPTED_SERVER_H
#define ADDCOW_TESTS_SOURCE_SCRIPTED_SERVER_H

#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/mutex.h"

namespace addcow {

struct ScriptedExport {
  uint64_t size = 1 << 20;
  bool multi_conn = false;
  uint32_t minimum = 0;  // block size; 0: it says nothing of that
  uint32_t maximum = 32 << 20;
};

class ScriptedServer {
 public:
  static constexpr uint16_t kRead = 0;
  static constexpr uint16_t kBlockStatus = 7;

  struct Request {
    uint16_t type = 0;
    uint64_t cookie = 0;
    uint64_t offset = 0;
    uint32_t length = 0;
  };

  // One connection of a client.
  class Client {
   public:
    explicit Client(int fd) : fd_(fd) {}
    // A chunk with data of a read, all bytes the same; `last` ends the reply.
    void Data(const Request& request, uint64_t offset, uint32_t length, char byte, bool last);
    // The reply to a block status: lengths and flags.
    void Blocks(const Request& request, const std::vector<std::pair<uint32_t, uint32_t>>& all);
    // A reply that is an error of the protocol.
    void Error(const Request& request, uint32_t code);
    // A reply that ends without more.
    void End(const Request& request);
    // Answers nothing more, until the client or the server is gone.
    void Hang() const;
    int fd() const { return fd_; }

   private:
    void Chunk(const Request& request, uint16_t type, bool last, const std::string& payload);
    const int fd_;
  };

  // Called for each request, in a thread of the connection. False: it hangs up.
  using Script = std::function<bool(Client&, const Request&)>;

  ScriptedServer(const std::string& path, ScriptedExport what, Script script);
  ~ScriptedServer();
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

 private:
  void Accept();
  void Serve(int fd);
  bool Greet(Client& client);

  const ScriptedExport what_;
  const Script script_;
  int listening_ = -1;
  Mutex mutex_;
  std::vector<int> fds_ ADDCOW_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ADDCOW_GUARDED_BY(mutex_);
  std::thread accepting_;
};

}  // namespace addcow

#endif  // ADDCOW_TESTS_SOURCE_SCRIPTED_SERVER_H
