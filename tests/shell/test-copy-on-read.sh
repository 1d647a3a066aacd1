#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# copy-on-read=on: what was read of the backing file is in the image file, also for the
# next server, which does without the backing file's bytes; writes stay on top of it,
# holes stay holes, and what cannot be kept fails no read.

. "$(dirname "$0")/../functions.sh"
requires nbdsh nbdcopy jq

# on DEPTH: what a map has there, in bytes, without holes.
on() {
    addcow map --output=json x.add-cow |
        jq -c "[.[] | select(.depth == $1 and .data) | [.start, .length]]"
}
all_is_kept() { expect_equal '[]' "$(on 1)" "left in the backing file"; }

# used FILE BYTES: waits until it has so much storage. A stop would end a fetch of what
# nobody waits for.
used() { wait_until '' has_used "$@" || fail "$1 has $(used_bytes "$1") bytes, expected $2"; }
has_used() { [ "$(used_bytes "$1")" -ge "$2" ]; }

random_file noise 4M
client_knows '
base = open("base.img", "rb").read()
def right(offset, length): assert h.pread(length, offset) == base[offset:offset + length], offset
'

# Read by one server, kept at its clean stop, found by the next, which cannot read the
# backing file. The first is a daemon: threads that it had before would be gone.
cp noise base.img
truncate -s 5M base.img    # and a hole
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
cksum base.img >before
start_daemon sock addcow x.add-cow copy-on-read=on
nbdcopy "$(uri sock)" got.img
cmp got.img base.img
expect_equal 8 "$(cat "/proc/$server_pid"/task/*/comm | grep -c '^addcow-fetch$')" "threads that fetch"
kill -TERM "$server_pid"
wait_until '' is_gone "$server_pid"
all_is_kept
addcow map --output=json x.add-cow |
    jq -e 'all(.data or .depth == 1) and (map(select(.data | not).length) | add) == 1048576' >map ||
    fail "the hole is not one of the backing file any more"
sound x.add-cow
with_faults start_server sock addcow x.add-cow copy-on-read=on
fault pread 1+ 5 base.img
client 'right(0, len(base))' 'h.cache(len(base), 0)'
[ ! -s fault.hits ] || fail "the backing file was read: $(cat fault.hits)"
no_fault
stop_server "$server_pid"
cksum base.img | cmp - before

# A small read fetches fetch-size=, aligned; a cache request keeps, too.
new_image
start_server sock addcow x.add-cow copy-on-read=on fetch-size=256k
client 'right(700000, 10)' 'h.cache(1, 3 * 1024 * 1024)'
used disk.raw 524288
stop_server "$server_pid"
expect_equal '[[524288,262144],[3145728,262144]]' "$(in_image x.add-cow)" "fetched by 256k"
new_image
start_server sock addcow x.add-cow copy-on-read=on
client 'right(700000, 10)'
stop_server "$server_pid"
expect_equal '[[655360,65536]]' "$(in_image x.add-cow)" "fetched by the default"

# On another image it is 1M.
addcow create -q -b x.add-cow -F add-cow -i y.raw y.add-cow
start_server sock addcow y.add-cow copy-on-read=on
client 'right(1700000, 10)'
used y.raw 1048576
stop_server "$server_pid"
expect_equal '[[1048576,1048576]]' "$(in_image y.add-cow)" "fetched of an image"
rm y.raw y.add-cow

# Written before, while and after it was read; then the server is killed.
new_image
start_daemon sock addcow x.add-cow copy-on-read=on
client 'h.pwrite(b"1" * 1000, 5000)' 'right(8 * K, K)' 'h.pwrite(b"2" * 2 * K, 8 * K)' 'h.flush()' \
    'right(20 * K, 20 * K)' 'assert h.pread(1000, 5000) == b"1" * 1000' \
    'assert h.pread(3 * K, 8 * K) == b"2" * 2 * K + base[10 * K:11 * K]'
kill_daemon "$server_pid"
cp base.img want.img
head -c 1000 /dev/zero | tr '\0' 1 | dd of=want.img bs=1000 seek=5 conv=notrunc status=none
head -c 131072 /dev/zero | tr '\0' 2 | dd of=want.img bs=65536 seek=8 conv=notrunc status=none
sound x.add-cow
start_server sock addcow x.add-cow copy-on-read=on
nbdcopy "$(uri sock)" got.img
cmp got.img want.img
stop_server "$server_pid"
nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" got.img'
cmp got.img want.img

# What cannot be kept is read all the same, and the log says so once.
new_image
with_faults start_server sock addcow x.add-cow copy-on-read=on
fault pwrite 1+ 28 disk.raw
client 'right(0, len(base))' 'right(0, len(base))'
stop_server "$server_pid"
logged 1 'so what is read from the backing file is not kept'
grep -q 'disk.raw: .*No space left on device; so what' sock.log || fail "$(cat sock.log)"
no_fault
sound x.add-cow

# What cannot be read is an error for who wants it.
with_faults start_server sock addcow x.add-cow copy-on-read=on
fault pread 1+ 5 base.img
client 'refused(lambda: h.pread(100, K))'
no_fault
# While the thread that fetches has not seen that it failed, who reads reads for itself only.
kept_when_read() { client 'right(K, 100)' && has_used disk.raw 65536; }
wait_until "$server_pid" kept_when_read || fail "not kept: $(cat sock.log)"
stop_server "$server_pid"
expect_equal '[[65536,65536]]' "$(in_image x.add-cow)" "kept in the end"

# A disk that is read only keeps nothing, and says so.
new_image
for how in "-r addcow x.add-cow" "addcow x.add-cow readonly=on" "addcow x.add-cow layer=top"; do
    # shellcheck disable=SC2086
    start_server sock $how copy-on-read=on
    client 'right(0, len(base))'
    stop_server "$server_pid"
    logged 1 'note: copy-on-read=on: the disk is read only, so what is read is not kept'
    expect_equal '[]' "$(in_image x.add-cow)" "kept with $how"
done
# Off, it keeps nothing either; nor where there is nothing to be read from.
start_server sock addcow x.add-cow fetch-size=1M
client 'right(0, len(base))'
stop_server "$server_pid"
expect_equal '[]' "$(in_image x.add-cow)" "kept without copy-on-read"
addcow create -q -s 1M -i z.raw z.add-cow
start_server sock addcow z.add-cow copy-on-read=on
nbdsh -u "$(uri sock)" -c 'assert h.pread(1048576, 0) == bytes(1048576)'
stop_server "$server_pid"

# Without threads no server that promises to keep.
if built_with_sanitizer; then
    echo "a thread that cannot be started is not tried: the sanitizer needs some, and does not end then"
    exit 0
fi
with_faults true
fault pthread_create 1+ 11 thread
if with_faults timeout 60 "$ADDCOW_RUN" nbdkit -f -U sock2 addcow x.add-cow copy-on-read=on 2>stderr; then
    fail "it has started without its threads"
fi
grep -q 'start a thread' stderr || fail "$(cat stderr)"
