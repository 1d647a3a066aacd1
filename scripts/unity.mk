# SPDX-License-Identifier: LGPL-2.1-or-later
# --enable-unity=tests, --enable-unity=all: one translation unit for many sources, of
# the tests or of everything. A header is then read, and a template made, once for all
# of them, so that a whole build takes less than half the processor time; one after a
# change takes longer. The builds that are made once are such: "tests" the one of
# distcheck, "all" those for sanitizers.
#
# A library or program foo with many sources lists them in foo_sources, and
#
#   if UNITY_TESTS               (UNITY where it is no test)
#   foo_SOURCES =
#   nodist_foo_SOURCES = unity/NAME-1of2.cpp unity/NAME-2of2.cpp
#   else
#   foo_SOURCES = $(foo_sources)
#   endif
#   unity/NAME-%.cpp: Makefile
#   	$(call unity,$(foo_sources))
#
# ".cpp": tests that look at all sources look at "*.cc".

# $(call unity,SOURCES): the K-th of N parts of what includes them, where the target's
# name ends with KofN.
unity = $(AM_V_GEN)$(MKDIR_P) $(@D) && \
	printf '%s\n' $(filter %.cc,$(1)) | \
	  awk -v part='$*' 'BEGIN { split(part, of, "of") } \
	    (NR - 1) % of[2] == of[1] - 1 { print "\#include \"" $$0 "\"" }' >$@.tmp && \
	mv -f $@.tmp $@

CLEANFILES += unity/*.cpp

# Most tests run in less time than the compiler would take to make them faster; not
# the doubles, the crash search and the stress.
if UNITY_TESTS
unity/tests_unit_unit_tests-%.o unity/tests_fault_fault_tests-%.o tests/nbd/nbd_tests-%.o \
tests/replay/replay_tests-%.o tests/replay/kill_tests-%.o: CXXFLAGS += -O0
endif
