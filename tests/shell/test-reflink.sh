#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# File systems with reflinks (XFS and btrfs, in files): copy-up and flatten share
# the backing file's storage instead of copying it, and the backing file stays as
# it is whatever is written afterwards. An image file that has storage already keeps
# it. With a backing file on another file
# system the bytes are copied.

. "$(dirname "$0")/../functions.sh"
requires nbdsh unshare mkfs.xfs mkfs.btrfs filefrag
[ "$(id -u)" -eq 0 ] || skip "only root can mount a loop device"

# In a mount name space of its own, so that nothing is left mounted.
if [ -z "${ADDCOW_IN_NAMESPACE:-}" ]; then
    mkdir probe
    for kind in xfs btrfs; do
        truncate -s 512M probe.fs
        "mkfs.$kind" -q probe.fs
        unshare -m mount -o loop "$scratch/probe.fs" "$scratch/probe" 2>stderr ||
            skip "cannot mount a file with $kind here: $(head -n 1 stderr)"
        rm probe.fs
    done
    ADDCOW_IN_NAMESPACE=1 unshare -m bash "$srcdir/tests/shell/test-reflink.sh"
    exit
fi

random_file noise 32M
used() { sync -f "$1" && df --output=used -k "$1" | tail -n 1; }
shared() { filefrag -v "$1" | awk '/shared/ { n++ } END { print n + 0 }'; }

# change STATEMENTS: change the disk and, alike, the file "model".
change() {
    nbdsh -u "$(uri sock)" -c '
K = 65536
model = bytearray(open("model", "rb").read())
def put(at, data):
    h.pwrite(data, at)
    model[at:at + len(data)] = data
' -c "$1" -c '
h.flush()
assert h.pread(len(model), 0) == model
open("model", "wb").write(model)
'
}

for kind in xfs btrfs; do
    truncate -s 512M $kind.fs
    "mkfs.$kind" -q $kind.fs
    mkdir $kind
    mount -o loop $kind.fs $kind
    at_exit "umount -l '$scratch/$kind'"

    cp noise model
    cp noise $kind/base.img
    addcow create -q -b base.img -F raw -i disk.raw $kind/x.add-cow
    before=$(used $kind)
    start_server sock addcow $kind/x.add-cow
    # One write in each cluster: flatten has 60 KiB of each to copy, or to share.
    change '
for cluster in range(len(model) // K):
    put(cluster * K + cluster % 16 * 4096, bytes([cluster % 251 + 1]) * 4096)
'
    stop_server "$server_pid"
    addcow flatten -q $kind/x.add-cow
    cmp model $kind/disk.raw
    [ "$(shared $kind/disk.raw)" -gt 0 ] || fail "$kind: nothing is shared"
    grown=$(($(used $kind) - before))
    # 4 KiB were written in each cluster, 2 MiB in all.
    [ "$grown" -lt 8192 ] || fail "$kind: $grown KiB more are used, of 32768"
    # Into what is shared now.
    start_server sock addcow $kind/x.add-cow
    change '
for cluster in range(0, len(model) // K, 3):
    put(cluster * K + 1000, b"again" * 2000)
'
    stop_server "$server_pid"
    cmp noise $kind/base.img || fail "$kind: the backing file was changed"
    cmp model $kind/disk.raw
    addcow check $kind/x.add-cow

    # flatten shares, too; and the image file then stands alone.
    addcow create -q -b base.img -F raw -i flat.raw $kind/flat.add-cow
    before=$(used $kind)
    addcow flatten -q $kind/flat.add-cow
    grown=$(($(used $kind) - before))
    [ "$grown" -lt 4096 ] || fail "$kind: flatten used $grown KiB, of 32768"
    cmp noise $kind/flat.raw
    cmp noise $kind/flat.raw

    # An image file that was given its room before keeps it, by flush and by flatten;
    # in half of it there was none.
    truncate -s 32M $kind/room.raw
    fallocate -l 16M $kind/room.raw
    cp noise model
    addcow create -q -b base.img -F raw -i room.raw $kind/room.add-cow
    start_server sock addcow $kind/room.add-cow
    change '
for cluster in range(0, len(model) // K, 2):
    put(cluster * K, b"x" * 4096)
'
    stop_server "$server_pid"
    addcow flatten -q $kind/room.add-cow
    cmp model $kind/room.raw
    sync -f $kind
    first_shared="$(filefrag -v -b1 $kind/room.raw | sed -n 's/^ *[0-9]*: *\([0-9]*\)\.\..*shared.*/\1/p' | head -n 1)"
    [ "${first_shared:-0}" -ge $((16 * 1024 * 1024)) ] ||
        fail "$kind: shared from byte $first_shared on, where the file had storage"

    rm $kind/base.img $kind/flat.add-cow
    cmp noise $kind/flat.raw

    # Nothing can be shared with another file system.
    addcow create -q -b "$scratch/noise" -F raw -i apart.raw $kind/apart.add-cow
    addcow flatten -q $kind/apart.add-cow
    cmp noise $kind/apart.raw
    echo "$kind: 32 MiB with a write in each cluster"
done
