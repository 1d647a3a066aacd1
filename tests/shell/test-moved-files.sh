#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# image= and backing= name files that were moved; relative names in the header
# start from the add-cow file's folder, those on the command line from the
# working directory.

. "$(dirname "$0")/../functions.sh"
requires nbdcopy

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

# A symbolic link to the add-cow file: its names start from where it really is.
mv moved/* vm/
ln -s ../vm/x.add-cow moved/link
nbdkit -r -U - addcow moved/link --run 'nbdcopy "$uri" link.img'
cmp after.img link.img
