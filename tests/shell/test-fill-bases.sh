#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A fill from bases that a server has: an NBD server that is frozen, gone and back, or frozen
# when nbdkit is to end; a qcow2 image, whose qemu-nbd ends when it is not needed any more; a
# chain; and flatten of the same.

. "$(dirname "$0")/../functions.sh"
if built_with_sanitizer; then
    skip "a strerror in libnbd leaves the C library's lock of locales wrong with the sanitizer preloaded, and nbdkit does not end"
fi
requires nbdsh nbdcopy qemu-img qemu-nbd

server_pid=
random_file noise 16M
cp noise src.raw
truncate -s 20M src.raw
base_uri="nbd+unix:///?socket=$PWD/base.sock"
base_pid=
start_base() { # FILTER-ARGUMENT...
    rm -f base.sock base.pid
    command nbdkit -f -U "$PWD/base.sock" -P "$PWD/base.pid" "--filter=delay" file src.raw "$@" 2>base.log &
    base_pid=$!
    at_exit "kill -9 $base_pid 2>/dev/null"
    wait_for base.pid "$base_pid"
}
overlay() { # of the base at the URI
    rm -f disk.raw x.add-cow
    addcow create -q -b "$base_uri" -F raw -i disk.raw x.add-cow
}
in_log() { wait_until "$server_pid" grep -q -- "$1" sock.log || fail "no '$1' in: $(cat sock.log)"; }
connections() { find "/proc/$base_pid/fd" -lname 'socket:*' 2>/dev/null | wc -l; }

# A slow one; when it is done, nobody is connected to it.
start_base rdelay=2ms
alone="$(connections)"
overlay
start_server sock addcow x.add-cow fill=all
client 'h.pwrite(b"1" * 5000, 70000)' 'h.flush()'
in_log 'was let go'
none_connected() { [ "$(connections)" -le "$alone" ]; }
wait_until "$server_pid" none_connected || fail "still connected: $(connections), $alone before"
kill -9 "$base_pid"
nbdcopy "$(uri sock)" got
stop_server "$server_pid"
cmp got disk.raw
cmp <(tail -c +131073 got) <(tail -c +131073 src.raw)

# Frozen in the middle, then thawed: the fill waits, clients use what is there.
start_base rdelay=20ms
overlay
start_server sock addcow x.add-cow fill=all timeout=1 fill-rate=8M
client 'h.pwrite(b"1" * K, 0)' 'h.flush()'
kill -STOP "$base_pid"
in_log 'so the fill waits for the backing file'
client 'h.pwrite(b"2" * K, K)' 'assert h.pread(2 * K, 0) == b"1" * K + b"2" * K' 'h.flush()'
kill -CONT "$base_pid"
in_log 'fill: it goes on'
# Gone, and back.
kill -9 "$base_pid"
start_base
in_log 'was let go'
stop_server "$server_pid"
cmp <(tail -c +131073 disk.raw) <(tail -c +131073 src.raw)
kill -9 "$base_pid"

# Of its threads only the first can be started: it goes on with that.
start_base
overlay
with_faults start_server sock addcow x.add-cow control=ctl sync-interval=0
addcow status ctl >status # nbdkit has written its process id before the first threads are there
fault pthread_create 2+ 11 thread
addcow fill ctl all --rate=4M
grep -q . fault.hits || fail "every thread was started"
expect_equal 1 "$(cat "/proc/$server_pid"/task/*/comm | grep -c '^addcow-fill$')" "threads that fill"
no_fault
addcow fill ctl resume --rate=0
in_log 'was let go'
stop_server "$server_pid"
cmp disk.raw src.raw
kill -9 "$base_pid"

# Frozen when the server is to end: that is not waited for.
start_base rdelay=1
overlay
start_server sock addcow x.add-cow fill=all timeout=3600 fill-rate=8M
some() { [ "$(used_bytes disk.raw)" -ge 1000000 ]; }
wait_until "$server_pid" some
kill -STOP "$base_pid"
client 'h.pwrite(b"3" * K, 19 * 1024 * 1024)'
stop_server "$server_pid"
# nbdkit before 1.34 ends itself when a client has gone with requests in flight.
kill -9 "$base_pid"
start_base
sound x.add-cow

# flatten goes on from there, and may be interrupted.
addcow flatten -q x.add-cow
cmp <(head -c 16M disk.raw) noise
cmp <(tail -c +19922945 disk.raw | head -c 65536) <(head -c 65536 /dev/zero | tr '\0' 3)
kill -9 "$base_pid"

# A qemu-nbd of ours.
qemu-img convert -q -f raw -O qcow2 src.raw src.qcow2
rm -f disk.raw x.add-cow
addcow create -q -b src.qcow2 -F qcow2 -i disk.raw x.add-cow
start_server sock addcow x.add-cow fill=all fill-delay=1
children() { cat "/proc/$server_pid"/task/*/children; }
[ -n "$(children)" ] || fail "no qemu-nbd"
in_log 'was let go'
childless() { [ -z "$(children)" ]; }
wait_until "$server_pid" childless || fail "qemu-nbd has not ended: $(children)"
rm src.qcow2
nbdcopy "$(uri sock)" got
stop_server "$server_pid"
cmp got src.raw

# A chain, which is let go as a whole.
qemu-img convert -q -f raw -O qcow2 src.raw src.qcow2
addcow create -q -b src.qcow2 -F qcow2 -i y.raw y.add-cow
nbdkit -U - addcow y.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"4\" * 65536, 65536)"'
addcow create -q -b y.add-cow -F add-cow -i z.raw z.add-cow
start_server sock addcow z.add-cow fill=all fill-exit=on
ends_with 0 "$server_pid" "nbdkit with a chain" sock.log
rm src.qcow2 y.raw y.add-cow
cmp <(head -c 131072 z.raw) <(head -c 65536 src.raw; head -c 65536 /dev/zero | tr '\0' 4)
cmp <(tail -c +131073 z.raw) <(tail -c +131073 src.raw)
