#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What a layer has as zeroes is zeroes in a qcow2 over a backing file with data there, also
# where the same cluster of that is written to: by commit into a qcow2 and to a server, and by
# export. qemu-nbd 7.2 loses one of two that are in flight at once.

. "$(dirname "$0")/../functions.sh"
requires nbdsh nbdcopy qemu-img qemu-nbd

# 64 clusters with a little data each, the rest of them sparse.
python3 -c '
base = open("base.raw", "wb")
base.truncate(64 << 16)
for cluster in range(64):
    base.seek((cluster << 16) + 5 * 4096 + 100)
    base.write(b"U")'

# layer BACKING...: an overlay in which that is zeroes, and something else is written.
layer() {
    rm -f disk.raw x.add-cow
    addcow create -q -i disk.raw "$@" x.add-cow
    nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "
for cluster in range(64):
    h.zero(4096, (cluster << 16) + 5 * 4096)
    h.pwrite(b\"x\" * 4096, cluster << 16)
h.flush()"'
}

layer -b base.raw -F raw
nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" want.raw'
for round in 1 2 3; do
    addcow export -q x.add-cow exported.qcow2
    qemu-img compare -q -f raw -F qcow2 want.raw exported.qcow2 || fail "export, round $round"
    rm exported.qcow2
done

for round in 1 2 3; do
    qemu-img create -q -f qcow2 -F raw -b base.raw middle.qcow2
    layer -b middle.qcow2 -F qcow2
    addcow commit -q x.add-cow
    qemu-img compare -q -f raw -F qcow2 want.raw middle.qcow2 || fail "commit, round $round"
done

for round in 1 2 3; do
    qemu-img create -q -f qcow2 -F raw -b base.raw middle.qcow2
    rm -f base.pid
    command qemu-nbd -t -f qcow2 -k "$PWD/base.sock" --pid-file="$PWD/base.pid" middle.qcow2 &
    server=$!
    at_exit "kill $server 2>/dev/null"
    wait_for base.pid "$server"
    layer -b "nbd+unix:///?socket=$PWD/base.sock" -F raw
    addcow commit -q x.add-cow
    kill "$server"
    wait "$server" || [ $? -le 143 ]
    qemu-img compare -q -f raw -F qcow2 want.raw middle.qcow2 || fail "commit to a server, round $round"
done
