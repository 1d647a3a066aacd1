#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A file system is made in an image through nbdfuse, filled, checked, and is
# still sound when read from the files again.

. "$(dirname "$0")/../functions.sh"
requires nbdfuse mke2fs e2fsck debugfs fusermount3
[ -c /dev/fuse ] || skip "no /dev/fuse"

truncate -s 32M base.img
mke2fs -q -t ext4 -d "$srcdir/docs" base.img
before="$(sha base.img)"
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
start_server sock addcow x.add-cow

mkdir mnt
nbdfuse mnt --unix "$scratch/sock" &
fuse_pid=$!
at_exit "fusermount3 -u '$scratch/mnt' 2>/dev/null; wait $fuse_pid 2>/dev/null"
wait_for mnt/nbd "$fuse_pid" || fail "nbdfuse did not mount"

random_file noise 2M
debugfs -w -R "write noise noise" mnt/nbd 2>/dev/null
debugfs -w -R "rm format.md" mnt/nbd 2>/dev/null
e2fsck -fn mnt/nbd
fusermount3 -u mnt
wait "$fuse_pid"
stop_server "$server_pid"

nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" out.img'
e2fsck -fn out.img
debugfs -R "dump noise got" out.img 2>/dev/null
cmp noise got
if debugfs -R "stat format.md" out.img 2>/dev/null | has Inode; then
    fail "format.md is still there"
fi
expect_equal "$before" "$(sha base.img)" "the backing file changed"

# And a whole file system made inside the image, none in the backing file.
addcow create -q -i new.raw -s 16M new.add-cow
start_server sock2 addcow new.add-cow
nbdfuse mnt --unix "$scratch/sock2" &
fuse_pid=$!
wait_for mnt/nbd "$fuse_pid" || fail "nbdfuse did not mount"
mke2fs -q -F -t ext4 -d "$srcdir/docs" mnt/nbd
fusermount3 -u mnt
wait "$fuse_pid"
stop_server "$server_pid"
e2fsck -fn new.raw
