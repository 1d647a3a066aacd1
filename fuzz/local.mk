# SPDX-License-Identifier: LGPL-2.1-or-later
# The fuzzers: see fuzz/README.md. "make check" replays the corpus through
# each; "make check-fuzz" builds them with libFuzzer and runs them.

# The harness, and the doubles that it needs, which know nothing of GoogleTest.
check_LTLIBRARIES += fuzz/libharness.la
harness_sources = \
	fuzz/disk_model.h \
	fuzz/disk_rules.cc fuzz/disk_rules.h \
	fuzz/format_rules.cc fuzz/format_rules.h \
	fuzz/image_view.h \
	fuzz/input.h \
	fuzz/must.h \
	fuzz/open_meter.h \
	fuzz/scene.cc fuzz/scene.h \
	tests/support/fake_file.cc tests/support/fake_file.h \
	tests/support/fake_file_system.cc tests/support/fake_file_system.h \
	tests/support/forwarding_file.cc tests/support/forwarding_file.h \
	tests/support/operation.cc tests/support/operation.h \
	tests/support/random.h \
	tests/support/test_image.cc tests/support/test_image.h
if UNITY_TESTS
fuzz_libharness_la_SOURCES =
nodist_fuzz_libharness_la_SOURCES = unity/harness-1of1.cpp
else
fuzz_libharness_la_SOURCES = $(harness_sources)
endif
unity/harness-%.cpp: Makefile
	$(call unity,$(harness_sources))
# A name of its own for the objects, which libsupport.la has as well.
fuzz_libharness_la_CPPFLAGS = $(AM_CPPFLAGS)

fuzz_ldadd = fuzz/libharness.la common/libops.la

fuzz_replays = fuzz/control-replay fuzz/header-replay fuzz/image-replay fuzz/verbs-replay
check_PROGRAMS += $(fuzz_replays)
TESTS += $(fuzz_replays)
# What the engine, or the verbs, must do.
fuzz_image_sources = fuzz/image_fuzzer.cc fuzz/allocation_watch.cc fuzz/allocation_watch.h
fuzz_verbs_sources = \
	fuzz/verbs_fuzzer.cc \
	fuzz/verbs_anew.cc \
	fuzz/verbs_data.cc \
	fuzz/verbs_resize.cc \
	fuzz/verbs_session.h
fuzz_control_replay_SOURCES = fuzz/control_fuzzer.cc fuzz/replay_main.cc
fuzz_control_replay_CPPFLAGS = $(AM_CPPFLAGS) -DADDCOW_FUZZER='"control"'
fuzz_control_replay_LDADD = common/libcontrol.la common/libengine.la
fuzz_header_replay_SOURCES = fuzz/header_fuzzer.cc fuzz/replay_main.cc
fuzz_header_replay_CPPFLAGS = $(AM_CPPFLAGS) -DADDCOW_FUZZER='"header"'
fuzz_header_replay_LDADD = $(fuzz_ldadd)
fuzz_image_replay_SOURCES = $(fuzz_image_sources) fuzz/replay_main.cc
fuzz_image_replay_CPPFLAGS = $(AM_CPPFLAGS) -DADDCOW_FUZZER='"image"'
fuzz_image_replay_LDADD = $(fuzz_ldadd)
fuzz_verbs_replay_SOURCES = $(fuzz_verbs_sources) fuzz/replay_main.cc
fuzz_verbs_replay_CPPFLAGS = $(AM_CPPFLAGS) -DADDCOW_FUZZER='"verbs"'
fuzz_verbs_replay_LDADD = $(fuzz_ldadd)

# With a fuzzing engine in place of replay_main.cc. Not built unless asked for:
# the compiler has to know $(LIB_FUZZING_ENGINE).
fuzzers = fuzz/control-fuzzer fuzz/header-fuzzer fuzz/image-fuzzer fuzz/verbs-fuzzer
EXTRA_PROGRAMS += $(fuzzers)
fuzz_control_fuzzer_SOURCES = fuzz/control_fuzzer.cc
fuzz_control_fuzzer_LDFLAGS = $(LIB_FUZZING_ENGINE)
fuzz_control_fuzzer_LDADD = common/libcontrol.la common/libengine.la
fuzz_header_fuzzer_SOURCES = fuzz/header_fuzzer.cc
fuzz_header_fuzzer_LDFLAGS = $(LIB_FUZZING_ENGINE)
fuzz_header_fuzzer_LDADD = $(fuzz_ldadd)
fuzz_image_fuzzer_SOURCES = $(fuzz_image_sources)
fuzz_image_fuzzer_LDFLAGS = $(LIB_FUZZING_ENGINE)
fuzz_image_fuzzer_LDADD = $(fuzz_ldadd)
fuzz_verbs_fuzzer_SOURCES = $(fuzz_verbs_sources)
fuzz_verbs_fuzzer_LDFLAGS = $(LIB_FUZZING_ENGINE)
fuzz_verbs_fuzzer_LDADD = $(fuzz_ldadd)

fuzz_runs = fuzz/fuzz-control.sh fuzz/fuzz-header.sh fuzz/fuzz-image.sh fuzz/fuzz-verbs.sh

.PHONY: check-fuzz run-fuzzers

# In a build of its own with libFuzzer and sanitizers. Only what the fuzzers
# need is built there. All run at once, each for FUZZ_SECONDS. That and FUZZ_SEED:
# see fuzz/README.md.
check-fuzz:
	+$(run_sanitizer_build); enter_sanitizer_build fuzz \
	  $(sanitizer_compilers) LIB_FUZZING_ENGINE=-fsanitize=fuzzer \
	  CXXFLAGS='-O1 -g1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fsanitize-coverage-ignorelist=../src/fuzz/no-coverage.txt' && \
	  $(MAKE) $(AM_MAKEFLAGS) $(fuzzers) && \
	  $(MAKE) $(AM_MAKEFLAGS) -j$(words $(fuzz_runs)) run-fuzzers

# The fuzzers of this build, as tests: automake counts them.
run-fuzzers:
	$(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS='$(fuzz_runs)' \
	  check_PROGRAMS='$(fuzzers)' check_LTLIBRARIES=fuzz/libharness.la

CLEANFILES += $(fuzzers)
EXTRA_DIST += $(fuzz_runs) fuzz/run-fuzzer.sh fuzz/make-corpus.py fuzz/corpus_headers.py fuzz/addcow.dict \
	fuzz/no-coverage.txt fuzz/README.md \
	fuzz/corpus
