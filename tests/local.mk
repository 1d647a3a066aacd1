# SPDX-License-Identifier: LGPL-2.1-or-later
# "make check" and its relatives. GoogleTest binaries are in cxx.mk; here are
# the shell tests and the runs under sanitizers and valgrind.

include tests/cxx.mk
include tests/crash/crash.mk
include tests/cost/cost.mk
include tests/server-and-stress.mk
include tests/replay/replay.mk

TEST_EXTENSIONS = .sh
SH_LOG_COMPILER = bash
AM_TESTS_ENVIRONMENT = \
	srcdir='$(abs_top_srcdir)'; export srcdir; \
	ADDCOW_RUN='$(abs_top_builddir)/run'; export ADDCOW_RUN; \
	ADDCOW_BUILDDIR='$(abs_top_builddir)'; export ADDCOW_BUILDDIR; \
	ASAN_OPTIONS=allocator_may_return_null=1:quarantine_size_mb=32; export ASAN_OPTIONS; \
	TSAN_OPTIONS=allocator_may_return_null=1; export TSAN_OPTIONS;

shell_tests = \
	tests/shell/test-all-allocated.sh \
	tests/shell/test-backing-chain.sh \
	tests/shell/test-qemu-bases.sh \
	tests/shell/test-uri-bases.sh \
	tests/shell/test-base-changed.sh \
	tests/shell/test-bench.sh \
	tests/shell/test-check-file-systems.sh \
	tests/shell/test-clean-stop.sh \
	tests/shell/test-client-view.sh \
	tests/shell/test-commit-dry-run.sh \
	tests/shell/test-completion.sh \
	tests/shell/test-confine.sh \
	tests/shell/test-control.sh \
	tests/shell/test-copy-on-read.sh \
	tests/shell/test-fill.sh \
	tests/shell/test-fill-bases.sh \
	tests/shell/test-create-rights.sh \
	tests/shell/test-exfat.sh \
	tests/shell/test-fault-errno.sh \
	tests/shell/test-fault-tool.sh \
	tests/shell/test-failed-sync.sh \
	tests/shell/test-fast-zero.sh \
	tests/shell/test-fio-verify.sh \
	tests/shell/test-fuse.sh \
	tests/shell/test-help-and-dump-plugin.sh \
	tests/shell/test-hostile-sizes.sh \
	tests/shell/test-install.sh \
	tests/shell/test-interrupted.sh \
	tests/shell/test-killed-groups.sh \
	tests/shell/test-layer-top.sh \
	tests/shell/test-layers.sh \
	tests/shell/test-locks.sh \
	tests/shell/test-man-pages.sh \
	tests/shell/test-moved-files.sh \
	tests/shell/test-matrix.sh \
	tests/shell/test-mutants.sh \
	tests/shell/test-nbdcopy.sh \
	tests/shell/test-nbdfuse-base.sh \
	tests/shell/test-nbdfuse-ext4.sh \
	tests/shell/test-nbdinfo-map.sh \
	tests/shell/test-no-space.sh \
	tests/shell/test-packages.sh \
	tests/shell/test-pictures.sh \
	tests/shell/test-qemu-img.sh \
	tests/shell/test-qemu-io.sh \
	tests/shell/test-read-only.sh \
	tests/shell/test-live-recipes.sh \
	tests/shell/test-recipes.sh \
	tests/shell/test-reflink.sh \
	tests/shell/test-refusals.sh \
	tests/shell/test-refusals-acow.sh \
	tests/shell/test-removed-files.sh \
	tests/shell/test-replaced-rights.sh \
	tests/shell/test-request-cost.sh \
	tests/shell/test-revision-20.sh \
	tests/shell/test-run-script.sh \
	tests/shell/test-sandbox.sh \
	tests/shell/test-scaling.sh \
	tests/shell/test-size-limit.sh \
	tests/shell/test-sizes.sh \
	tests/shell/test-sparse-random.sh \
	tests/shell/test-style.sh \
	tests/shell/test-swapped-base.sh \
	tests/shell/test-symbols.sh \
	tests/shell/test-sync-descriptions.sh \
	tests/shell/test-sync-interval.sh \
	tests/shell/test-tool-check.sh \
	tests/shell/test-tool-commit.sh \
	tests/shell/test-tool-compare.sh \
	tests/shell/test-tool-create.sh \
	tests/shell/test-tool-export.sh \
	tests/shell/test-tool-flatten.sh \
	tests/shell/test-tool-info-map.sh \
	tests/shell/test-tool-import.sh \
	tests/shell/test-tool-ls.sh \
	tests/shell/test-tool-measure.sh \
	tests/shell/test-tool-rebase.sh \
	tests/shell/test-tool-resize.sh \
	tests/shell/test-tool-subclusters.sh \
	tests/shell/test-tool-usage.sh \
	tests/shell/test-trim.sh \
	tests/shell/test-truncated-files.sh \
	tests/shell/test-wait.sh \
	tests/shell/test-zeroes-in-qcow2.sh \
	tests/shell/test-vectors.sh \
	tests/shell/test-vectors-acow.sh
TESTS += $(shell_tests)

# Not part of "make check": they take ten minutes and more, and want a kernel.
slow_tests = \
	tests/slow/test-guestfish-fstrim.sh \
	tests/slow/test-qcow2-guest.sh \
	tests/slow/test-rbd-base.sh \
	tests/slow/test-v2v-in-place.sh \
	tests/slow/test-virt-v2v.sh \
	tests/slow/test-virt-v2v-killed.sh

EXTRA_DIST += $(shell_tests) $(slow_tests) tests/functions.sh tests/slow/guest.sh tests/slow/make-guest.sh \
	tests/README.md \
	tests/vectors tests/vectors-acow .clang-format run.in quickstart runtests \
	scripts/prepare.sh README.md LICENSE .ci/run

.PHONY: check-slow check-asan check-tsan check-valgrind stress

check-slow: all
	$(MAKE) $(AM_MAKEFLAGS) check TESTS='$(slow_tests)'

# A build of what would be released, in sanitize/NAME, with its own flags, and
# in it the targets that are named and then the tests. From a copy in
# sanitize/src, since a tree that is built in place cannot be built elsewhere as
# well. "enter" goes there and configures only.
# The searches are shorter there than in "make check": it is the code that is
# to be looked at in another way, not more states.
shorter_searches = \
	ADDCOW_CRASH_STATES="$${ADDCOW_CRASH_STATES:-10000}"; export ADDCOW_CRASH_STATES; \
	ADDCOW_REPLAY_STATES="$${ADDCOW_REPLAY_STATES:-40}"; export ADDCOW_REPLAY_STATES; \
	ADDCOW_KILL_ROUNDS="$${ADDCOW_KILL_ROUNDS:-4}"; export ADDCOW_KILL_ROUNDS; \
	ADDCOW_SWEEP_STEP="$${ADDCOW_SWEEP_STEP:-4}"; export ADDCOW_SWEEP_STEP;
sanitizer_flags = -Og -g1 -fno-omit-frame-pointer
sanitizer_source = sanitize/src
run_sanitizer_build = \
	enter_sanitizer_build () { \
	  name="$$1"; shift; \
	  $(MKDIR_P) sanitize && $(MAKE) $(AM_MAKEFLAGS) distdir distdir=$(sanitizer_source) && \
	  $(MKDIR_P) "sanitize/$$name" && cd "sanitize/$$name" && \
	  { test -f config.status || ../src/configure --enable-developer --enable-shared-fmt --enable-unity=all --quiet "$$@"; }; \
	}; \
	run_sanitizer_build () { \
	  name="$$1"; targets="$$2"; tests="$$3"; shift 3; \
	  $(shorter_searches) \
	  enter_sanitizer_build "$$name" "$$@" && \
	  $(MAKE) $(AM_MAKEFLAGS) $$targets && \
	  $(MAKE) $(AM_MAKEFLAGS) check-TESTS TESTS="$$tests"; \
	}

# All sanitizers are clang's, which compiles with them in half of g++'s time.
sanitizer_compilers = CC=clang CXX=clang++

# The tests under AddressSanitizer and UndefinedBehaviorSanitizer, but for those
# that a sanitizer can find nothing in, which look at texts, at an installation, at
# instructions. nbdkit is not built with them, so ./run preloads the run-time into it.
not_under_sanitizers = \
	tests/shell/test-bench.sh \
	tests/shell/test-completion.sh \
	tests/shell/test-install.sh \
	tests/shell/test-layers.sh \
	tests/shell/test-man-pages.sh \
	tests/shell/test-matrix.sh \
	tests/shell/test-mutants.sh \
	tests/shell/test-request-cost.sh \
	tests/shell/test-style.sh \
	tests/shell/test-symbols.sh
check-asan:
	+$(run_sanitizer_build); \
	run_sanitizer_build asan 'all-am $(check_LTLIBRARIES) $(filter-out %/mutant-tests$(EXEEXT) %/request-cost$(EXEEXT),$(check_PROGRAMS))' \
	  '$(filter-out %/mutant-tests$(EXEEXT) $(not_under_sanitizers),$(TESTS))' \
	  $(sanitizer_compilers) \
	  CXXFLAGS='$(sanitizer_flags) -fsanitize=address,undefined -fno-sanitize-recover=undefined' \
	  SANITIZER_PRELOAD="$$(clang -print-file-name=libclang_rt.asan-$$(uname -m).so)"

# The tests with threads under ThreadSanitizer.
tsan_configuration = \
	  $(sanitizer_compilers) \
	  CXXFLAGS='$(sanitizer_flags) -fsanitize=thread'
check-tsan:
	+$(run_sanitizer_build); \
	run_sanitizer_build tsan '$(cxx_thread_tests)' '$(cxx_thread_tests)' \
	  $(tsan_configuration)

# The stress tests for longer:
#   make stress [SECONDS=300] [SEED=number]
# First the engine for SECONDS, under ThreadSanitizer; then the server with many
# connections for a fifth of that, without: clang's ThreadSanitizer cannot be
# loaded into a program that was built without it. Each prints its seed and how
# much it did.
SECONDS = 300
stress: all $(cxx_server_stress_tests)
	+status=0; $(run_sanitizer_build); \
	( enter_sanitizer_build tsan $(tsan_configuration) && \
	  $(MAKE) $(AM_MAKEFLAGS) $(cxx_stress_tests) && \
	  for test in $(cxx_stress_tests); do \
	    ADDCOW_SEED='$(SEED)' ADDCOW_STRESS_SECONDS='$(SECONDS)' "$$test" || exit 1; \
	  done ) || status=1; \
	ADDCOW_RUN='$(abs_top_builddir)/run'; export ADDCOW_RUN; \
	for test in $(cxx_server_stress_tests); do \
	  ADDCOW_SEED='$(SEED)' ADDCOW_STRESS_SECONDS="$$(($(SECONDS) / 5 + 1))" \
	    "$$test" --gtest_filter='*Parallel*' || status=1; \
	done; \
	exit "$$status"

# The unit tests, and the server behind the NBD tests, under valgrind.
check-valgrind: all
	@if test '$(VALGRIND)' = no; then echo 'valgrind is not installed' >&2; exit 1; fi
	ADDCOW_CRASH_STATES=500 $(MAKE) $(AM_MAKEFLAGS) check TESTS='$(cxx_valgrind_tests)' \
	  LOG_COMPILER="$(LIBTOOL) --mode=execute $(VALGRIND) --quiet --error-exitcode=119 --leak-check=full"
	NBDKIT_VALGRIND=1 $(MAKE) $(AM_MAKEFLAGS) check \
	  TESTS='tests/shell/test-vectors.sh tests/shell/test-qemu-io.sh tests/shell/test-clean-stop.sh'

clean-local: clean-packages
	rm -rf sanitize
