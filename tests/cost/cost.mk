# SPDX-License-Identifier: LGPL-2.1-or-later
# The program whose instructions tests/shell/test-request-cost.sh counts, and
# what they may be.

EXTRA_DIST += tests/cost/baseline

if HAVE_GTEST
check_PROGRAMS += tests/cost/request-cost
tests_cost_request_cost_SOURCES = tests/cost/request_cost.cc
tests_cost_request_cost_CPPFLAGS = $(test_cppflags) \
	-DADDCOW_FLAGS='$(CPPFLAGS) $(CXXFLAGS) $(LDFLAGS)'
tests_cost_request_cost_LDADD = tests/support/libsupport.la common/libcontrol.la \
	common/libengine.la $(GTEST_LIBS)
endif
