#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The manual's recipe for a qcow2 base: nbdfuse over an empty file. Where nothing
# is mounted there, the base is refused, before and after.

. "$(dirname "$0")/../functions.sh"
requires nbdfuse qemu-nbd qemu-img nbdcopy fusermount3
[ -e /dev/fuse ] || skip "there is no /dev/fuse"

random_file content.img 1M
qemu-img convert -f raw -O qcow2 content.img base.qcow2
touch base.raw
expect_fails 1 addcow create -b base.raw -F raw -i disk.raw x.add-cow
grep -q 'base.raw: the backing file is empty' stderr || fail "$(cat stderr)"

nbdfuse -P nbdfuse.pid base.raw --socket-activation qemu-nbd -r -f qcow2 base.qcow2 2>nbdfuse.log &
mounter=$!
at_exit "fusermount3 -u base.raw 2>/dev/null; kill $mounter 2>/dev/null; wait $mounter 2>/dev/null"
wait_for nbdfuse.pid "$mounter" || skip "nbdfuse cannot mount here: $(cat nbdfuse.log)"

addcow create -q -b base.raw -F raw -i disk.raw x.add-cow
nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" got.img'
cmp got.img content.img
fusermount3 -u base.raw
wait "$mounter" || fail "nbdfuse: $(cat nbdfuse.log)"

expect_fails 1 "$ADDCOW_RUN" nbdkit -r -U - addcow x.add-cow --run true
grep -q 'base.raw: the backing file is empty' stderr || fail "$(cat stderr)"
expect_fails 1 addcow flatten x.add-cow
grep -q 'base.raw: the backing file is empty' stderr || fail "$(cat stderr)"
