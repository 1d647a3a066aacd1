# SPDX-License-Identifier: LGPL-2.1-or-later
# The layers base <- io <- format <- source <- image <- jobs (one library) <- ops
# (another: the plugin does not link it). tests/shell/test-layers.sh checks the includes.

noinst_LTLIBRARIES += common/libengine.la

common_libengine_la_LIBADD = $(FMT_LIBS) $(LIBNBD_LIBS)
engine_sources = \
	common/base/counters.h \
	common/base/error.cc common/base/error.h \
	common/base/interrupted.h \
	common/base/file_time.cc common/base/file_time.h \
	common/base/latency.h \
	common/base/little_endian.h \
	common/base/log.h \
	common/base/mutex.h \
	common/base/parse_size.cc common/base/parse_size.h \
	common/base/printable.h \
	common/base/shell_word.cc common/base/shell_word.h \
	common/base/start_thread.h \
	common/base/ticks.cc common/base/ticks.h \
	common/base/unique_fd.h \
	common/base/units.h \
	common/base/xxh3.cc common/base/xxh3.h \
	common/base/zero_bytes.h \
	common/io/attributes.cc common/io/attributes.h \
	common/io/cloner.cc common/io/cloner.h \
	common/io/durable_create.cc common/io/durable_create.h \
	common/io/file.cc common/io/file.h common/io/file_calls.h common/io/file_info.h \
	common/io/file_lock.cc common/io/file_lock.h \
	common/io/file_system.cc common/io/file_system.h \
	common/io/holes.cc common/io/holes.h \
	common/io/posix_attributes.cc common/io/posix_attributes.h \
	common/io/posix_file.cc common/io/posix_file.h \
	common/io/posix_file_system.cc \
	common/io/zeroer.cc common/io/zeroer.h \
	common/format/acow.cc common/format/acow.h \
	common/format/backing_identity.cc common/format/backing_identity.h \
	common/format/header.cc common/format/header.h \
	common/format/header_rules.cc common/format/header_rules.h \
	common/format/layout.h \
	common/format/sample.cc common/format/sample.h \
	common/format/version1.cc common/format/version1.h \
	common/source/file_source.cc common/source/file_source.h \
	common/source/arrivals.h \
	common/source/known_runs.cc common/source/known_runs.h \
	common/source/libnbd_words.h \
	common/source/nbd_command.cc common/source/nbd_command.h \
	common/source/nbd_connection.cc common/source/nbd_connection.h \
	common/source/nbd_pool.cc common/source/nbd_pool.h \
	common/source/nbd_server.h \
	common/source/nbd_source.cc common/source/nbd_source.h \
	common/source/nbd_uri.cc common/source/nbd_uri.h \
	common/source/program.cc common/source/program.h \
	common/source/qemu_chain.cc common/source/qemu_chain.h \
	common/source/qemu_layer.cc common/source/qemu_layer.h \
	common/source/qemu_server.cc common/source/qemu_server.h \
	common/source/qemu_words.cc common/source/qemu_words.h \
	common/source/sample_hash.cc common/source/sample_hash.h \
	common/source/source.h \
	common/image/allocation.cc common/image/allocation.h \
	common/image/allocation_bitmap.cc common/image/allocation_bitmap.h \
	common/image/backing.cc common/image/backing.h \
	common/image/base.cc common/image/base.h \
	common/image/bitmap_storage.cc common/image/bitmap_storage.h \
	common/image/bitmap_store.cc common/image/bitmap_store.h \
	common/image/range_locks.cc common/image/range_locks.h \
	common/image/confine.cc common/image/confine.h \
	common/image/copy_on_write.cc \
	common/image/copy_up.cc common/image/copy_up.h \
	common/image/durability.cc common/image/durability.h \
	common/image/extents.cc \
	common/image/identity.cc common/image/identity.h \
	common/image/image.cc common/image/image.h \
	common/image/image_counts.h \
	common/image/image_files.cc common/image/image_files.h \
	common/image/image_store.cc common/image/image_store.h \
	common/image/raw_file.cc common/image/raw_file.h \
	common/image/size_checks.cc common/image/size_checks.h \
	common/jobs/background_flush.cc common/jobs/background_flush.h \
	common/jobs/fetch.cc common/jobs/fetch.h \
	common/jobs/fetch_threads.cc common/jobs/fetch_threads.h \
	common/jobs/fetch_window.cc common/jobs/fetch_window.h \
	common/jobs/client_load.h \
	common/jobs/fill.cc common/jobs/fill.h common/jobs/fill_status.h \
	common/jobs/fill_pace.cc common/jobs/fill_pace.h \
	common/jobs/fill_threads.cc common/jobs/fill_threads.h

# What is told of a server, and by whom it is asked: of the plugin and the tool.
noinst_LTLIBRARIES += common/libcontrol.la
control_sources = \
	common/control/control_client.cc common/control/control_client.h \
	common/control/control_server.cc common/control/control_server.h \
	common/control/control_session.cc common/control/control_session.h \
	common/control/control_socket.cc common/control/control_socket.h \
	common/control/request_statistics.cc common/control/request_statistics.h \
	common/control/server_status.h \
	common/control/status_json.cc common/control/status_json.h
if UNITY
common_libcontrol_la_SOURCES =
nodist_common_libcontrol_la_SOURCES = unity/control-1of1.cpp
else
common_libcontrol_la_SOURCES = $(control_sources)
endif
unity/control-%.cpp: Makefile
	$(call unity,$(control_sources))

if UNITY
common_libengine_la_SOURCES =
nodist_common_libengine_la_SOURCES = unity/engine-1of2.cpp unity/engine-2of2.cpp
else
common_libengine_la_SOURCES = $(engine_sources)
endif
unity/engine-%.cpp: Makefile
	$(call unity,$(engine_sources))
