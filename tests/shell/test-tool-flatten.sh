#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow flatten: afterwards the image file alone is the disk, it is sparse
# where the backing file was, and a run that was killed can be run again.

. "$(dirname "$0")/../functions.sh"
requires qemu-img nbdsh jq

truncate -s 64M base.img
random_file noise 5M
dd if=noise of=base.img bs=1M seek=20 conv=notrunc status=none
dd if=/dev/zero of=base.img bs=1M seek=40 count=4 conv=notrunc status=none # zeroes, not a hole
before="$(sha base.img)"
# Old bytes in the image file must not show through.
random_file disk.raw 64M
addcow create -q --reuse-image -b base.img -F raw -i disk.raw x.add-cow
addcow check --force -r leaks -q x.add-cow
random_file leak 3M
dd if=leak of=disk.raw bs=1M seek=30 conv=notrunc status=none
nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"z\" * 99999, 20 * 1024 * 1024 + 5)"'
nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" served.img'

addcow flatten -p x.add-cow >progress
grep -q '100' progress || fail "no line of progress: $(cat progress)"
if grep -q "$(printf '\r')" progress; then fail "a bar was drawn though this is no terminal"; fi
[ "$(wc -l <progress)" -lt 200 ] || fail "$(wc -l <progress) lines of progress"
qemu-img compare -f raw -F raw served.img disk.raw
# The data, and what storage the image file had: somebody may have reserved it.
[ "$(used_bytes disk.raw)" -le $(((5 + 3) * 1024 * 1024 + 256 * 1024)) ] ||
    fail "the flattened image takes $(used_bytes disk.raw) bytes"
expect_equal true "$(addcow info --output=json x.add-cow | jq '."all-allocated"')" "all-allocated"
addcow check x.add-cow
expect_equal "$before" "$(sha base.img)" "the backing file changed"
# The backing file may go; flattening again has nothing to do.
mv base.img gone.img
addcow flatten x.add-cow >/dev/null
nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" again.img'
cmp served.img again.img

# Killed at some time, then run again, until a run gets to its end unharmed.
random_file big.img 200M
addcow create -q -b big.img -F raw -i big.raw big.add-cow
nbdkit -U - addcow big.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"q\" * 70000, 111111)"'
cp big.img want.img
head -c 70000 /dev/zero | tr '\0' q | dd of=want.img oflag=seek_bytes seek=111111 conv=notrunc status=none
for delay in 0.01 0.05 0.1 0.15 0.2; do
    "$ADDCOW_RUN" addcow flatten -q big.add-cow &
    pid=$!
    sleep "$delay"
    # It may have come to its end before: then there is nothing to kill.
    if kill -KILL "$pid" 2>/dev/null; then wait "$pid" 2>/dev/null || [ $? -eq 137 ]; fi
    addcow check big.add-cow >/dev/null || [ $? -eq 3 ] || fail "not sound after a kill"
    nbdkit -r -U - addcow big.add-cow --run 'nbdcopy "$uri" - | cmp - want.img' ||
        fail "the disk changed when flatten was killed"
done
addcow flatten -q big.add-cow
cmp want.img big.raw
addcow check big.add-cow

# A last cluster that is partial, past the end of the backing file.
random_file short.img 100000
addcow create -q -b short.img -F raw -i odd.raw -s 200001 odd.add-cow
addcow flatten -q odd.add-cow
cmp -n 100000 short.img odd.raw
expect_equal 200001 "$(stat -c %s odd.raw)" "size"
addcow check odd.add-cow
