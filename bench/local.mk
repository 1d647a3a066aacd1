# SPDX-License-Identifier: LGPL-2.1-or-later
# "make bench": see bench/README.md. Installs nothing, and is no part of
# "make check", which has tests/shell/test-bench.sh to see that it works.

bench_sources = \
	bench/bench.py \
	bench/ratios.gp \
	bench/report.py \
	bench/servers.py \
	bench/settings.py \
	bench/tasks.py \
	bench/workloads.py

EXTRA_DIST += $(bench_sources) bench/README.md

.PHONY: bench

bench: all
	@ADDCOW_RUN='$(abs_top_builddir)/run' \
	BENCH_OUTPUT="$${BENCH_OUTPUT:-$(abs_top_builddir)/bench/results}" \
	python3 '$(srcdir)/bench/bench.py'
