# SPDX-License-Identifier: LGPL-2.1-or-later
# The tests in C++: GoogleTest programs that print TAP, so that each single
# test is counted. tests/README.md says what is tested where.

LOG_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh

# Test doubles, and the main() of all test programs.
check_LTLIBRARIES =
support_sources = \
	tests/support/chain_fixture.h \
	tests/support/control_double.h \
	tests/support/convert_fixture.h \
	tests/support/crash_disk.cc tests/support/crash_disk.h \
	tests/support/crash_model.cc tests/support/crash_model.h \
	tests/support/engine_lines.h \
	tests/support/engine_rooms.h \
	tests/support/expect.h \
	tests/support/expect_reads.h \
	tests/support/export_fixture.h \
	tests/support/fake_file.cc tests/support/fake_file.h \
	tests/support/fake_file_system.cc tests/support/fake_file_system.h \
	tests/support/fault_file.cc tests/support/fault_file.h \
	tests/support/forwarding_file.cc tests/support/forwarding_file.h \
	tests/support/fetch_fixture.h tests/support/fill_fixture.h \
	tests/support/forms.h \
	tests/support/gated_file.cc tests/support/gated_file.h \
	tests/support/gated_schedule.cc tests/support/gated_schedule.h \
	tests/support/image_fixture.h \
	tests/support/import_fixture.h \
	tests/support/main.cc \
	tests/support/operation.cc tests/support/operation.h \
	tests/support/operation_log.h \
	tests/support/racer.cc tests/support/racer.h \
	tests/support/random.h \
	tests/support/reference_disk.cc tests/support/reference_disk.h \
	tests/support/resize_fixture.h \
	tests/support/source_double.h \
	tests/support/temp_dir.h \
	tests/support/test_image.cc tests/support/test_image.h \
	tests/support/with_subclusters.h

unit_sources = \
	tests/unit/acow_header_test.cc \
	tests/unit/allocation_bitmap_test.cc \
	tests/unit/allocation_test.cc \
	tests/unit/background_flush_test.cc \
	tests/unit/attributes_test.cc \
	tests/unit/backing_identity_test.cc \
	tests/unit/backing_test.cc \
	tests/unit/base_names_test.cc \
	tests/unit/base_test.cc \
	tests/unit/bit_writer_test.cc \
	tests/unit/bitmap_storage_test.cc \
	tests/unit/bitmap_store_test.cc \
	tests/unit/boundary_test.cc \
	tests/unit/chain_extents_test.cc \
	tests/unit/chain_test.cc \
	tests/unit/cloner_test.cc \
	tests/unit/control_server_test.cc \
	tests/unit/control_session_test.cc \
	tests/unit/counters_test.cc \
	tests/unit/durable_create_test.cc \
	tests/unit/fake_file_test.cc \
	tests/unit/fetch_failure_test.cc \
	tests/unit/fetch_race_test.cc \
	tests/unit/fetch_test.cc \
	tests/unit/fetch_at_once_test.cc \
	tests/unit/fetch_window_test.cc \
	tests/unit/file_test.cc \
	tests/unit/fill_pace_test.cc \
	tests/unit/fill_race_test.cc \
	tests/unit/fill_rest_test.cc \
	tests/unit/fill_status_test.cc \
	tests/unit/fill_test.cc \
	tests/unit/header_test.cc \
	tests/unit/holes_test.cc \
	tests/unit/identity_test.cc \
	tests/unit/image_access_test.cc \
	tests/unit/hostile_open_test.cc \
	tests/unit/image_counts_test.cc \
	tests/unit/image_files_subclusters_test.cc \
	tests/unit/image_files_test.cc \
	tests/unit/image_flush_sharing_test.cc \
	tests/unit/image_flush_test.cc \
	tests/unit/image_found_state_test.cc \
	tests/unit/image_fua_test.cc \
	tests/unit/image_let_go_test.cc \
	tests/unit/image_map_test.cc \
	tests/unit/image_race_test.cc \
	tests/unit/image_no_room_test.cc \
	tests/unit/image_read_write_test.cc \
	tests/unit/image_removed_test.cc \
	tests/unit/image_subclusters_flush_test.cc \
	tests/unit/image_subclusters_race_test.cc \
	tests/unit/image_subclusters_test.cc \
	tests/unit/image_truncated_test.cc \
	tests/unit/image_write_back_test.cc \
	tests/unit/image_zero_test.cc \
	tests/unit/layout_test.cc \
	tests/unit/may_change_test.cc \
	tests/unit/known_runs_test.cc \
	tests/unit/ops_check_subclusters_test.cc \
	tests/unit/ops_check_test.cc \
	tests/unit/ops_commit_test.cc \
	tests/unit/ops_convert_meanwhile_test.cc \
	tests/unit/ops_convert_refusals_test.cc \
	tests/unit/ops_convert_test.cc \
	tests/unit/ops_create_test.cc \
	tests/unit/ops_export_test.cc \
	tests/unit/ops_forms_test.cc \
	tests/unit/ops_import_test.cc \
	tests/unit/ops_interrupted_test.cc \
	tests/unit/ops_list_test.cc \
	tests/unit/ops_rebase_data_test.cc \
	tests/unit/ops_rebase_test.cc \
	tests/unit/ops_resize_refusals_test.cc \
	tests/unit/ops_resize_test.cc \
	tests/unit/ops_subclusters_test.cc \
	tests/unit/ops_test.cc \
	tests/unit/posix_file_test.cc \
	tests/unit/program_test.cc \
	tests/unit/range_locks_test.cc \
	tests/unit/rooms_test.cc \
	tests/unit/sample_test.cc \
	tests/unit/server_arguments_test.cc plugin/server_arguments.cc \
	tests/unit/server_status_test.cc tools/output.cc tools/status_file.cc tools/status_text.cc \
	tests/unit/summary_test.cc \
	tests/unit/disk_strip_test.cc tools/disk_strip.cc \
	tests/unit/disk_svg_test.cc tools/disk_svg.cc \
	tests/unit/zeroer_test.cc

test_cppflags = $(AM_CPPFLAGS) $(GTEST_CFLAGS)
test_ldadd = tests/support/libsupport.la common/libengine.la $(GTEST_LIBS)

# The programs with threads, for ThreadSanitizer, those for "make stress", and
# those for valgrind.
cxx_thread_tests =
cxx_stress_tests =
cxx_server_stress_tests =
cxx_valgrind_tests =

if HAVE_GTEST
check_LTLIBRARIES += tests/support/libsupport.la
if UNITY_TESTS
tests_support_libsupport_la_SOURCES = tests/support/main.cc
nodist_tests_support_libsupport_la_SOURCES = unity/support-1of1.cpp
else
tests_support_libsupport_la_SOURCES = $(support_sources)
endif
unity/support-%.cpp: Makefile
	$(call unity,$(filter-out tests/support/main.cc,$(support_sources)))
tests_support_libsupport_la_CPPFLAGS = $(test_cppflags)

cxx_tests = tests/unit/unit-tests
if UNITY_TESTS
tests_unit_unit_tests_SOURCES =
nodist_tests_unit_unit_tests_SOURCES = unity/unit-1of4.cpp unity/unit-2of4.cpp unity/unit-3of4.cpp unity/unit-4of4.cpp
else
tests_unit_unit_tests_SOURCES = $(unit_sources)
endif
unity/unit-%.cpp: Makefile
	$(call unity,$(unit_sources))
tests_unit_unit_tests_CPPFLAGS = $(test_cppflags) $(NBDKIT_CFLAGS)
tests_unit_unit_tests_LDADD = common/libcontrol.la common/libops.la $(test_ldadd)

cxx_thread_tests += tests/unit/unit-tests
cxx_valgrind_tests += tests/unit/unit-tests

check_PROGRAMS += $(cxx_tests)
TESTS += $(cxx_tests)
endif
