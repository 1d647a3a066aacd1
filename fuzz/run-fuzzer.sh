# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced by fuzz-NAME.sh with NAME as argument: runs the libFuzzer program of the
# build tree for FUZZ_SECONDS (60) from FUZZ_SEED (a new one) on a copy of the
# corpus, and says how far it got. An input that fails stays in
# FUZZ_ARTIFACTS (fuzz-artifacts/ of the build tree).
# shellcheck shell=bash

. "$(dirname "${BASH_SOURCE[0]}")/../tests/functions.sh"

fuzzer="$1"
seconds="${FUZZ_SECONDS:-60}"
# 1 .. 2^32 - 1; libFuzzer takes 0 for "choose one".
seed="${FUZZ_SEED:-$(($(od -A n -N 4 -t u4 /dev/urandom) % 4294967295 + 1))}"
builddir="${ADDCOW_BUILDDIR:-$(pwd)}"
artifacts="${FUZZ_ARTIFACTS:-$builddir/fuzz-artifacts}"
program="$builddir/fuzz/$fuzzer-fuzzer"

[ -x "$program" ] || fail "$program is not built (make check-fuzz builds it)"
mkdir -p "$artifacts"
cp -r "$srcdir/fuzz/corpus/$fuzzer" corpus
chmod -R u+w corpus
echo "seed: $seed (FUZZ_SEED sets it), $seconds seconds (FUZZ_SECONDS)"

# A small quarantine: freed memory is soon used again, which is faster.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}quarantine_size_mb=8"
status=0
"$program" -max_total_time="$seconds" -seed="$seed" -max_len=4608 -timeout=120 -report_slow_units=60 \
    -rss_limit_mb=1024 -dict="$srcdir/fuzz/addcow.dict" -print_final_stats=1 \
    -artifact_prefix="$artifacts/$fuzzer-" corpus >log 2>&1 || status=$?
if [ "$status" -ne 0 ]; then
    tail -n 60 log
    found="$(sed -n 's/.*Test unit written to //p' log | tail -n 1)"
    fail "$fuzzer fuzzer, exit status $status. The input: ${found:-none was written}
Again: $program $found"
fi
executions="$(sed -n 's/^stat::number_of_executed_units: *//p' log)"
[ "${executions:-0}" -gt 0 ] || { cat log; fail "$fuzzer fuzzer: nothing was executed"; }
sed -n 's/^\(stat::.*\)/\1/p' log
echo "$fuzzer fuzzer: $executions executions in $seconds seconds," \
    "$(grep -o 'cov: [0-9]* ft: [0-9]*' log | tail -n 1), $(find corpus -type f | wc -l) inputs in the corpus"
