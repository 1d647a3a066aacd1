# SPDX-License-Identifier: LGPL-2.1-or-later
# GoogleTest programs beside the unit tests: fault sweeps, stress, and the real
# server through libnbd.

if HAVE_GTEST
check_PROGRAMS += tests/fault/fault-tests tests/stress/stress-tests
TESTS += tests/fault/fault-tests tests/stress/stress-tests
cxx_thread_tests += tests/stress/stress-tests
cxx_stress_tests += tests/stress/stress-tests
cxx_valgrind_tests += tests/fault/fault-tests

fault_sources = \
	tests/fault/chain_fault_test.cc \
	tests/fault/commit_fault_test.cc \
	tests/fault/create_fault_test.cc \
	tests/fault/engine_fault_test.cc \
	tests/fault/engine_script.cc tests/fault/engine_script.h \
	tests/fault/export_fault_test.cc \
	tests/fault/fetch_fault_test.cc \
	tests/fault/fill_fault_test.cc \
	tests/fault/import_fault_test.cc \
	tests/fault/real_files_fault_test.cc \
	tests/fault/sweep.h \
	tests/fault/resize_fault_test.cc \
	tests/fault/verb_fault_test.cc
if UNITY_TESTS
tests_fault_fault_tests_SOURCES =
nodist_tests_fault_fault_tests_SOURCES = unity/fault-1of1.cpp
else
tests_fault_fault_tests_SOURCES = $(fault_sources)
endif
unity/fault-%.cpp: Makefile
	$(call unity,$(fault_sources))
tests_fault_fault_tests_CPPFLAGS = $(test_cppflags)
tests_fault_fault_tests_LDADD = common/libops.la $(test_ldadd)

tests_stress_stress_tests_SOURCES = tests/stress/stress_test.cc
tests_stress_stress_tests_CPPFLAGS = $(test_cppflags)
tests_stress_stress_tests_LDADD = $(test_ldadd)

check_PROGRAMS += tests/nbd/nbd-tests
TESTS += tests/nbd/nbd-tests
cxx_server_stress_tests += tests/nbd/nbd-tests
tests_nbd_nbd_tests_SOURCES = \
	tests/nbd/parallel_test.cc \
	tests/nbd/protocol_test.cc \
	tests/nbd/server.cc tests/nbd/server.h
tests_nbd_nbd_tests_CPPFLAGS = $(test_cppflags)
tests_nbd_nbd_tests_LDADD = $(test_ldadd) $(LIBNBD_LIBS)

check_PROGRAMS += tests/source/source-tests
TESTS += tests/source/source-tests
cxx_thread_tests += tests/source/source-tests
tests_source_source_tests_SOURCES = \
	tests/nbd/server.cc tests/nbd/server.h \
	tests/source/base_server.cc tests/source/base_server.h \
	tests/source/nbd_connection_test.cc \
	tests/source/nbd_source_test.cc \
	tests/source/nbd_writer_test.cc \
	tests/source/odd_servers_test.cc \
	tests/source/qemu_server_test.cc \
	tests/source/scripted_server.cc tests/source/scripted_server.h
tests_source_source_tests_CPPFLAGS = $(test_cppflags)
tests_source_source_tests_LDADD = common/libops.la $(test_ldadd)
endif

# The file system of tests/shell/test-fuse.sh.
EXTRA_DIST += tests/fuse/small_fuse.c
if HAVE_FUSE3
check_PROGRAMS += tests/fuse/small-fuse
tests_fuse_small_fuse_SOURCES = tests/fuse/small_fuse.c
tests_fuse_small_fuse_CPPFLAGS = $(FUSE3_CFLAGS)
tests_fuse_small_fuse_LDADD = $(FUSE3_LIBS)
endif

# For LD_PRELOAD, by the shell tests. Not fortified: that would have inline
# functions of the same names.
check_LTLIBRARIES += tests/fault/fault-shim.la
tests_fault_fault_shim_la_SOURCES = tests/fault/fault_shim.c
tests_fault_fault_shim_la_CPPFLAGS = -U_FORTIFY_SOURCE
tests_fault_fault_shim_la_LDFLAGS = -module -avoid-version -shared -rpath /nowhere

# A sandbox in which system calls fail, for a shell test.
check_PROGRAMS += tests/fault/forbid
tests_fault_forbid_SOURCES = tests/fault/forbid.c
