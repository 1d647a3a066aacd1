#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# qemu-io patterns at odd offsets: each byte written reads back, and no other
# byte has changed.

. "$(dirname "$0")/../functions.sh"
requires qemu-io

base_size=700000
random_file base.img "$base_size"
truncate -s 1000001 size.ref
addcow create -q -b base.img -F raw -i disk.raw -s 1000001 x.add-cow
cp base.img want.img
truncate -s 1000001 want.img
start_server sock addcow x.add-cow

# offset length pattern: inside a cluster, over its edges, over several, over
# the end of the backing file, the last bytes of the disk.
cases='0 1 1
65535 2 2
131072 65536 3
196609 65534 4
262143 131074 5
699990 100 6
720895 2 7
1000000 1 8
983040 16961 9
655359 70000 10'
while read -r offset length pattern; do
    qemu-io -f raw -c "write -P $pattern $offset $length" "$(uri sock)" >out
    grep -q "^wrote $length/$length bytes at offset $offset" out || fail "$(cat out)"
    octal="$(printf '%03o' "$pattern")"
    head -c "$length" /dev/zero | tr '\0' "\\$octal" |
        dd of=want.img oflag=seek_bytes seek="$offset" conv=notrunc status=none
done <<<"$cases"
qemu-io -f raw -c "write -z -u 400001 3333" -c "discard 500000 66666" "$(uri sock)" >out
dd if=/dev/zero of=want.img oflag=seek_bytes seek=400001 count=3333 bs=1 conv=notrunc status=none
dd if=/dev/zero of=want.img oflag=seek_bytes seek=500000 count=66666 bs=1 conv=notrunc status=none

# Read back with the same patterns, then the whole.
qemu-io -f raw -c "read -P 10 655359 44631" -c "read -P 4 196609 65534" "$(uri sock)" >out
if grep -qi 'verification failed' out; then fail "$(cat out)"; fi
expect_equal 2 "$(grep -c '^read ' out)" "reads that were done"
nbdcopy "$(uri sock)" got.img
cmp want.img got.img
stop_server "$server_pid"
nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" again.img'
cmp want.img again.img
