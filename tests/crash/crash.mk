# SPDX-License-Identifier: LGPL-2.1-or-later
# The tests of what a power failure leaves: the crash search, in "make check"
# and as a long "make crash-search", and the proof that it finds bugs.

# The search itself, for all programs here.
crash_harness_sources = \
	tests/crash/crash_harness.cc tests/crash/crash_harness.h \
	tests/crash/crash_race.cc \
	tests/crash/crash_search.cc tests/crash/crash_search.h \
	tests/crash/random_run.cc tests/crash/random_run.h

crash_sources = \
	tests/crash/crash_disk_test.cc \
	tests/crash/durable_create_test.cc \
	tests/crash/engine_crash_test.cc \
	tests/crash/ops_crash_test.cc \
	tests/crash/random_crash_test.cc

# make crash-search SEED=N STATES=N; without a SEED it is a new one.
SEED =
STATES = 10000000

.PHONY: crash-search

if HAVE_GTEST
check_LTLIBRARIES += tests/crash/libcrash.la
tests_crash_libcrash_la_SOURCES = $(crash_harness_sources)
tests_crash_libcrash_la_CPPFLAGS = $(test_cppflags)

check_PROGRAMS += tests/crash/crash-tests
TESTS += tests/crash/crash-tests
cxx_thread_tests += tests/crash/crash-tests
tests_crash_crash_tests_SOURCES = $(crash_sources)
tests_crash_crash_tests_CPPFLAGS = $(test_cppflags)
tests_crash_crash_tests_LDADD = tests/crash/libcrash.la common/libops.la $(test_ldadd)

EXTRA_PROGRAMS += tests/crash/crash-search
CLEANFILES += tests/crash/crash-search
tests_crash_crash_search_SOURCES = tests/crash/crash_search_main.cc
tests_crash_crash_search_CPPFLAGS = $(test_cppflags)
tests_crash_crash_search_LDADD = tests/crash/libcrash.la common/libops.la $(test_ldadd)

crash-search: tests/crash/crash-search
	ADDCOW_SEED='$(SEED)' ADDCOW_CRASH_STATES='$(STATES)' tests/crash/crash-search
endif
