#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# sync-interval=: what a client wrote and never flushed survives kill -9 of the
# server once the interval is over. With 0 the bits wait for a flush. The
# server is a daemon here: a thread started before its fork would be gone.

. "$(dirname "$0")/../functions.sh"
requires nbdsh od

# bits FILE: those of the first subclusters of its first eight clusters, as a decimal
# number. The second bitmap of such a small disk is at 4096 + 65536, and a cluster has
# two bytes of it.
bits() {
    [ "$(stat -c %s "$1")" -gt 69632 ] || { echo 0; return; }
    od -An -v -tu1 -w16 -j69632 -N16 "$1" |
        awk '{ for (i = 8; i > 0; i--) n = 2 * n + $(2 * i - 1) % 2 } END { print n }'
}

# wait_for_bits FILE NUMBER
wait_for_bits() {
    wait_until '' has_bits "$1" "$2" || fail "$1: bits are $(bits "$1") after minutes, expected $2"
}
has_bits() { [ "$(bits "$1")" -eq "$2" ]; }

# write SOCKET CLUSTER: 100 bytes in the middle of it, not flushed.
write() { nbdsh -u "$(uri "$1")" -c "h.pwrite(b'$2' * 100, $2 * 65536 + 1000)"; }

# flush_threads PID: how many threads that flush it has.
flush_threads() { cat "/proc/$1"/task/*/comm | awk '$0 == "addcow-flush" { n++ } END { print n + 0 }'; }

random_file base.img 1M
for name in on off; do
    addcow create -q -b base.img -F raw -i "$name.raw" "$name.add-cow"
done
cp base.img want.img

start_daemon off addcow off.add-cow sync-interval=0
off_pid="$server_pid"
start_daemon on addcow on.add-cow sync-interval=1
on_pid="$server_pid"
write off 0

# One round of the interval after the other. Bits come without a flush, here
# and only here.
want=0
for cluster in 0 1 2 3; do
    write on "$cluster"
    want=$((want | 1 << cluster))
    wait_for_bits on.add-cow "$want"
    head -c 100 /dev/zero | tr '\0' "$cluster" |
        dd of=want.img bs=1 seek=$((cluster * 65536 + 1000)) conv=notrunc status=none
done
expect_equal 0 "$(bits off.add-cow)" "bits with sync-interval=0"
expect_equal 1 "$(flush_threads "$on_pid")" "threads that flush, sync-interval=1"
expect_equal 0 "$(flush_threads "$off_pid")" "threads that flush, sync-interval=0"

# Killed, both. What the interval had passed over is there, though no client
# ever flushed; without an interval nothing is.
kill_daemon "$on_pid"
kill_daemon "$off_pid"
for name in on off; do
    nbdkit -r -U - addcow "$name.add-cow" --run "nbdcopy \"\$uri\" $name.img"
    addcow check "$name.add-cow" || expect_equal 3 $? "addcow check: more than leaks"
done
cmp want.img on.img || fail "a write older than the interval is lost"
cmp base.img off.img || fail "with sync-interval=0 something was published"

# The default is on: the thread is there as soon as somebody may write.
start_daemon default addcow off.add-cow
write default 5
expect_equal 1 "$(flush_threads "$server_pid")" "threads that flush, by default"
kill_daemon "$server_pid"

# None where nobody may write.
for how in -r layer=top; do
    case "$how" in
        -r) start_daemon reader -r addcow off.add-cow ;;
        *) start_daemon reader addcow off.add-cow "$how" ;;
    esac
    nbdsh -u "$(uri reader)" -c 'h.pread(1, 0)'
    expect_equal 0 "$(flush_threads "$server_pid")" "threads that flush, $how"
    kill_daemon "$server_pid"
done

# A clean stop does not wait for the interval, which is a day, and flushes.
start_server long addcow off.add-cow sync-interval=86400
write long 6
stop_server "$server_pid"
expect_equal 64 "$(($(bits off.add-cow) & 64))" "the bit of a write before the clean stop"
