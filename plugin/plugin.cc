// SPDX-License-Identifier: LGPL-2.1-or-later
//
// nbdkit-addcow-plugin: the callbacks that nbdkit calls, each handing over to
// the engine (common/image). They are spelt as in C so that the boundary is
// visible.
//
// One Image serves all connections; a handle only remembers whether its
// connection may write. Files are opened and checked in get_ready, the last
// place where an error still reaches the user's terminal.

#include "config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/ticks.h"
#include "common/control/request_statistics.h"
#include "common/image/background_flush.h"
#include "common/image/image.h"
#include "common/jobs/fetch_threads.h"
#include "common/source/nbd_uri.h"
#include "common/source/qemu_server.h"
#include "plugin/boundary.h"
#include "plugin/control.h"
#include "plugin/nbdkit_api.h"
#include "plugin/options.h"
#include "plugin/server_arguments.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

extern "C" {
// Set by nbdkit -D addcow.extents=1 and -D addcow.flush=1 (with -v).
NBDKIT_DLL_PUBLIC int addcow_debug_extents;
NBDKIT_DLL_PUBLIC int addcow_debug_flush;
}

namespace addcow {
namespace {

// Written before the server's threads are there (config, get_ready) and after
// they have gone (cleanup, unload); constant in between.
Options options;
// Owned. Not by an object that exit() destroys: the parent of a server that goes into the
// background ends so, and would say goodbye to a base's server for it.
Image* image = nullptr;
std::string description;

// Copy-on-read, or null. Constant between after_fork and cleanup. It is for all
// connections: what it keeps changes nothing that any of them reads.
std::unique_ptr<FetchThreads> fetch;

// Brings bits to the file between flushes. Started by the first connection
// that sets some, so never before the server has forked (get_ready is), and
// not at all in a server that only reads: -r is not known earlier. Stopped in
// cleanup.
Mutex background_flush_mutex;
std::unique_ptr<BackgroundFlush> background_flush ADDCOW_GUARDED_BY(background_flush_mutex);

// Of all connections.
constinit RequestStatistics requests;

// What a connection's handle points to.
struct Connection {
  bool readonly;
};
Connection readonly_connection{true};
Connection writable_connection{false};

// The thread that started the server, if it has logged an error that did not
// keep it from starting.
std::optional<std::thread::id> noted_by;
bool starting = false;

void Log(LogLevel level, const std::string& message) {
  if (level == LogLevel::kError) {
    nbdkit_error("%s", message.c_str());
    if (starting) noted_by = std::this_thread::get_id();
  } else if (level == LogLevel::kNote) {
    nbdkit_error("note: %s", message.c_str());  // nbdkit has no other word for the log
    if (starting) noted_by = std::this_thread::get_id();
  } else {
    nbdkit_debug("%s", message.c_str());
  }
}

// Runs the body of a request's callback, and counts that. To say that a fast zero would not
// be fast is to do what was asked for.
template <typename Body>
int Request(RequestKind kind, uint64_t bytes, Body body,
            Unsupported unsupported = Unsupported::kIsAFailure) {
  const uint64_t start = Ticks();
  const int result = AtBoundary(body, unsupported);
  const uint64_t ticks = TicksSince(start);
  if (result == 0) [[likely]]
    requests.Done(kind, bytes, ticks);
  else if (errno == EOPNOTSUPP)
    requests.Done(kind, 0, ticks);
  else
    requests.Failed(kind, ticks);
  return result;
}

Fua FuaOf(uint32_t flags) { return (flags & NBDKIT_FLAG_FUA) != 0 ? Fua::kYes : Fua::kNo; }

// The answer to NBD's base:allocation, see docs/architecture.md.
uint32_t ExtentType(const Extent& extent) {
  if (options.layer == Layer::kTop && extent.source != Extent::Source::kImage)
    return NBDKIT_EXTENT_HOLE;
  return extent.data ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
}

std::string BackingForClients(const std::string& path) {
  return IsNbdUri(path) ? "from a server" : NameForClients(path);
}

// For clients, who are not to learn where on this host the files are.
void Describe() {
  const ImageFiles& files = image->files();
  description = fmt::format("add-cow {}, image {}", NameForClients(files.add_cow_path),
                            NameForClients(files.image_path));
  if (files.backing) description += ", backing " + BackingForClients(files.backing_path);
  if (image->bitmap().all()) description += ", all allocated";
  nbdkit_debug("add-cow file %s, image file %s, backing file %s", files.add_cow_path.c_str(),
               files.image_path.c_str(), files.backing ? files.backing_path.c_str() : "(none)");
}

void addcow_dump_plugin() {
  const auto size = [](const char* key, uint64_t bytes) {
    printf("%s=%llu\n", key, static_cast<unsigned long long>(bytes));
  };
  printf("addcow_revisions=1 20\n");
  size("addcow_cluster_size_min", kLeastClusterSize);
  size("addcow_cluster_size_max", kMostClusterSize);
  size("addcow_subcluster_size", kSubclusterSize);
  printf("addcow_backing_formats=raw add-cow %s\n",
         fmt::format("{}", fmt::join(QemuFormats(), " ")).c_str());
  printf("addcow_backing_uris=nbd nbds nbd+unix nbds+unix\n");
  printf(
      "addcow_parameters=file image backing layer readonly lock confine identity reflink "
      "subclusters sync-interval timeout allow copy-on-read fetch-size control\n");
  printf("addcow_layers=all top\n");
  printf("addcow_capabilities=write flush fua trim zero fast_zero extents cache multi_conn\n");
}

int addcow_config(const char* key, const char* value) {
  return AtBoundary([&] { return SetOption(options, key, value); });
}

int addcow_config_complete() {
  return AtBoundary([] { return CompleteOptions(options); });
}

int addcow_get_ready() {
  // A write past the limit of file sizes is to fail with EFBIG, which is an answer
  // to a client, and not to end the server.
  (void)std::signal(SIGXFSZ, SIG_IGN);
  return AtBoundary([]() -> Status {
    if (HasReadOnlyOption(OwnArguments())) options.source.mode = OpenMode::kReadOnly;
    starting = true;
    ADDCOW_TRY_ASSIGN(auto opened, Image::Open(PosixFileSystem(), options.source, Log));
    image = opened.release();
    if (options.copy_on_read && !image->writable())
      Log(LogLevel::kNote,
          "copy-on-read=on: the disk is read only, so what is read is not kept");
    if (options.control) ADDCOW_TRY(MakeControlSocket(*options.control));
    starting = false;
    Describe();
    return {};
  });
}

// A fill of this server, as it is now, and what it is asked for by the control socket.
FillStatus FillNow() { return {}; }
Status AskFill(const FillCommand&) {
  return Fail(Error::Because(EOPNOTSUPP, options.source.add_cow_path,
                             "this server cannot fill it (stop it, and use addcow flatten)"));
}

// What the control socket asks of this server; called between after_fork and cleanup.
ControlHandlers Handlers() {
  const auto start = std::chrono::steady_clock::now();
  const auto status = [start] {
    const std::chrono::duration<double> uptime = std::chrono::steady_clock::now() - start;
    return ServerStatus{.version = PACKAGE_VERSION,
                        .add_cow = options.source.add_cow_path,
                        .uptime = uptime.count(),
                        .size = image->virtual_size(),
                        .writable = image->writable(),
                        .requests = requests.Read(),
                        .image = image->Counts(),
                        .copy_on_read = fetch != nullptr,
                        .fetch = fetch != nullptr ? fetch->fetch().counts() : FetchCounts(),
                        .fill = FillNow()};
  };
  return {.status = status, .fill = AskFill, .flush = [] { return image->Flush(); }};
}

// The last place where a failure ends the server, and threads stay.
int addcow_after_fork() {
  return AtBoundary([]() -> Status {
    CalibrateTicks();
    ADDCOW_TRY(image->Start());
    if (options.copy_on_read && image->writable() && image->files().backing != nullptr) {
      ADDCOW_TRY_ASSIGN(fetch, FetchThreads::Start(*image, {.size = options.fetch_size}, Log));
    }
    return StartControl(Handlers());
  });
}

Status StartBackgroundFlush() {
  if (options.sync_interval.count() == 0 || !image->writable()) return {};
  MutexLock lock(background_flush_mutex);
  if (background_flush != nullptr) return {};
  ADDCOW_TRY_ASSIGN(background_flush,
                    BackgroundFlush::Start(*image, options.sync_interval, Log));
  return {};
}

void StopBackgroundFlush() {
  MutexLock lock(background_flush_mutex);
  background_flush.reset();
}

// nbdkit 1.42 and later send the last error of a thread to a client that it
// refuses something. With -s the thread that started the server serves, too.
int addcow_preconnect(int) {
  if (noted_by == std::this_thread::get_id())
    nbdkit_error("a client connects; what was logged before is not for it");
  return 0;
}

void* addcow_open(int readonly) {
  const bool sets_bits = !readonly || fetch != nullptr;
  // Without it the server would promise what it does not keep.
  if (!sets_bits || AtBoundary(StartBackgroundFlush) == 0)
    return readonly ? &readonly_connection : &writable_connection;
  // This is what the client is told, see addcow_preconnect.
  const int code = errno;
  nbdkit_error("the disk cannot be opened for writing, the log of the server says why");
  errno = code;
  return nullptr;
}

int64_t addcow_get_size(void*) { return static_cast<int64_t>(image->virtual_size()); }

int addcow_block_size(void*, uint32_t* minimum, uint32_t* preferred, uint32_t* maximum) {
  *minimum = 1;
  *preferred = static_cast<uint32_t>(kSubclusterSize);
  *maximum = 0xffffffff;
  return 0;
}

const char* addcow_export_description(void*) { return description.c_str(); }

int addcow_can_write(void*) { return image->writable(); }
int addcow_can_flush(void*) { return 1; }
int addcow_can_trim(void*) { return 1; }
int addcow_can_zero(void*) { return 1; }
int addcow_can_fast_zero(void*) { return 1; }
int addcow_can_extents(void*) { return 1; }
int addcow_can_fua(void*) { return NBDKIT_FUA_NATIVE; }
int addcow_can_cache(void*) { return NBDKIT_CACHE_NATIVE; }
// A flush on one connection covers the completed writes of all.
int addcow_can_multi_conn(void*) { return 1; }

int addcow_pread(void*, void* buffer, uint32_t count, uint64_t offset, uint32_t) {
  const std::span bytes(static_cast<std::byte*>(buffer), count);
  return Request(RequestKind::kRead, count, [&] {
    return fetch != nullptr ? fetch->fetch().Read(bytes, offset) : image->Read(bytes, offset);
  });
}

int addcow_pwrite(void*, const void* buffer, uint32_t count, uint64_t offset, uint32_t flags) {
  return Request(RequestKind::kWrite, count, [&] {
    return image->Write({static_cast<const std::byte*>(buffer), count}, offset, FuaOf(flags));
  });
}

int addcow_flush(void* handle, uint32_t) {
  // A client that may not write must not make us set ALL_ALLOCATED. But what it
  // is told must be true: nbdkit's retry filter can open a read-only connection
  // to ask again after a flush that failed.
  const FlushFor whom =
      static_cast<const Connection*>(handle)->readonly ? FlushFor::kReader : FlushFor::kWriter;
  if (addcow_debug_flush)
    nbdkit_debug("flush: %llu of %llu clusters allocated",
                 static_cast<unsigned long long>(image->bitmap().allocated()),
                 static_cast<unsigned long long>(image->bitmap().clusters()));
  return Request(RequestKind::kFlush, 0, [whom] { return image->Flush(whom); });
}

int addcow_zero(void*, uint32_t count, uint64_t offset, uint32_t flags) {
  const ZeroOptions how{.may_punch = (flags & NBDKIT_FLAG_MAY_TRIM) != 0,
                        .fast_only = (flags & NBDKIT_FLAG_FAST_ZERO) != 0};
  return Request(
      RequestKind::kZero, count, [&] { return image->Zero(offset, count, how, FuaOf(flags)); },
      how.fast_only ? Unsupported::kIsAnAnswer : Unsupported::kIsAFailure);
}

int addcow_trim(void*, uint32_t count, uint64_t offset, uint32_t flags) {
  return Request(RequestKind::kTrim, count,
                 [&] { return image->Zero(offset, count, ZeroOptions{}, FuaOf(flags)); });
}

int addcow_cache(void*, uint32_t count, uint64_t offset, uint32_t) {
  return Request(RequestKind::kCache, count, [&] {
    return fetch != nullptr ? fetch->fetch().Prefetch(offset, count)
                            : image->Prefetch(offset, count);
  });
}

int addcow_extents(void*, uint32_t count, uint64_t offset, uint32_t flags,
                   nbdkit_extents* extents) {
  const bool one = (flags & NBDKIT_FLAG_REQ_ONE) != 0;
  return Request(RequestKind::kExtents, count, [&]() -> Status {
    std::optional<uint32_t> first_type;
    bool failed = false;
    ADDCOW_TRY(image->Map(offset, count, [&](const Extent& extent) {
      const uint32_t type = ExtentType(extent);
      if (addcow_debug_extents)
        nbdkit_debug("extent: offset=%llu length=%llu type=%u",
                     static_cast<unsigned long long>(extent.offset),
                     static_cast<unsigned long long>(extent.length), type);
      // Extents that differ only in their source are one to the client.
      if (one && first_type && *first_type != type) return false;
      first_type = type;
      failed = nbdkit_add_extent(extents, extent.offset, extent.length, type) == -1;
      return !failed;
    }));
    if (failed) return Fail(Error::System(errno, "nbdkit_add_extent", ""));
    return {};
  });
}

// The clean stop could not write everything. Whoever waits for nbdkit learns it
// from the log only.
void LogLoss(const Error& cause) {
  const uint64_t bytes = image->unpublished_bytes();
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

// All connections are closed: write out what no client has flushed.
void addcow_cleanup() {
  StopControl();
  fetch.reset();
  StopBackgroundFlush();  // Close wants to be alone
  if (image == nullptr) return;
  (void)AtBoundary([]() -> Status {
    if (const Status closed = image->Close(); !closed) LogLoss(closed.error());
    return {};
  });
}

void addcow_unload() {
  RemoveControlSocket();
  delete std::exchange(image, nullptr);
}

nbdkit_plugin Plugin() {
  nbdkit_plugin plugin = {};
  plugin.name = "addcow";
  plugin.longname = "addcow";
  plugin.version = PACKAGE_VERSION;
  plugin.description = "serve a raw disk image with a backing file and copy-on-write (add-cow)";
  plugin.config_help = kOptionsHelp;
  plugin.magic_config_key = "file";
  plugin.errno_is_preserved = 1;
  plugin.dump_plugin = addcow_dump_plugin;
  plugin.config = addcow_config;
  plugin.config_complete = addcow_config_complete;
  plugin.get_ready = addcow_get_ready;
  plugin.after_fork = addcow_after_fork;
  plugin.cleanup = addcow_cleanup;
  plugin.unload = addcow_unload;
  plugin.preconnect = addcow_preconnect;
  plugin.open = addcow_open;
  plugin.get_size = addcow_get_size;
  plugin.block_size = addcow_block_size;
  plugin.export_description = addcow_export_description;
  plugin.can_write = addcow_can_write;
  plugin.can_flush = addcow_can_flush;
  plugin.can_trim = addcow_can_trim;
  plugin.can_zero = addcow_can_zero;
  plugin.can_fast_zero = addcow_can_fast_zero;
  plugin.can_extents = addcow_can_extents;
  plugin.can_fua = addcow_can_fua;
  plugin.can_cache = addcow_can_cache;
  plugin.can_multi_conn = addcow_can_multi_conn;
  plugin.pread = addcow_pread;
  plugin.pwrite = addcow_pwrite;
  plugin.flush = addcow_flush;
  plugin.zero = addcow_zero;
  plugin.trim = addcow_trim;
  plugin.cache = addcow_cache;
  plugin.extents = addcow_extents;
  return plugin;
}

nbdkit_plugin plugin = Plugin();

}  // namespace
}  // namespace addcow

NBDKIT_REGISTER_PLUGIN(addcow::plugin)
