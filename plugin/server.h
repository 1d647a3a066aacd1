// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The server's life: what it is made of, in which order that is started and ended, and what
// the control socket may ask of it. plugin.cc has the callbacks.
//
// One Image serves all connections. Files are opened and checked in GetReady, the last
// place where an error still reaches the user's terminal.

#ifndef ADDCOW_PLUGIN_SERVER_H
#define ADDCOW_PLUGIN_SERVER_H

#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/control/request_statistics.h"
#include "common/image/image.h"
#include "common/jobs/client_load.h"
#include "common/jobs/fetch_threads.h"
#include "plugin/options.h"

namespace addcow {

struct Server {
  // Written before the server's threads are there (config, GetReady) and after
  // they have gone (Cleanup, Unload); constant in between.
  Options options;
  // Owned. Not by an object that exit() destroys: the parent of a server that goes into the
  // background ends so, and would say goodbye to a base's server for it.
  Image* image = nullptr;

  // Copy-on-read, or null. Constant between AfterFork and Cleanup. It is for all
  // connections: what it keeps changes nothing that any of them reads.
  std::unique_ptr<FetchThreads> fetch;

  // Of all connections; internally synchronised.
  RequestStatistics requests;
  ClientLoad client_load;

  // The thread that started the server, if it has logged an error that did not
  // keep it from starting.
  std::optional<std::thread::id> noted_by;
};
extern Server server;

void Log(LogLevel level, const std::string& message);

Status GetReady();
// The last place where a failure ends the server, and threads stay.
Status AfterFork();
// All connections are closed: writes out what no client has flushed.
void Cleanup();
void Unload();

// A client has come, or gone. A failure: the server cannot keep what it promises.
Status Opened(bool readonly);
void Closed();

// For clients, who are not to learn where on this host the files are.
const char* Description();

}  // namespace addcow

#endif  // ADDCOW_PLUGIN_SERVER_H
