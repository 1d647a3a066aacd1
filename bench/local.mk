# SPDX-License-Identifier: LGPL-2.1-or-later
# "make bench": see bench/README.md. Installs nothing, and is no part of
# "make check", which has tests/shell/test-bench.sh to see that it works.

bench_sources = \
	bench/bases.py \
	bench/bench.py \
	bench/boot_trace.py \
	bench/client.py \
	bench/fleet.py \
	bench/layers.py \
	bench/live.py \
	bench/qemu_job.py \
	bench/ratios.gp \
	bench/report.py \
	bench/servers.py \
	bench/settings.py \
	bench/small_writes.py \
	bench/task_files.py \
	bench/tasks.py \
	bench/tools.py \
	bench/workloads.py

# What README.md and docs/performance.md point to.
bench_results = \
	bench/results/2026-11-27.json bench/results/2026-11-27.md \
	bench/results/2026-11-27-btrfs.json bench/results/2026-11-27-btrfs.md \
	bench/results/2026-11-27-map.json bench/results/2026-11-27-map.md \
	bench/results/2026-11-27-xfs.json bench/results/2026-11-27-xfs.md \
	bench/results/2026-11-28.json bench/results/2026-11-28.md \
	bench/results/2026-11-28-again.json bench/results/2026-11-28-again.md \
	bench/results/2026-11-28-bases.json bench/results/2026-11-28-bases.md \
	bench/results/2026-11-28-cluster-4k.json bench/results/2026-11-28-cluster-4k.md \
	bench/results/2026-11-28-cluster-4k-open.json bench/results/2026-11-28-cluster-4k-open.md \
	bench/results/2026-11-28-subclusters.json bench/results/2026-11-28-subclusters.md \
	bench/results/2026-11-28-tools.json bench/results/2026-11-28-tools.md \
	bench/results/2026-11-29-live.json bench/results/2026-11-29-live.md \
	bench/results/2026-11-28.png bench/results/2026-11-28.svg \
	bench/results/2026-11-28-short.png bench/results/2026-11-28-short.svg

EXTRA_DIST += $(bench_sources) $(bench_results) bench/README.md

.PHONY: bench

bench: all
	@ADDCOW_RUN='$(abs_top_builddir)/run' \
	BENCH_OUTPUT="$${BENCH_OUTPUT:-$(abs_top_builddir)/bench/results}" \
	python3 '$(srcdir)/bench/bench.py'
