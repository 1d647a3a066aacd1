#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A file system that is full (a small tmpfs): clients get ENOSPC, the image stays
# sound and is read as before, and once there is space again everything goes on.
# The same for the tool's create and flatten. Also a read-only mount, where the
# tool's verbs that write say so.

. "$(dirname "$0")/../functions.sh"
requires nbdsh unshare

# In a mount name space of its own, so that nothing is left mounted.
if [ -z "${ADDCOW_IN_NAMESPACE:-}" ]; then
    how=(unshare -m)
    [ "$(id -u)" -eq 0 ] || how=(unshare -r -m)
    mkdir probe
    "${how[@]}" mount -t tmpfs none "$scratch/probe" 2>stderr ||
        skip "cannot mount a small file system here: $(head -n 1 stderr)"
    ADDCOW_IN_NAMESPACE=1 "${how[@]}" bash "$srcdir/tests/shell/test-no-space.sh"
    exit
fi

mkdir small
mount -t tmpfs -o size=4M none small
at_exit "umount -l '$scratch/small'"
random_file noise 3M
fill() { dd if=/dev/zero of=small/ballast bs=4K status=none 2>/dev/null && fail "it is not full" || [ -s small/ballast ]; }
full() { expect_equal 0 "$(stat -f -c %a small)" "blocks that are left"; }

client_knows '
base = open("noise", "rb").read()
def no_space(request): refused(request, "ENOSPC")
'

# The image file: writes that fail leave the disk as it was.
cp noise base.img
addcow create -q -b "$scratch/base.img" -F raw -i disk.raw small/x.add-cow
start_server sock addcow small/x.add-cow
client 'h.pwrite(b"1" * K, 0)' 'h.flush()'
fill
full
client 'no_space(lambda: h.pwrite(b"2" * 100, 5 * K + 10))' \
    'no_space(lambda: h.pwrite(b"2" * 8 * K, 10 * K))' \
    'no_space(lambda: h.zero(K, 20 * K, nbd.CMD_FLAG_NO_HOLE))' \
    'assert h.pread(K, 5 * K) == base[5 * K:6 * K]' \
    'assert h.pread(K, 20 * K) == base[20 * K:21 * K]' \
    'assert h.pread(K, 0) == b"1" * K' 'h.pwrite(b"3" * K, 0)' 'h.flush()' \
    'h.pread(8 * K, 10 * K)' 'assert not h.is_read_only()'
grep -q 'pwrite: .*/small/disk.raw: .*: No space left on device' sock.log || fail "$(cat sock.log)"
rm small/ballast
client 'h.pwrite(b"4" * 100, 5 * K + 10)' 'h.pwrite(b"5" * 8 * K, 10 * K)' 'h.flush()' \
    'assert h.pread(K, 5 * K) == base[5 * K:5 * K + 10] + b"4" * 100 + base[5 * K + 110:6 * K]' \
    'assert h.pread(8 * K, 10 * K) == b"5" * 8 * K' 'assert h.pread(K, 0) == b"3" * K'
fill
client 'no_space(lambda: h.pwrite(b"6" * 40 * K, 6 * K))'
stop_server "$server_pid"
sound small/x.add-cow
nbdkit -r -U - addcow small/x.add-cow --run 'nbdcopy "$uri" got.img'
cmp -n 65536 got.img <(head -c 65536 /dev/zero | tr '\0' 3)
rm -rf small/*

# The bits have their storage from the beginning, so that a flush finds room on a
# file system that has none. Where that could not be had (here it was given back),
# the write that needs it fails, and not the flush.
truncate -s 16G huge.img
addcow create -q -b "$scratch/huge.img" -F raw -i "$scratch/huge.raw" small/x.add-cow
expect_equal $((4096 + 32768)) "$(used_bytes small/x.add-cow)" "storage of the new add-cow file"
start_server sock addcow small/x.add-cow
fill
full
client 'h.pwrite(b"1" * K, 3 << 30)' 'h.flush()' 'h.pwrite(b"2" * K, 9 << 30)' 'h.flush()'
# Those of subclusters have none before a small write needs it.
client 'no_space(lambda: h.pwrite(b"3" * 100, 5 << 30))' 'h.flush()' \
    'assert h.pread(K, 5 << 30) == bytes(K)' 'assert not h.is_read_only()'
kill -KILL "$server_pid" # what is not on the disk now would be lost
ends_with 137 "$server_pid" "the server that was killed"
sound small/x.add-cow
nbdkit -r -U - addcow small/x.add-cow --run \
    'nbdsh -u "$uri" -c "assert h.pread(100, 3 << 30) == b\"1\" * 100" -c "assert h.pread(3, 9 << 30) == b\"2\" * 3"'
fallocate --punch-hole -o $((4096 + 5 * 4096)) -l 4096 small/x.add-cow
fill
full
start_server sock addcow small/x.add-cow
client 'no_space(lambda: h.pwrite(b"3" * 100, 11 << 30))' 'h.pwrite(b"4" * K, 13 << 30)' \
    'no_space(lambda: h.pwrite(b"3" * K, 11 << 30, fua))' \
    'no_space(lambda: h.zero(K, 11 << 30, nbd.CMD_FLAG_NO_HOLE))' \
    'h.flush()' 'assert not h.is_read_only()' 'assert h.pread(K, 11 << 30) == bytes(K)'
grep -q 'fallocate: .*/small/x.add-cow: .*: No space left on device' sock.log || fail "$(cat sock.log)"
rm small/ballast
client 'h.pwrite(b"3" * 100, 11 << 30)'
stop_server "$server_pid"
sound small/x.add-cow
rm -f small/* huge.*

# Image file and add-cow file on a file system that fills up: whatever was
# acknowledged, whole clusters or subclusters, is there after a clean stop.
mount -o remount,size=8M small
random_file huge.img 12M
for length in 65536 4096; do
    addcow create -q -b "$scratch/huge.img" -F raw -i disk.raw small/x.add-cow
    start_server sock addcow small/x.add-cow sync-interval=0
    client 'acknowledged = []; refused = 0' "
for n in range(192 * K // $length):
    try:
        h.pwrite(bytes([n % 251 + 1]) * $length, n * $length)
        acknowledged.append(n)
    except nbd.Error as error:
        assert error.errno == 'ENOSPC', error.errno
        refused += 1
" 'assert len(acknowledged) > 100, len(acknowledged)' 'assert refused > 0' 'print(*acknowledged)' >acknowledged
    stop_server "$server_pid"
    grep 'the server stops all the same' sock.log && fail "something was lost"
    sound small/x.add-cow
    nbdkit -r -U - addcow small/x.add-cow --run "nbdsh -u \"\$uri\" -c '
for n in map(int, open(\"acknowledged\").read().split()):
    assert h.pread($length, n * $length) == bytes([n % 251 + 1]) * $length, n
'" || fail "acknowledged writes of $length bytes were lost"
    echo "writes of $length: $(wc -w <acknowledged) acknowledged, all kept"
    rm -f small/*
done

# A clean stop needs no room. One that could not write says what is lost. (Here
# another program takes the storage of the bits away, and all room that was left.)
mount -o remount,size=64M small
addcow create -q -b "$scratch/huge.img" -F raw -i disk.raw small/x.add-cow
start_server sock addcow small/x.add-cow sync-interval=0
client 'h.pwrite(b"1" * K, 0)' 'h.pwrite(b"2" * 4096, 5 * K)'
fill
stop_server "$server_pid"
expect_equal 0 "$(wc -l <sock.log)" "lines of the log: $(cat sock.log)"
sound small/x.add-cow
nbdkit -r -U - addcow small/x.add-cow --run 'nbdsh -u "$uri" -c "
assert h.pread(65536, 0) == b\"1\" * 65536
assert h.pread(4096, 5 * 65536) == b\"2\" * 4096"'
rm small/ballast
start_server sock addcow small/x.add-cow sync-interval=0
client 'h.pwrite(b"3" * K, 2 * K)' 'h.pwrite(b"3" * 4096, 7 * K)'
fallocate --punch-hole -o $((4096 + 65536)) -l 4096 small/x.add-cow
fill
stop_server "$server_pid"
grep -q 'small/x.add-cow: .*: No space left on device; the server stops all the same: what was written to up to 69632 bytes of the disk since the last flush is lost, .*; nbdkit.s exit status does not show it' sock.log ||
    fail "$(cat sock.log)"
expect_equal 1 "$(wc -l <sock.log)" "lines of the log: $(cat sock.log)"
nbdkit -r -U - addcow small/x.add-cow --run 'nbdsh -u "$uri" -c "assert h.pread(65536, 0) == b\"1\" * 65536"'
rm -f small/* huge.*
mount -o remount,size=4M small

# create leaves nothing behind.
cp noise small/base.img
fill
full
before="$(ls small)"
expect_fails 1 addcow create -b base.img -F raw -i disk.raw small/x.add-cow
expect_equal 1 "$(wc -l <stderr)" "lines of message: $(cat stderr)"
grep -q 'No space left on device' stderr || fail "$(cat stderr)"
expect_equal "$before" "$(ls small)" "what is left behind"
rm small/ballast
addcow create -q -b base.img -F raw -i disk.raw small/x.add-cow

# flatten keeps what it has done, and goes on when there is space.
expect_fails 1 addcow flatten small/x.add-cow
expect_equal 1 "$(wc -l <stderr)" "lines of message: $(cat stderr)"
grep -q 'No space left on device; [1-9][0-9]* of 48 clusters are in the image file, and are kept; run it again' stderr ||
    fail "$(cat stderr)"
kept="$(sed 's/.*device; \([0-9]*\) of.*/\1/' stderr)"
addcow check --output=json small/x.add-cow >report || [ $? -eq 3 ] || fail "not sound"
grep -q "\"allocated-clusters\": $kept,\$" report || fail "$kept are not kept: $(cat report)"
sound small/x.add-cow
nbdkit -r -U - addcow small/x.add-cow --run 'nbdcopy "$uri" got.img'
cmp noise got.img
mount -o remount,size=16M small
addcow flatten -q small/x.add-cow
cmp noise small/disk.raw
addcow check -q small/x.add-cow

# Read only: who wants to write is told, who does not is served.
mount -o remount,ro small
for verb in flatten "check -r leaks" "check -r all" "create --force --discard -i disk.raw" "create -i new.raw -s 1M"; do
    file=small/x.add-cow
    case "$verb" in create\ -i*) file=small/new.add-cow ;; esac
    # shellcheck disable=SC2086  # words
    expect_fails 1 addcow $verb "$file"
    expect_equal 1 "$(wc -l <stderr)" "lines of message ($verb): $(cat stderr)"
    grep -q 'small/.*: Read-only file system' stderr || fail "$verb: $(cat stderr)"
done
addcow check -q small/x.add-cow
addcow info small/x.add-cow >/dev/null
start_server sock addcow small/x.add-cow
client 'assert h.is_read_only()' 'assert h.pread(K, 5 * K) == base[5 * K:6 * K]'
stop_server "$server_pid"
mount -o remount,rw small
