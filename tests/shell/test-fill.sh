#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fill=: the rest is copied up while clients write, and then the image file alone is the
# disk, also under the running server, whose base is deleted; over restarts and kills; its
# rate, its delay and fill-exit=on; touched; disks that cannot be filled.

. "$(dirname "$0")/../functions.sh"
requires nbdsh nbdcopy jq

server_pid=
random_file noise 24M
client_knows '
base = open("noise", "rb").read()
base += bytes(h.get_size() - len(base))
def right(offset, length): assert h.pread(length, offset) == base[offset:offset + length], offset
'
# logged WORDS: waits until that is in the log of the server at ./sock.
in_log() { wait_until "$server_pid" grep -q -- "$1" sock.log || fail "no '$1' in: $(cat sock.log)"; }
holds() { # FILE: whether the server has it open
    find "/proc/$server_pid/fd" -lname "$(realpath "$1")" | grep -q .
}
image() { # a larger one, with holes in its base
    new_image
    rm base.img disk.raw x.add-cow
    cp noise base.img
    truncate -s 32M base.img
    addcow create -q -b base.img -F raw -i disk.raw x.add-cow
}
allocated() { addcow info --output=json x.add-cow | jq '."allocated-clusters"'; }

# While a client writes all the time. Then the base goes.
image
start_server sock addcow x.add-cow fill=all fill-rate=16M
holds base.img
client '
import random
model = bytearray(base)
seed = random.Random(7)
for i in range(400):
    offset = seed.randrange(len(model) - 70000)
    data = seed.randbytes(seed.choice([512, 4096, 5000, 65536]))
    if i % 9 == 0:
        h.zero(len(data), offset)
        data = bytes(len(data))
    else:
        h.pwrite(data, offset)
    model[offset:offset + len(data)] = data
    if i % 50 == 0: h.flush()
    at = seed.randrange(len(model) - 70000)
    assert h.pread(70000, at) == model[at:at + 70000], at
open("model", "wb").write(model)
'
in_log 'all of the disk is in .*/disk.raw now; the backing file is not needed any more'
wait_until '' eval '! holds base.img' || fail "the base is still open"
logged 1 'backing file'
rm base.img
nbdcopy "$(uri sock)" got && cmp got model
client 'h.pwrite(b"after", 1000)' 'h.zero(5000, 20 * 1024 * 1024 + 5)' 'h.trim(K, 0)' 'h.flush()' \
    'h.block_status(h.get_size(), 0, lambda *args: 0)' 'h.cache(3 * K, 100)' \
    'assert h.pread(5000, 20 * 1024 * 1024 + 5) == bytes(5000)'
nbdinfo --json "$(uri sock)" | jq -e '.exports[0].description |
    (contains("backing") | not) and contains("all allocated")' >/dev/null ||
    fail "the description of a disk without its base"
nbdcopy "$(uri sock)" got
stop_server "$server_pid"
cmp got disk.raw
addcow check -q x.add-cow
addcow info --output=json x.add-cow | jq -e '."all-allocated"' >/dev/null
# A hole of the base is one of the image file.
[ "$(used_bytes disk.raw)" -lt $((31 * 1024 * 1024)) ] || fail "holes were filled: $(used_bytes disk.raw)"

# Stopped at once, whatever it has to do; and what it did is found by the next one.
image
start_server sock addcow x.add-cow fill=all fill-rate=2M
has_some() { [ "$(used_bytes disk.raw)" -ge 1000000 ]; }
wait_until "$server_pid" has_some || fail "nothing is copied"
stop_server "$server_pid"
some="$(allocated)"
[ "$some" -gt 0 ] && [ "$some" -lt 512 ] || fail "$some of 512 clusters after a stop"
# Killed, with what the interval has brought to the disk.
start_daemon sock addcow x.add-cow fill=all fill-rate=4M sync-interval=1
more() { [ "$(addcow info -U --output=json x.add-cow | jq '."allocated-clusters"')" -gt "$some" ]; }
wait_until "$server_pid" more || fail "nothing is published while it fills"
kill_daemon "$server_pid"
sound x.add-cow
[ "$(allocated)" -gt "$some" ] || fail "$(allocated) clusters after a kill, $some before"
# And to its end, without a client: exit 0.
with_faults start_server sock addcow x.add-cow fill=all fill-exit=on
ends_with 0 "$server_pid" "nbdkit with fill-exit=on" sock.log
rm base.img
cmp <(head -c 24M disk.raw) noise
addcow check -q x.add-cow

# A client that is there keeps it from ending.
image
start_server sock addcow x.add-cow fill=all fill-exit=on fill-delay=1
client 'import time' 'h.pwrite(b"x", 0)
while b"was let go" not in open("sock.log", "rb").read(): time.sleep(0.05)
time.sleep(0.3)' 'right(5 * K, K)' 'h.flush()'
ends_with 0 "$server_pid" "nbdkit with fill-exit=on, after its client" sock.log

# A delay, during which nothing is copied, and which a stop does not wait for.
image
start_server sock addcow x.add-cow fill=all fill-delay=3600
client 'right(0, K)'
stop_server "$server_pid"
expect_equal 0 "$(allocated)" "clusters after a delay that was not over"

# One that 'resume' ends. fill-rate=0 is no limit.
start_server sock addcow x.add-cow fill=all fill-delay=3600 fill-rate=0 control=ctl
fill_of() { addcow status ctl --output=json | jq -r ".fill | $1"; }
expect_equal 'delayed 0' "$(fill_of '"\(.state) \(.limit)"')" "state and limit of a fill that is delayed"
timeout 120 "$ADDCOW_RUN" addcow fill ctl resume --wait >out || fail "a fill that is delayed, and resumed: $(cat out sock.log)"
stop_server "$server_pid"
cmp <(head -c 24M disk.raw) noise

# What it says of how far it is is so after a failure, too: of an image file that may not get
# larger, in the middle of a piece, and of a base that was truncated.
new_image
rm -f sock
(ulimit -f 10240 && exec "$ADDCOW_RUN" nbdkit -f -U sock -P limited.pid addcow x.add-cow fill=all control=ctl 2>sock.log) &
server_pid=$!
at_exit "kill $server_pid 2>/dev/null; wait $server_pid 2>/dev/null"
wait_for limited.pid "$server_pid" || fail "no server: $(cat sock.log)"
in_log 'so the fill waits'
tried() { [ "$(fill_of .retries)" -ge 3 ]; }
wait_until "$server_pid" tried || fail "not tried again: $(cat sock.log)"
expect_equal "waiting $((10 << 20)) $((10 << 20)) $((14 << 20))" \
    "$(fill_of '"\(.state) \(.position) \(.copied) \(.left)"')" "a fill that met a limit"
stop_server "$server_pid"
expect_equal 160 "$(allocated)" "clusters of a fill that met a limit"
new_image
start_server sock addcow x.add-cow fill=all control=ctl fill-delay=3600
truncate -s 10M base.img
addcow fill ctl resume
in_log 'so the fill waits'
wait_until "$server_pid" tried || fail "not tried again: $(cat sock.log)"
expect_equal "waiting $((10 << 20)) $((10 << 20)) $((14 << 20))" \
    "$(fill_of '"\(.state) \(.position) \(.copied) \(.left)"')" "a fill over a base that was truncated"
stop_server "$server_pid"
expect_equal 160 "$(allocated)" "clusters of a fill over a base that was truncated"

# Only what was touched, also later. A small write makes a cluster of two parts.
image
start_server sock addcow x.add-cow fill=touched
client 'h.pwrite(b"1" * 4096, 10 * K)' 'h.pwrite(b"2" * 700, 21 * K - 300)' 'h.flush()'
touched() { [ "$(addcow info -U --output=json x.add-cow | jq '."allocated-clusters"')" -eq "$1" ]; }
in_log 'no cluster is in the image file in part only'
publish() { client 'h.flush()'; touched 3; }
wait_until "$server_pid" publish || fail "not completed: $(allocated)"
holds base.img
stop_server "$server_pid"
expect_equal 3 "$(allocated)" "clusters that were touched"
addcow check -q x.add-cow

# All was written by clients: the base is let go, without a fill.
image
start_server sock addcow x.add-cow sync-interval=1
client 'h.pwrite(base[:16 << 20], 0)' 'h.pwrite(base[16 << 20:], 16 << 20)'
in_log 'was let go'
rm base.img
client 'right(0, 1 << 20)'
stop_server "$server_pid"

# What cannot be filled is served all the same.
image
for option in readonly=on layer=top; do
    start_server sock addcow x.add-cow fill=all "$option"
    client 'right(3 * K, K)'
    logged 1 'the disk is read only, so nothing is filled'
    stop_server "$server_pid"
done
start_server sock -r addcow x.add-cow fill=all
logged 1 'the disk is read only, so nothing is filled'
stop_server "$server_pid"
# Not, if its end is waited for.
for arguments in "-r addcow x.add-cow fill=all" "addcow x.add-cow fill=touched readonly=on" \
    "addcow x.add-cow control=ctl layer=top"; do
    # shellcheck disable=SC2086
    expect_fails 1 timeout 60 "$ADDCOW_RUN" nbdkit -f -U sock2 $arguments fill-exit=on
    grep -q 'x.add-cow: the disk is read only, so nothing is filled, and fill-exit=on would never end' stderr ||
        fail "$(cat stderr)"
    expect_equal 1 "$(wc -l <stderr)" "lines about fill-exit=on of a disk that is read only"
    [ ! -e ctl ] || fail "a control socket of a server that has not started"
done
expect_equal 0 "$(allocated)" "clusters that were filled in a disk that is read only"

# A base that cannot be read in one place for a while.
with_faults start_server sock addcow x.add-cow fill=all
stop_server "$server_pid"
image
fault pread 3+ 5 base.img
with_faults start_server sock addcow x.add-cow fill=all
in_log 'so the fill waits for the backing file'
client 'h.pwrite(b"1" * K, 0)' 'h.flush()'
no_fault
in_log 'fill: it goes on'
in_log 'was let go'
logged 1 'so the fill waits'
stop_server "$server_pid"
cmp <(tail -c +65537 disk.raw | head -c 23M) <(tail -c +65537 noise | head -c 23M)
no_fault

# No thread can be started, that of the fill or that of the background flush: then there is
# no fill, its rate is as it was, and another start, later, works.
if built_with_sanitizer; then
    echo "not tried: a thread that cannot be started; AddressSanitizer's nbdkit does not end after that"
    exit 0
fi
for interval in 0 60; do
    image
    with_faults start_server sock addcow x.add-cow control=ctl "sync-interval=$interval"
    addcow status ctl >status # nbdkit has written its process id before the first threads are there
    fault pthread_create 1 11 thread
    expect_fails 1 addcow fill ctl all --rate=1k
    grep -q 'start a thread' stderr || fail "$(cat stderr)"
    expect_equal 'off off 0' "$(addcow status ctl --output=json | jq -r '.fill | "\(.mode) \(.state) \(.limit)"')" \
        "mode, state and limit of a fill that could not be started"
    no_fault
    timeout 120 "$ADDCOW_RUN" addcow fill ctl all --wait >out || fail "a second start: $(cat out sock.log)"
    stop_server "$server_pid"
    cmp <(head -c 24M disk.raw) noise
done
