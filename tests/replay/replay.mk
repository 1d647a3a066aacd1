# SPDX-License-Identifier: LGPL-2.1-or-later
# Power cuts and kills of the real server: a recorder that is preloaded into
# nbdkit and is a filter of it, programs that play its log back.

.PHONY: kill-search replay-search

if HAVE_GTEST
# -rpath: a shared object, though it is not installed.
check_LTLIBRARIES += tests/replay/recorder.la
tests_replay_recorder_la_SOURCES = \
	tests/replay/filter.cc \
	tests/replay/preload.cc \
	tests/replay/record.h \
	tests/replay/recorder_log.cc tests/replay/recorder_log.h
tests_replay_recorder_la_CPPFLAGS = $(AM_CPPFLAGS) $(NBDKIT_CFLAGS)
tests_replay_recorder_la_LDFLAGS = -module -avoid-version -shared -rpath /nowhere

replay_sources = \
	tests/nbd/server.cc tests/nbd/server.h \
	tests/replay/acknowledged.cc tests/replay/acknowledged.h \
	tests/replay/program.cc tests/replay/program.h \
	tests/replay/random_client.cc tests/replay/random_client.h \
	tests/replay/record.h \
	tests/replay/recording.cc tests/replay/recording.h

check_LTLIBRARIES += tests/replay/libreplay.la
if UNITY_TESTS
tests_replay_libreplay_la_SOURCES =
nodist_tests_replay_libreplay_la_SOURCES = unity/replay-1of1.cpp
else
tests_replay_libreplay_la_SOURCES = $(replay_sources)
endif
unity/replay-%.cpp: Makefile
	$(call unity,$(replay_sources))
tests_replay_libreplay_la_CPPFLAGS = $(test_cppflags)

replay_cppflags = $(test_cppflags)
replay_ldadd = tests/replay/libreplay.la $(test_ldadd) $(LIBNBD_LIBS)
replay_tests = tests/replay/kill-tests tests/replay/replay-tests

tests_replay_replay_tests_SOURCES = \
	tests/replay/power_cut.cc tests/replay/power_cut.h \
	tests/replay/replay_test.cc \
	tests/replay/rules_test.cc
tests_replay_replay_tests_CPPFLAGS = $(replay_cppflags)
tests_replay_replay_tests_LDADD = $(replay_ldadd)

tests_replay_kill_tests_SOURCES = \
	tests/replay/kill_test.cc \
	tests/source/base_server.cc tests/source/base_server.h
tests_replay_kill_tests_CPPFLAGS = $(replay_cppflags)
tests_replay_kill_tests_LDADD = $(replay_ldadd)

check_PROGRAMS += $(replay_tests)
TESTS += $(replay_tests)

# The same tests for longer: make kill-search ROUNDS=1000 SEED=7, make
# replay-search CUTS=50000 SEED=7. Without SEED a new one is taken; it is printed.
kill-search: all tests/replay/recorder.la tests/replay/kill-tests
	$(AM_TESTS_ENVIRONMENT) \
	ADDCOW_KILL_ROUNDS='$(or $(ROUNDS),200)' ADDCOW_SEED='$(SEED)' tests/replay/kill-tests

replay-search: all tests/replay/recorder.la tests/replay/replay-tests
	$(AM_TESTS_ENVIRONMENT) \
	ADDCOW_REPLAY_STATES='$(or $(CUTS),5000)' ADDCOW_SEED='$(SEED)' tests/replay/replay-tests
endif
