// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See server.h.

#include "plugin/server.h"

#include "config.h"

#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/ticks.h"
#include "common/jobs/background_flush.h"
#include "common/source/nbd_uri.h"
#include "plugin/boundary.h"
#include "plugin/control.h"
#include "plugin/nbdkit_api.h"
#include "plugin/server_arguments.h"
#include "plugin/server_fill.h"

namespace addcow {

Server server;

namespace {

std::string description;
std::string description_alone;  // when the backing file was let go

// Copies up the rest; null where the disk is read only. Constant between AfterFork and
// Cleanup.
std::unique_ptr<ServerFill> server_fill;

// Brings bits to the file between flushes. Started by the first who sets some, so never
// before the server has forked, and not at all in a server that only reads: -r is not known
// earlier. Stopped in Cleanup.
Mutex background_flush_mutex;
std::unique_ptr<BackgroundFlush> background_flush ADDCOW_GUARDED_BY(background_flush_mutex);

bool starting = false;

std::string BackingForClients(const std::string& path) {
  return IsNbdUri(path) ? "from a server" : NameForClients(path);
}

void Describe() {
  const ImageFiles& files = server.image->files();
  description = fmt::format("add-cow {}, image {}", NameForClients(files.add_cow_path),
                            NameForClients(files.image_path));
  description_alone = description + ", all allocated";
  if (server.image->backing().there())
    description += ", backing " + BackingForClients(files.backing_path);
  if (server.image->bitmap().all()) description += ", all allocated";
  nbdkit_debug("add-cow file %s, image file %s, backing file %s", files.add_cow_path.c_str(),
               files.image_path.c_str(),
               server.image->backing().there() ? files.backing_path.c_str() : "(none)");
}

Status StartBackgroundFlush() {
  if (server.options.sync_interval.count() == 0 || !server.image->writable()) return {};
  MutexLock lock(background_flush_mutex);
  if (background_flush != nullptr) return {};
  ADDCOW_TRY_ASSIGN(background_flush,
                    BackgroundFlush::Start(*server.image, server.options.sync_interval, Log));
  return {};
}

void StopBackgroundFlush() {
  MutexLock lock(background_flush_mutex);
  background_flush.reset();
}

Status StartFill() {
  const std::function<void()> exit = server.options.fill_exit ? nbdkit_shutdown : nullptr;
  server_fill = std::make_unique<ServerFill>(
      *server.image, server.client_load,
      ServerFill::Options{.rate = server.options.fill_rate, .exit = exit}, Log);
  if (server.options.fill == FillMode::kOff) return {};
  // What it copies is to be found by the next server, if no client flushes.
  ADDCOW_TRY(StartBackgroundFlush());
  return server_fill->Start(server.options.fill, server.options.fill_delay);
}

// What the control socket asks of the fill.
Status AskFill(const FillCommand& command) {
  if (server_fill == nullptr)
    return Fail(Error::Because(EROFS, server.options.source.add_cow_path,
                               "the disk is read only, so nothing is filled"));
  Fill& fill = server_fill->fill();
  if (command.action == FillCommand::Action::kPause) return fill.Pause();
  // Where there is no fill to resume, nothing is changed.
  if (command.action == FillCommand::Action::kResume) ADDCOW_TRY(fill.Resume());
  if (command.action == FillCommand::Action::kStart) {
    // A start that is refused changes no rate either.
    ADDCOW_TRY(StartBackgroundFlush());
    return server_fill->Start(command.mode, {}, command.rate);
  }
  if (command.rate) fill.SetRate(*command.rate);
  return {};
}

// What the control socket asks of this server; called between AfterFork and Cleanup.
ControlHandlers Handlers() {
  const auto start = std::chrono::steady_clock::now();
  const auto status = [start] {
    const std::chrono::duration<double> uptime = std::chrono::steady_clock::now() - start;
    return ServerStatus{
        .version = PACKAGE_VERSION,
        .add_cow = server.options.source.add_cow_path,
        .uptime = uptime.count(),
        .size = server.image->virtual_size(),
        .writable = server.image->writable(),
        .requests = server.requests.Read(),
        .image = server.image->Counts(),
        .copy_on_read = server.fetch != nullptr,
        .fetch = server.fetch != nullptr ? server.fetch->fetch().counts() : FetchCounts(),
        .fill = server_fill != nullptr ? server_fill->fill().status() : FillStatus()};
  };
  return {.status = status, .fill = AskFill, .flush = [] { return server.image->Flush(); }};
}

// The clean stop could not write everything. Whoever waits for nbdkit learns it
// from the log only.
void LogLoss(const Error& cause) {
  const uint64_t bytes = server.image->unpublished_bytes();
  std::string lost = "what was written since the last flush may be lost";
  if (bytes > 0)
    lost = fmt::format(
        "what was written to up to {} bytes of the disk since the last flush is lost, and "
        "what was written elsewhere since then may be",
        bytes);
  Log(LogLevel::kError,
      cause
          .WithNote(fmt::format(
              "the server stops all the same: {}; nbdkit's exit status does not show it", lost))
          .Message());
}

}  // namespace

void Log(LogLevel level, const std::string& message) {
  if (level == LogLevel::kError) {
    nbdkit_error("%s", message.c_str());
    if (starting) server.noted_by = std::this_thread::get_id();
  } else if (level == LogLevel::kNote) {
    nbdkit_error("note: %s", message.c_str());  // nbdkit has no other word for the log
    if (starting) server.noted_by = std::this_thread::get_id();
  } else {
    nbdkit_debug("%s", message.c_str());
  }
}

Status GetReady() {
  // A write past the limit of file sizes is to fail with EFBIG, which is an answer
  // to a client, and not to end the server.
  (void)std::signal(SIGXFSZ, SIG_IGN);
  if (HasReadOnlyOption(OwnArguments())) server.options.source.mode = OpenMode::kReadOnly;
  starting = true;
  ADDCOW_TRY_ASSIGN(auto opened, Image::Open(PosixFileSystem(), server.options.source, Log));
  server.image = opened.release();
  if (server.options.fill_exit && !server.image->writable())
    return Fail(Error::Because(
        EROFS, server.options.source.add_cow_path,
        "the disk is read only, so nothing is filled, and fill-exit=on would never end nbdkit "
        "(serve it writable, or leave out fill-exit=on)"));
  if (server.options.copy_on_read && !server.image->writable())
    Log(LogLevel::kNote, "copy-on-read=on: the disk is read only, so what is read is not kept");
  if (server.options.fill != FillMode::kOff && !server.image->writable())
    Log(LogLevel::kNote, "fill=: the disk is read only, so nothing is filled");
  if (server.options.control) ADDCOW_TRY(MakeControlSocket(*server.options.control));
  starting = false;
  Describe();
  return {};
}

Status AfterFork() {
  CalibrateTicks();
  ADDCOW_TRY(server.image->Start());
  if (server.image->writable()) {
    if (server.options.copy_on_read && server.image->backing().there()) {
      ADDCOW_TRY_ASSIGN(
          server.fetch,
          FetchThreads::Start(*server.image, {.size = server.options.fetch_size}, Log));
    }
    ADDCOW_TRY(StartFill());
  }
  return StartControl(Handlers());
}

Status Opened(bool readonly) {
  if (!readonly || server.fetch != nullptr) ADDCOW_TRY(StartBackgroundFlush());
  if (server_fill != nullptr) server_fill->Connected();
  return {};
}

void Closed() {
  if (server_fill != nullptr) server_fill->Disconnected();
}

const char* Description() {
  const bool alone = server.image->backing().size() > 0 && !server.image->backing().there();
  return (alone ? description_alone : description).c_str();
}

void Cleanup() {
  StopControl();
  server_fill.reset();
  server.fetch.reset();
  StopBackgroundFlush();  // Close wants to be alone
  if (server.image == nullptr) return;
  if (const Status closed = server.image->Close(); !closed) LogLoss(closed.error());
}

void Unload() {
  RemoveControlSocket();
  delete std::exchange(server.image, nullptr);
}

}  // namespace addcow
