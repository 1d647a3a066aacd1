#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Files on FUSE, with a file system of our own (tests/fuse) in three modes: a FUA
# write has the file synced; what is written and not synced yet is neither told
# as a hole, nor taken for one where zeroes are wanted or bits are loaded; a file
# that was removed, which FUSE hides until it is closed, is noticed.

. "$(dirname "$0")/../functions.sh"
requires nbdsh fusermount3 python3 mountpoint

small_fuse="$ADDCOW_BUILDDIR/tests/fuse/small-fuse"
[ -x "$small_fuse" ] || skip "built without libfuse3"
[ -r /dev/fuse ] && [ -w /dev/fuse ] || skip "no access to /dev/fuse"

K=65536
random_file noise $K

# mount_fuse MODE: the files of ./source at ./mnt, what it does in ./fuse.log.
mount_fuse() {
    rm -rf source fuse.log
    mkdir -p source mnt
    "$small_fuse" "$1" source fuse.log mnt 2>fuse.err &
    fuse_pid=$!
    at_exit "fusermount3 -u -z '$scratch/mnt' 2>/dev/null; wait $fuse_pid 2>/dev/null"
    wait_until "$fuse_pid" mountpoint -q mnt || skip "cannot mount: $(head -1 fuse.err)"
}

unmount_fuse() {
    fusermount3 -u mnt
    wait "$fuse_pid" || fail "small-fuse: $(cat fuse.err)"
}

# hold FILE OFFSET BYTE COUNT: another process has written that, and keeps the file
# open: closing it would have the kernel write.
hold() {
    rm -f held
    python3 -c '
import os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, bytes([int(sys.argv[3])]) * int(sys.argv[4]), int(sys.argv[2]))
with open("held.new", "w") as f: f.write("held\n")
os.rename("held.new", "held")
signal.pause()' "$@" &
    holder_pid=$!
    at_exit "kill $holder_pid 2>/dev/null"
    wait_for held "$holder_pid" || fail "cannot write $1"
}
let_go() {
    kill "$holder_pid"
    ends_with 143 "$holder_pid" "the process that kept a file open"
}

# A disk of 16 clusters; the base has data in the first, and holes.
create() {
    rm -f mnt/x.add-cow mnt/disk.raw mnt/base.img
    cp noise mnt/base.img
    truncate -s $((16 * K)) mnt/base.img
    addcow create -q -b base.img -F raw -i disk.raw mnt/x.add-cow
}

client_knows '
def extents(offset, count):
    found = []
    def each(context, at, entries, error):
        for length, flags in zip(entries[::2], entries[1::2]):
            found.append((length, flags))
    h.block_status(count, offset, each)
    return found
'

for mode in cached direct_io writeback; do
    mount_fuse "$mode"

    # FUA. The bit of the cluster is durable, so only the bytes matter.
    create
    start_server sock addcow mnt/x.add-cow sync-interval=0
    client 'h.pwrite(b"a" * K, 2 * K)' 'h.flush()'
    : >fuse.log
    client 'h.pwrite(b"f" * 512, 2 * K, fua)'
    has '^write disk.raw 131072+' fuse.log || fail "$mode: FUA write did not arrive: $(cat fuse.log)"
    sed '0,/^write disk.raw/d' fuse.log | has '^fsync disk.raw' ||
        fail "$mode: no sync after a FUA write: $(cat fuse.log)"

    # Extents, before a flush and after it.
    for _ in 1 2; do
        client 'h.pwrite(b"e" * 4 * K, 8 * K)' \
            'assert extents(8 * K, 4 * K) == [(4 * K, 0)], extents(8 * K, 4 * K)' \
            'assert extents(12 * K, 4 * K) == [(4 * K, 3)], extents(12 * K, 4 * K)' \
            'h.flush()' \
            'assert extents(8 * K, 4 * K) == [(4 * K, 0)], extents(8 * K, 4 * K)'
    done
    stop_server "$server_pid"

    # Zeroing: old bytes under a 0 bit, which no sync has covered.
    create
    hold mnt/disk.raw $((5 * K)) 103 $K
    start_server sock addcow mnt/x.add-cow sync-interval=0
    client 'h.pwrite(b"z" * 512, 5 * K + 512)' 'h.flush()' \
        'want = bytes(512) + b"z" * 512 + bytes(K - 1024)' \
        'assert h.pread(K, 5 * K) == want, "'"$mode"': old bytes show"'
    stop_server "$server_pid"
    let_go

    # A base that no sync has covered is no hole either. Each look has its own: a
    # program that closes a file has the kernel write, too. It is not the base that was
    # noted any more.
    create
    hold mnt/base.img $((3 * K)) 98 $K
    addcow map --identity=ignore --output=json mnt/x.add-cow >map.json
    jq -e 'any(.[]; .start == 3 * 65536 and .data)' map.json >/dev/null ||
        fail "$mode: the base's data is told as a hole: $(cat map.json)"
    let_go
    create
    hold mnt/base.img $((3 * K)) 98 $K
    start_server sock addcow mnt/x.add-cow sync-interval=0 identity=ignore
    client 'h.pwrite(b"c" * 512, 3 * K)' 'h.flush()' \
        'assert h.pread(K, 3 * K) == b"c" * 512 + b"b" * (K - 512), "'"$mode"': the base was not copied"'
    stop_server "$server_pid"
    let_go

    # Loading bits, in check and in the server: cluster 4 is allocated. Unlocked:
    # who locks looks at the name again, and so opens the file and closes it.
    create
    hold mnt/x.add-cow 4096 16 1
    addcow check -U --output=json mnt/x.add-cow >check.json || fail "$mode: $(cat check.json)"
    expect_equal 1 "$(jq '."allocated-clusters"' check.json)" "$mode: allocated clusters of check"
    let_go
    create
    start_server sock addcow mnt/x.add-cow sync-interval=0
    client 'h.pwrite(b"l" * K, 4 * K)' 'h.flush()'
    stop_server "$server_pid"
    # Taken back, and set again by who keeps the file open.
    truncate -s 4096 mnt/x.add-cow
    truncate -s 8192 mnt/x.add-cow
    hold mnt/x.add-cow 4096 16 1
    start_server sock addcow mnt/x.add-cow lock=off sync-interval=0
    client 'assert h.pread(K, 4 * K) == b"l" * K, "'"$mode"': a bit was not loaded"'
    stop_server "$server_pid"
    let_go

    # Removed: it goes when the server closes it.
    create
    for file in x.add-cow disk.raw; do
        create
        start_server sock addcow mnt/x.add-cow sync-interval=0
        client 'h.pwrite(b"r" * K, K)' 'h.flush()'
        rm "mnt/$file"
        client 'refused(h.flush)' 'assert h.pread(K, K) == b"r" * K'
        grep -q "$file: was removed while in use" sock.log || fail "$mode: $(cat sock.log)"
        stop_server "$server_pid"
    done

    # What a commit has written to the base is what its record says.
    create
    start_server sock addcow mnt/x.add-cow
    client 'h.pwrite(b"w" * 1000, 100)' 'h.pwrite(b"v" * 3 * K, 7 * K + 500)' \
        'open("want", "wb").write(h.pread(16 * K, 0))'
    stop_server "$server_pid"
    addcow commit -q mnt/x.add-cow
    cmp want mnt/base.img
    addcow compare -q mnt/x.add-cow want 2>noted || fail "$mode: the disk is not what it was"
    if grep -q 'was modified' noted; then fail "$mode: $(cat noted)"; fi

    # All of it, and what is there is the disk.
    create
    start_server sock addcow mnt/x.add-cow
    client 'h.pwrite(b"w" * 1000, 100)' 'h.pwrite(b"v" * 3 * K, 7 * K + 500)' 'h.zero(K, 8 * K)' \
        'h.trim(K, 0)' 'h.pwrite(b"u", 10)' 'open("want", "wb").write(h.pread(16 * K, 0))'
    stop_server "$server_pid"
    addcow flatten -q mnt/x.add-cow
    cmp want mnt/disk.raw
    addcow check mnt/x.add-cow >/dev/null || fail "$mode: not sound after flatten"
    unmount_fuse
done
