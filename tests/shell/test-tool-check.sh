#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow check: 0 sound, 1 could not check, 2 corrupt, 3 only leaks; it writes
# only when told to repair.

. "$(dirname "$0")/../functions.sh"
requires jq nbdsh

check() { addcow check --output=json "$@" 2>stderr >report; }
value() { jq ".\"$1\"" report; }

random_file base.img 640K
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"x\" * 65536, 3 * 65536)"'
check x.add-cow || fail "not sound"
for pair in check-errors=0 corruptions=0 leaks=0 total-clusters=10 allocated-clusters=1; do
    expect_equal "${pair#*=}" "$(value "${pair%=*}")" "${pair%=*}"
done
addcow check x.add-cow | has 'No errors' || fail "the words of a sound image"

# Leaks: storage under a 0 bit.
dd if=base.img of=disk.raw bs=64K count=2 conv=notrunc status=none
before="$(sha disk.raw)"
status=0; check x.add-cow || status=$?
expect_equal 3 "$status" "exit status with leaks"
expect_equal 2 "$(value leaks)" "leaks"
expect_equal "$before" "$(sha disk.raw)" "check without -r wrote"
check -r leaks x.add-cow || fail "not sound after -r leaks"
expect_equal 65536 "$(used_bytes disk.raw)" "storage after -r leaks"
check x.add-cow || fail "not sound after the repair"

# A bit past the last cluster is ignored by readers: sound, mentioned, and
# cleared by -r all only.
printf '\004' | dd of=x.add-cow bs=1 seek=$((4096 + 1)) conv=notrunc status=none
before="$(sha x.add-cow)"
addcow check x.add-cow >words
grep -q 'past the end of the disk' words || fail "no word of the bit: $(cat words)"
check -r leaks x.add-cow
expect_equal "$before" "$(sha x.add-cow)" "-r leaks wrote the bitmap"
check -r all x.add-cow
addcow check x.add-cow >words
if grep -q 'past the end of the disk' words; then fail "-r all left the bit"; fi

# Corrupt: ALL_ALLOCATED, but a bit is 0. The flag is what readers go by.
printf '\007' | dd of=x.add-cow bs=1 seek=28 conv=notrunc status=none
status=0; check x.add-cow || status=$?
expect_equal 2 "$status" "exit status with ALL_ALLOCATED and 0 bits"
expect_equal 9 "$(value corruptions)" "clusters that the bitmap denies"
grep -q 'bits of 9 clusters' stderr || fail "no line on standard error with JSON"
expect_fails 2 addcow check -q x.add-cow
expect_equal '' "$(cat stdout)" "standard output of check -q"
expect_equal 1 "$(grep -c 'x.add-cow: ALL_ALLOCATED is set' stderr)" "lines of check -q"
nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" before.img'
check -r all x.add-cow || fail "not sound after -r all"
nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" after.img'
cmp before.img after.img

# Corrupt: the header, and a bitmap that is cut short.
cp x.add-cow y.add-cow
printf '\002' | dd of=y.add-cow bs=1 seek=44 conv=notrunc status=none
expect_fails 2 addcow check y.add-cow
truncate -s 4097 x.add-cow
expect_fails 2 addcow check x.add-cow
grep -q 'truncated' stderr

# Could not check.
expect_fails 1 addcow check nowhere.add-cow
expect_fails 1 addcow check base.img
addcow create -q --force --discard --reuse-image -b base.img -F raw -i disk.raw x.add-cow
mv disk.raw gone.raw
expect_fails 1 addcow check x.add-cow
grep -q 'disk.raw: not found.*--image=FILE' stderr || fail "no remedy: $(cat stderr)"
addcow check -q --image=gone.raw x.add-cow || [ $? -eq 3 ] || fail "check --image"
# It does without the backing file.
mv gone.raw disk.raw
expect_fails 1 addcow check -q -r leaks x.add-cow
grep -q 'disk.raw: holds data in 1 cluster, though none is allocated' stderr || fail "$(cat stderr)"
addcow check -q --force -r leaks x.add-cow
rm base.img
addcow check -q x.add-cow || fail "check needs the backing file"
expect_fails 64 addcow check -r everything x.add-cow
