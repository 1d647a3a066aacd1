// SPDX-License-Identifier: LGPL-2.1-or-later
//
// nbdkit-addcow-plugin: the callbacks that nbdkit calls, each handing over to
// the engine (common/image) or to what the server is made of (server.h). They are spelt as
// in C so that the boundary is visible.
//
// A handle only remembers whether its connection may write.

#include "config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <optional>
#include <span>
#include <thread>

#include "common/base/ticks.h"
#include "common/control/request_statistics.h"
#include "common/image/image.h"
#include "common/source/qemu_server.h"
#include "plugin/boundary.h"
#include "plugin/nbdkit_api.h"
#include "plugin/options.h"
#include "plugin/server.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

extern "C" {
// Set by nbdkit -D addcow.extents=1 and -D addcow.flush=1 (with -v).
NBDKIT_DLL_PUBLIC int addcow_debug_extents;
NBDKIT_DLL_PUBLIC int addcow_debug_flush;
}

namespace addcow {
namespace {

// What a connection's handle points to.
struct Connection {
  bool readonly;
};
Connection readonly_connection{true};
Connection writable_connection{false};

// Runs the body of a request's callback, and counts that. To say that a fast zero would not
// be fast is to do what was asked for.
template <typename Body>
int Request(RequestKind kind, uint64_t bytes, Body body,
            Unsupported unsupported = Unsupported::kIsAFailure) {
  const ClientLoad::Request under_way(server.client_load);
  const uint64_t start = Ticks();
  const int result = AtBoundary(body, unsupported);
  const uint64_t ticks = TicksSince(start);
  if (result == 0) [[likely]]
    server.requests.Done(kind, bytes, ticks);
  else if (errno == EOPNOTSUPP)
    server.requests.Done(kind, 0, ticks);
  else
    server.requests.Failed(kind, ticks);
  return result;
}

Fua FuaOf(uint32_t flags) { return (flags & NBDKIT_FLAG_FUA) != 0 ? Fua::kYes : Fua::kNo; }

// The answer to NBD's base:allocation, see docs/architecture.md.
uint32_t ExtentType(const Extent& extent) {
  if (server.options.layer == Layer::kTop && extent.source != Extent::Source::kImage)
    return NBDKIT_EXTENT_HOLE;
  return extent.data ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
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
      "subclusters sync-interval timeout allow copy-on-read fetch-size control "
      "fill fill-rate fill-delay fill-exit\n");
  printf("addcow_layers=all top\n");
  printf("addcow_fill_modes=off touched all\n");
  printf("addcow_capabilities=write flush fua trim zero fast_zero extents cache multi_conn\n");
}

int addcow_config(const char* key, const char* value) {
  return AtBoundary([&] { return SetOption(server.options, key, value); });
}

int addcow_config_complete() {
  return AtBoundary([] { return CompleteOptions(server.options); });
}

int addcow_get_ready() { return AtBoundary(GetReady); }

int addcow_after_fork() { return AtBoundary(AfterFork); }

// nbdkit 1.42 and later send the last error of a thread to a client that it
// refuses something. With -s the thread that started the server serves, too.
int addcow_preconnect(int) {
  if (server.noted_by == std::this_thread::get_id())
    nbdkit_error("a client connects; what was logged before is not for it");
  return 0;
}

void* addcow_open(int readonly) {
  if (AtBoundary([readonly] { return Opened(readonly != 0); }) == 0)
    return readonly ? &readonly_connection : &writable_connection;
  // This is what the client is told, see addcow_preconnect.
  const int code = errno;
  nbdkit_error("the disk cannot be opened for writing, the log of the server says why");
  errno = code;
  return nullptr;
}

void addcow_close(void*) {
  (void)AtBoundary([]() -> Status {
    Closed();
    return {};
  });
}

int64_t addcow_get_size(void*) { return static_cast<int64_t>(server.image->virtual_size()); }

int addcow_block_size(void*, uint32_t* minimum, uint32_t* preferred, uint32_t* maximum) {
  *minimum = 1;
  *preferred = static_cast<uint32_t>(kSubclusterSize);
  *maximum = 0xffffffff;
  return 0;
}

const char* addcow_export_description(void*) { return Description(); }

int addcow_can_write(void*) { return server.image->writable(); }
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
    return server.fetch != nullptr ? server.fetch->fetch().Read(bytes, offset)
                                   : server.image->Read(bytes, offset);
  });
}

int addcow_pwrite(void*, const void* buffer, uint32_t count, uint64_t offset, uint32_t flags) {
  return Request(RequestKind::kWrite, count, [&] {
    return server.image->Write({static_cast<const std::byte*>(buffer), count}, offset,
                               FuaOf(flags));
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
                 static_cast<unsigned long long>(server.image->bitmap().allocated()),
                 static_cast<unsigned long long>(server.image->bitmap().clusters()));
  return Request(RequestKind::kFlush, 0, [whom] { return server.image->Flush(whom); });
}

int addcow_zero(void*, uint32_t count, uint64_t offset, uint32_t flags) {
  const ZeroOptions how{.may_punch = (flags & NBDKIT_FLAG_MAY_TRIM) != 0,
                        .fast_only = (flags & NBDKIT_FLAG_FAST_ZERO) != 0};
  return Request(
      RequestKind::kZero, count,
      [&] { return server.image->Zero(offset, count, how, FuaOf(flags)); },
      how.fast_only ? Unsupported::kIsAnAnswer : Unsupported::kIsAFailure);
}

int addcow_trim(void*, uint32_t count, uint64_t offset, uint32_t flags) {
  return Request(RequestKind::kTrim, count, [&] {
    return server.image->Zero(offset, count, ZeroOptions{}, FuaOf(flags));
  });
}

int addcow_cache(void*, uint32_t count, uint64_t offset, uint32_t) {
  return Request(RequestKind::kCache, count, [&] {
    return server.fetch != nullptr ? server.fetch->fetch().Prefetch(offset, count)
                                   : server.image->Prefetch(offset, count);
  });
}

int addcow_extents(void*, uint32_t count, uint64_t offset, uint32_t flags,
                   nbdkit_extents* extents) {
  const bool one = (flags & NBDKIT_FLAG_REQ_ONE) != 0;
  return Request(RequestKind::kExtents, count, [&]() -> Status {
    std::optional<uint32_t> first_type;
    bool failed = false;
    ADDCOW_TRY(server.image->Map(offset, count, [&](const Extent& extent) {
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

void addcow_cleanup() {
  (void)AtBoundary([]() -> Status {
    Cleanup();
    return {};
  });
}

void addcow_unload() { Unload(); }

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
  plugin.close = addcow_close;
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
