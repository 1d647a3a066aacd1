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

# While the file that the header names is there, another one is only read: the bits would be
# believed of the file that lacks what is written. A copy is named in the header first.
cp --sparse=always vm/disk.raw copy.raw
truncate -s 300000 empty.raw
truncate -s 100000 short.raw
addcow create -q -s 300000 -i strange.raw strange.add-cow
printf x | dd of=strange.raw bs=1 conv=notrunc status=none
before="$(cat vm/x.add-cow vm/disk.raw copy.raw strange.raw | sha256sum)"
for other in copy.raw empty.raw short.raw strange.raw; do
    for command in "nbdkit -U - addcow vm/x.add-cow image=$other --run true" \
        "addcow flatten -q vm/x.add-cow --image=$other" \
        "addcow check -q -r leaks vm/x.add-cow --image=$other" \
        "addcow check -q -r all vm/x.add-cow --image=$other" \
        "addcow check -q -r all --force vm/x.add-cow --image=$other" \
        "addcow resize -q vm/x.add-cow --image=$other +1M" \
        "addcow resize -q --shrink vm/x.add-cow --image=$other 65536" \
        "addcow upgrade -q vm/x.add-cow --image=$other --cluster-size=8k" \
        "addcow downgrade -q vm/x.add-cow --image=$other"; do
        # shellcheck disable=SC2086
        expect_fails 1 $command
        grep -q "$other: is not the image file that the header names, .*vm/disk.raw, .*addcow rebase -u -i $PWD/$other $PWD/vm/x.add-cow" stderr ||
            fail "$command: $(cat stderr)"
    done
done
expect_equal "$before" "$(cat vm/x.add-cow vm/disk.raw copy.raw strange.raw | sha256sum)" "the files"
nbdkit -r -U - addcow vm/x.add-cow image=copy.raw --run 'nbdcopy "$uri" copy.img'
cmp after.img copy.img
addcow check -q vm/x.add-cow --image=copy.raw
# Leaks are where the bits have nothing, in whichever file.
printf x | dd of=copy.raw bs=1 seek=200000 conv=notrunc status=none
addcow check -q -r leaks --force --image=copy.raw vm/x.add-cow

expect_fails 1 addcow rebase -q -u -i "$PWD/empty.raw" vm/x.add-cow
grep -q 'empty.raw: lacks data of this disk at [0-9]*, .*cp --sparse=always' stderr || fail "$(cat stderr)"
expect_fails 1 addcow rebase -q -u -i "$PWD/short.raw" vm/x.add-cow
addcow rebase -q -u -i "$PWD/copy.raw" vm/x.add-cow
nbdkit -U - addcow vm/x.add-cow --run 'nbdcopy "$uri" copy.img'
cmp after.img copy.img
