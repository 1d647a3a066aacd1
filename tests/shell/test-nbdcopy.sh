#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# nbdcopy in both directions: out of an image, sparsely, and into one.

. "$(dirname "$0")/../functions.sh"
requires nbdcopy nbdsh

truncate -s 64M base.img
random_file noise 3M
dd if=noise of=base.img bs=1M seek=10 conv=notrunc status=none
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
start_server sock addcow x.add-cow
nbdsh -u "$(uri sock)" -c 'h.pwrite(b"\x5a" * 1000000, 40 * 1024 * 1024 + 17)' -c 'h.flush()'

nbdcopy "$(uri sock)" out.img
nbdcopy --synchronous "$(uri sock)" plain.img
cmp out.img plain.img || fail "asynchronous and synchronous copies differ"
[ "$(used_bytes out.img)" -lt 6000000 ] || fail "the copy takes $(used_bytes out.img) bytes"

# In: over the data that is there.
truncate -s 64M in.img
dd if=noise of=in.img bs=64K seek=165 conv=notrunc status=none
nbdcopy --flush in.img "$(uri sock)"
nbdcopy "$(uri sock)" back.img
cmp in.img back.img
stop_server "$server_pid"
nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" again.img'
cmp in.img again.img
addcow check x.add-cow
