#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the verbs of the tool do otherwise with an image of revision 20, or on the way to it
# and back: nothing that a program does with one revision harms a disk of the other.

. "$(dirname "$0")/../functions.sh"
requires jq nbdcopy nbdsh

served() { nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" - | sha256sum'; }
info() { addcow info --output=json x.add-cow | jq -c ".\"$1\""; }
put() { printf '%b' "$2" | dd of=x.add-cow bs=1 seek="$1" conv=notrunc status=none; }

# A small write leaves subclusters, of which clusters of 4 KiB need none.
random_file noise 300000
new_image
nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"w\" * 5000, 70000)"'
expect_equal 1 "$(info partial-clusters)" "clusters that were written in part"
disk="$(served)"
addcow upgrade -q --cluster-size=4k x.add-cow
expect_equal "$disk" "$(served)" "the disk with clusters of 4 KiB"
expect_equal '[] 2' "$(info features) $(info allocated-clusters)" "features, and clusters"

# An optional feature that nobody knows in version 1 is not what the bit means in
# revision 20: that all is allocated. The other way round it is not handed on, either.
new_image
disk="$(served)"
put 36 '\021'
expect_equal "$disk" "$(served)" "the disk with unknown optional features"
addcow upgrade x.add-cow 2>stderr
expect_equal "$disk" "$(served)" "the disk, upgraded"
expect_equal 'false ["backing-identity"]' "$(info all-allocated) $(info optional-features)" \
    "all allocated, and optional features"
grep -q 'x.add-cow: unknown optional features (0x11) were left out' stderr ||
    fail "no note: $(cat stderr)"
put 32 '\020'
addcow downgrade -q x.add-cow
expect_equal "$disk" "$(served)" "the disk, downgraded"
expect_equal 0 "$(od -A n -j 36 -N 1 -t u1 x.add-cow | xargs)" "unknown optional features"
# Where the revision stays they do, too.
addcow upgrade -q x.add-cow
put 32 '\020'
addcow upgrade -q --cluster-size=8k x.add-cow
expect_equal 16 "$(od -A n -j 32 -N 1 -t u1 x.add-cow | xargs)" "compatible features"

# The header of revision 20 is long: what it ends with are no bits of clusters.
rm x.add-cow disk.raw
addcow create -q --revision=20 -b base.img -F raw -i disk.raw x.add-cow
rm disk.raw
addcow create -q --force --revision=20 -b base.img -F raw -i disk.raw x.add-cow

# Without a backing file the flag is enough; with one the bits have to say so, too.
rm x.add-cow disk.raw
addcow create -q --revision=20 -i disk.raw -s 300000 x.add-cow
put 65536 '\000'
addcow check x.add-cow
addcow rebase -u -q -b base.img -F raw x.add-cow
addcow check x.add-cow
expect_equal true "$(info all-allocated)" "all allocated after rebase"

# What was done is said.
new_image
addcow downgrade x.add-cow >stdout
grep -qx "'x.add-cow' has revision=1 cluster_size=65536 already" stdout || fail "$(cat stdout)"
addcow downgrade --subclusters=off x.add-cow >stdout
grep -qx "Rewrote 'x.add-cow', revision=1 cluster_size=65536" stdout || fail "$(cat stdout)"
addcow upgrade --cluster-size=2M x.add-cow >stdout
grep -qx "Rewrote 'x.add-cow', revision=20 cluster_size=2097152 (was revision=1 cluster_size=65536)" \
    stdout || fail "$(cat stdout)"
