# SPDX-License-Identifier: LGPL-2.1-or-later
# What the tool's verbs do, as a library: no printing, no argument parsing,
# all input and output through FileSystem, so that tests can inject faults.

noinst_LTLIBRARIES += common/libops.la

# The first is of a lower layer; the plugin writes to no server.
ops_sources = \
	common/source/nbd_writer.cc common/source/nbd_writer.h \
	common/ops/bit_writer.cc common/ops/bit_writer.h \
	common/ops/check.cc common/ops/check.h \
	common/ops/commit.cc common/ops/commit.h \
	common/ops/commit_apart.cc common/ops/commit_apart.h \
	common/ops/commit_target.cc common/ops/commit_target.h \
	common/ops/compare.cc common/ops/compare.h \
	common/ops/convert.cc common/ops/convert.h \
	common/ops/copy_layer.cc common/ops/copy_layer.h \
	common/ops/create.cc common/ops/create.h \
	common/ops/export.cc common/ops/export.h \
	common/ops/flatten.cc common/ops/flatten.h \
	common/ops/import.cc common/ops/import.h \
	common/ops/info.cc common/ops/info.h \
	common/ops/layer_runs.cc common/ops/layer_runs.h \
	common/ops/list.cc common/ops/list.h \
	common/ops/map.cc common/ops/map.h \
	common/ops/measure.cc common/ops/measure.h \
	common/ops/named_disk.cc common/ops/named_disk.h \
	common/ops/named_files.cc common/ops/named_files.h \
	common/ops/new_add_cow.cc common/ops/new_add_cow.h \
	common/ops/output_file.cc common/ops/output_file.h \
	common/ops/parse_cluster_size.cc common/ops/parse_cluster_size.h \
	common/ops/raw_bitmap.cc common/ops/raw_bitmap.h \
	common/ops/rebase.cc common/ops/rebase.h \
	common/ops/rebase_data.cc common/ops/rebase_data.h \
	common/ops/resize.cc common/ops/resize.h \
	common/ops/summary.cc common/ops/summary.h
common_libops_la_LIBADD = common/libengine.la

if UNITY
common_libops_la_SOURCES =
nodist_common_libops_la_SOURCES = unity/ops-1of1.cpp
else
common_libops_la_SOURCES = $(ops_sources)
endif
unity/ops-%.cpp: Makefile
	$(call unity,$(ops_sources))
