#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Everything written is in the files after SIGTERM, though no client flushed.

. "$(dirname "$0")/../functions.sh"
requires nbdsh

random_file base.img 1M
before="$(sha base.img)"
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
# sync-interval=0: only the clean stop can have done it.
start_server sock addcow x.add-cow sync-interval=0
# Closing the socket without a disconnect request, so that no flush is sent.
nbdsh -u "$(uri sock)" -c 'h.pwrite(b"A" * 100, 70000)' -c 'h.pwrite(b"B" * 65536, 524288)' \
    -c 'h.zero(4096, 200000)'
stop_server "$server_pid"

cp base.img want.img
head -c 100 /dev/zero | tr '\0' A | dd of=want.img bs=1 seek=70000 conv=notrunc status=none
head -c 65536 /dev/zero | tr '\0' B | dd of=want.img bs=64K seek=8 conv=notrunc status=none
dd if=/dev/zero of=want.img bs=1 seek=200000 count=4096 conv=notrunc status=none
nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" got.img'
cmp want.img got.img
addcow check x.add-cow
expect_equal "$before" "$(sha base.img)" "the backing file changed"
