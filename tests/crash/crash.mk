# SPDX-License-Identifier: LGPL-2.1-or-later
# The tests of what a power failure leaves: the crash search, in "make check"
# and as a long "make crash-search", and the proof that it finds bugs.

# The search itself, for all programs here.
crash_harness_sources = \
	tests/crash/crash_harness.cc tests/crash/crash_harness.h \
	tests/crash/crash_race.cc \
	tests/crash/crash_search.cc tests/crash/crash_search.h \
	tests/crash/random_disk.cc tests/crash/random_disk.h \
	tests/crash/crash_verbs.cc \
	tests/crash/random_run.cc tests/crash/random_run.h

crash_sources = \
	tests/crash/commit_crash_test.cc \
	tests/crash/convert_crash_test.cc \
	tests/crash/crash_disk_test.cc \
	tests/crash/durable_create_test.cc \
	tests/crash/engine_crash_test.cc \
	tests/crash/export_crash_test.cc \
	tests/crash/gated_schedule_test.cc \
	tests/crash/import_crash_test.cc \
	tests/crash/ops_crash.h \
	tests/crash/ops_crash_test.cc \
	tests/crash/random_crash_test.cc \
	tests/crash/resize_crash_test.cc

# make crash-search SEED=N STATES=N; without a SEED it is a new one.
STATES = 10000000

.PHONY: crash-search

EXTRA_DIST += tests/crash/mutants.list tests/crash/mutate.sh

if HAVE_GTEST
check_LTLIBRARIES += tests/crash/libcrash.la
if UNITY_TESTS
tests_crash_libcrash_la_SOURCES =
nodist_tests_crash_libcrash_la_SOURCES = unity/crash-harness-1of1.cpp
else
tests_crash_libcrash_la_SOURCES = $(crash_harness_sources)
endif
unity/crash-harness-%.cpp: Makefile
	$(call unity,$(crash_harness_sources))
tests_crash_libcrash_la_CPPFLAGS = $(test_cppflags)

check_PROGRAMS += tests/crash/crash-tests
TESTS += tests/crash/crash-tests
cxx_thread_tests += tests/crash/crash-tests
if UNITY_TESTS
tests_crash_crash_tests_SOURCES =
nodist_tests_crash_crash_tests_SOURCES = unity/crash-tests-1of1.cpp
else
tests_crash_crash_tests_SOURCES = $(crash_sources)
endif
unity/crash-tests-%.cpp: Makefile
	$(call unity,$(crash_sources))
tests_crash_crash_tests_CPPFLAGS = $(test_cppflags)
tests_crash_crash_tests_LDADD = tests/crash/libcrash.la common/libops.la $(test_ldadd)

# Each mutated source takes the place of one object of the libraries, so not where
# these are one object.
if !UNITY
# The engine's sources with the bugs of mutants.list in them, each of which a
# switch turns on. Linked before the libraries, so that these take the place
# of the right ones. ".cpp": tests that look at all sources look at "*.cc".
mutated_files = \
	common/image/allocation.cc \
	common/image/bitmap_storage.cc \
	common/image/bitmap_store.cc \
	common/image/copy_on_write.cc \
	common/image/copy_up.cc \
	common/image/durability.cc \
	common/image/image.cc \
	common/image/image_store.cc \
	common/io/durable_create.cc \
	common/io/zeroer.cc \
	common/jobs/fetch.cc \
	common/jobs/fill.cc \
	common/ops/commit.cc \
	common/ops/convert.cc \
	common/ops/create.cc \
	common/ops/new_add_cow.cc \
	common/ops/rebase_data.cc \
	common/ops/resize.cc
mutated_sources = \
	tests/crash/mutated/common/image/allocation.cpp \
	tests/crash/mutated/common/image/bitmap_storage.cpp \
	tests/crash/mutated/common/image/bitmap_store.cpp \
	tests/crash/mutated/common/image/copy_on_write.cpp \
	tests/crash/mutated/common/image/copy_up.cpp \
	tests/crash/mutated/common/image/durability.cpp \
	tests/crash/mutated/common/image/image.cpp \
	tests/crash/mutated/common/image/image_store.cpp \
	tests/crash/mutated/common/io/durable_create.cpp \
	tests/crash/mutated/common/io/zeroer.cpp \
	tests/crash/mutated/common/jobs/fetch.cpp \
	tests/crash/mutated/common/jobs/fill.cpp \
	tests/crash/mutated/common/ops/commit.cpp \
	tests/crash/mutated/common/ops/convert.cpp \
	tests/crash/mutated/common/ops/create.cpp \
	tests/crash/mutated/common/ops/new_add_cow.cpp \
	tests/crash/mutated/common/ops/rebase_data.cpp \
	tests/crash/mutated/common/ops/resize.cpp
mutants = $(srcdir)/tests/crash/mutants.list
mutate = bash $(srcdir)/tests/crash/mutate.sh $(mutants)

$(mutated_sources): tests/crash/mutated/%.cpp: $(srcdir)/%.cc $(mutants) tests/crash/mutate.sh
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(mutate) source $(srcdir) $*.cc >$@.tmp && mv -f $@.tmp $@

tests/crash/mutated/names.inc: $(mutants) tests/crash/mutate.sh
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(mutate) names $(mutated_files) >$@.tmp && mv -f $@.tmp $@

tests/crash/mutant_tests-mutant_test.$(OBJEXT): tests/crash/mutated/names.inc

CLEANFILES += $(mutated_sources) tests/crash/mutated/names.inc

check_PROGRAMS += tests/crash/mutant-tests
TESTS += tests/crash/mutant-tests
tests_crash_mutant_tests_SOURCES = tests/crash/mutant.h tests/crash/mutant_test.cc
nodist_tests_crash_mutant_tests_SOURCES = $(mutated_sources)
tests_crash_mutant_tests_CPPFLAGS = $(test_cppflags)
tests_crash_mutant_tests_LDADD = tests/crash/libcrash.la common/libops.la $(test_ldadd)
endif

EXTRA_PROGRAMS += tests/crash/crash-search
CLEANFILES += tests/crash/crash-search
tests_crash_crash_search_SOURCES = tests/crash/crash_search_main.cc
tests_crash_crash_search_CPPFLAGS = $(test_cppflags)
tests_crash_crash_search_LDADD = tests/crash/libcrash.la common/libops.la $(test_ldadd)

crash-search: tests/crash/crash-search
	ADDCOW_SEED='$(SEED)' ADDCOW_CRASH_STATES='$(STATES)' tests/crash/crash-search
endif
