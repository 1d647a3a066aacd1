#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# qemu-img reads, compares and writes the export as it would a file.

. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io

truncate -s 32M base.img
random_file noise 1M
dd if=noise of=base.img bs=1M seek=3 conv=notrunc status=none
before="$(sha base.img)"
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
start_server sock addcow x.add-cow
qemu-io -f raw -c 'write -P 7 5000001 123457' -c flush "$(uri sock)" >/dev/null

qemu-img convert -f raw -O raw "$(uri sock)" out.raw
qemu-img convert -f raw -O qcow2 "$(uri sock)" out.qcow2
qemu-img compare -f raw -F raw "$(uri sock)" out.raw
qemu-img compare -f raw -F qcow2 "$(uri sock)" out.qcow2
if qemu-img compare -q -f raw -F raw "$(uri sock)" base.img; then
    fail "the disk still equals its backing file"
fi
[ "$(used_bytes out.raw)" -lt 2000000 ] || fail "the copy takes $(used_bytes out.raw) bytes"

# Into the export (-n: it is there), in parallel and out of order.
random_file new.img 32M
qemu-img convert -n -W -m 8 -f raw -O raw new.img "$(uri sock)"
qemu-img compare -f raw -F raw "$(uri sock)" new.img
stop_server "$server_pid"
cmp new.img disk.raw || fail "with all clusters allocated the image file is not the disk"
expect_equal "$before" "$(sha base.img)" "the backing file changed"
