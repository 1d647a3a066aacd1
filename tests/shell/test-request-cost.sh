#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What a request of 4 KiB that takes no lock costs in our own code, counted in
# instructions by callgrind: no more than a tenth above tests/cost/baseline.
# Unlike a time, that is the same on a busy machine. It does depend on compiler
# and flags; those that the baseline does not name are skipped.
#
# And what statistics add to a request, which are always on: 3 % at most of what one costs
# a server, nbdkit's part with it.

. "$(dirname "$0")/../functions.sh"
program="$ADDCOW_BUILDDIR/tests/cost/request-cost"
baseline="$srcdir/tests/cost/baseline"
[ -x "$program" ] || skip "tests/cost/request-cost was not built"
requires valgrind

# By what and how it was built, without the flags that change no instruction.
built=
for word in $("$program" built); do
    case "$word" in
    -W?,*) ;; # for the linker and the like
    -g* | -W*) continue ;;
    esac
    built="$built${built:+ }$word"
done
# instructions KIND COUNT: of a run of the program.
instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$@" >log 2>&1 ||
        { cat log >&2; fail "callgrind of request-cost $*"; }
    collected log
}
# collected LOG: the number in it.
collected() {
    awk '$2 == "Collected" { n = $NF } END { if (!n) exit 1; print n }' "$1" ||
        { cat "$1" >&2; fail "callgrind gave no number"; }
}

# of_server COUNT: of a server that has so many reads of 4 KiB, one after the other.
of_server() {
    local pid
    rm -f sock pid
    valgrind --tool=callgrind --callgrind-out-file=/dev/null nbdkit -f -U sock -P pid \
        "$ADDCOW_BUILDDIR/plugin/.libs/nbdkit-addcow-plugin.so" x.add-cow >server.log 2>&1 &
    pid=$!
    at_exit "kill $pid 2>/dev/null"
    wait_for pid "$pid" || { cat server.log >&2; fail "no server under callgrind"; }
    nbdsh -u "$(uri sock)" -c "for i in range($1): h.pread(4096, i % 16 * 4096)" -c 'h.shutdown()'
    stop_server "$pid" >&2
    collected server.log
}

requires nbdsh
random_file base.img 1M
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
request=$((($(of_server 3000) - $(of_server 1000)) / 2000))
counting=$((($(instructions statistics 20000) - $(instructions statistics 10000)) / 10000))
echo "statistics: $counting instructions a request, of $request in all"
[ "$request" -gt 500 ] || fail "a request of $request instructions cannot be"
[ "$counting" -gt 0 ] || fail "to count a request cannot cost nothing"
[ $((counting * 100)) -le $((request * 3)) ] ||
    fail "statistics take $counting instructions of $request, more than 3 %"

awk -v built="$built: " 'index($0, built) == 1 { print substr($0, length(built) + 1) }' \
    "$baseline" >allowed
[ -s allowed ] || skip "tests/cost/baseline has no numbers for $built"

# What comes before the requests and after them is the same in both runs.
requests=10000 grown=
while read -r kind allowed; do
    once="$(instructions "$kind" "$requests")"
    twice="$(instructions "$kind" $((2 * requests)))"
    cost=$(((twice - once + requests / 2) / requests))
    echo "$kind: $cost instructions a request, baseline $allowed ($built)"
    if [ $((cost * 10)) -gt $((allowed * 11)) ]; then
        grown="$grown; $kind takes $cost instructions, baseline $allowed"
    elif [ $((cost * 10)) -lt $((allowed * 9)) ]; then
        echo "$kind: so much cheaper; make $cost the baseline, so that it stays"
    fi
done <allowed
[ -z "$grown" ] ||
    fail "more than a tenth above the baseline${grown}. Make it cheaper, or state the new" \
        "number in tests/cost/baseline, with the reason in the commit"
