#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# image= and backing= name files that were moved; relative names in the header
# start from the add-cow file's directory, those on the command line from the
# working directory.

. "$(dirname "$0")/../functions.sh"
requires nbdcopy jq

mkdir vm moved
random_file vm/base.img 300000
addcow create -q -b base.img -F raw -i disk.raw vm/x.add-cow
nbdkit -U - addcow vm/x.add-cow \
    --run 'nbdcopy "$uri" before.img && nbdsh -u "$uri" -c "h.pwrite(b\"new\", 70000)"'
nbdkit -r -U - addcow vm/x.add-cow --run 'nbdcopy "$uri" after.img'
cmp before.img vm/base.img

mv vm/base.img vm/disk.raw moved/
expect_fails 1 nbdkit -U - addcow vm/x.add-cow --run true
grep -q 'vm/disk.raw.*image=' stderr || fail "no remedy in: $(cat stderr)"
expect_fails 1 nbdkit -U - addcow vm/x.add-cow image=moved/disk.raw --run true
grep -q 'vm/base.img.*backing=' stderr || fail "no remedy in: $(cat stderr)"
nbdkit -r -U - addcow vm/x.add-cow image=moved/disk.raw backing=moved/base.img \
    --run 'nbdcopy "$uri" moved.img'
cmp after.img moved.img

# The tool's own words for the same.
for verb in map check flatten info; do
    expect_fails 1 addcow "$verb" vm/x.add-cow
    grep -q 'vm/disk.raw.*--image=FILE' stderr || fail "$verb: no remedy in: $(cat stderr)"
done
expect_fails 1 addcow map vm/x.add-cow --image=moved/disk.raw
grep -q 'vm/base.img.*--backing=FILE' stderr || fail "no remedy in: $(cat stderr)"
places=(--image=moved/disk.raw --backing=moved/base.img)
addcow map "${places[@]}" vm/x.add-cow | has 'moved/base.img' || fail "map with other names"
addcow check -q "${places[@]}" vm/x.add-cow
expect_equal moved/disk.raw \
    "$(addcow info "${places[@]}" --output=json vm/x.add-cow | jq -r '."full-image-filename"')" "info"
cp -a vm flat-vm
cp -a moved flat-moved
addcow flatten -q flat-vm/x.add-cow --image=flat-moved/disk.raw --backing=flat-moved/base.img
cmp after.img flat-moved/disk.raw

# A symbolic link to the add-cow file: its names start from where it really is.
mv moved/* vm/
ln -s ../vm/x.add-cow moved/link
nbdkit -r -U - addcow moved/link --run 'nbdcopy "$uri" link.img'
cmp after.img link.img

# While the file that the header names is there, another disk's is not taken for it, and is left as it is.
cp --sparse=always vm/base.img other.raw
before="$(sha other.raw)"
for command in "nbdkit -U - addcow vm/x.add-cow image=other.raw --run true" \
    "addcow flatten -q vm/x.add-cow --image=other.raw"; do
    # shellcheck disable=SC2086
    expect_fails 1 $command
    grep -q 'other.raw: holds data at 0, where nothing is allocated, .*perhaps another disk' stderr ||
        fail "$command: $(cat stderr)"
done
expect_equal "$before" "$(sha other.raw)" "the other disk"
truncate -s 100000 other.raw
expect_fails 1 nbdkit -U - addcow vm/x.add-cow image=other.raw --run true
grep -q 'other.raw: has 100000 bytes, but the image file that the header names, .*vm/disk.raw, has 300000' stderr ||
    fail "$(cat stderr)"
truncate -s 300000 other.raw
nbdkit -r -U - addcow vm/x.add-cow image=other.raw --run true
# A copy of its own is served, and one with leaks once these are gone.
cp --sparse=always vm/disk.raw copy.raw
nbdkit -U - addcow vm/x.add-cow image=copy.raw --run 'nbdcopy "$uri" copy.img'
cmp after.img copy.img
printf x | dd of=copy.raw bs=1 seek=200000 conv=notrunc status=none
expect_fails 1 nbdkit -U - addcow vm/x.add-cow image=copy.raw --run true
addcow check -q -r leaks --force --image=copy.raw vm/x.add-cow
nbdkit -U - addcow vm/x.add-cow image=copy.raw --run true
