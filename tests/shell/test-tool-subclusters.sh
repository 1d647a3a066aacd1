#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The tool with images of which a server has written single subclusters, of 4 KiB: what
# it shows, counts, repairs and keeps; and that no mistake with the image file's size
# goes unnoticed.

. "$(dirname "$0")/../functions.sh"
requires jq nbdcopy nbdsh

served() { nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" - | sha256sum'; }
info() { addcow info --output=json x.add-cow | jq -c ".\"$1\""; }
write() { nbdkit -U - addcow x.add-cow --run "nbdsh -u \"\$uri\" -c 'h.pwrite(b\"w\" * $1, $2)'"; }
found() { jq ".\"$1\"" report; }

random_file noise 640K
new_image
# A subcluster, two of them over a border, and a whole cluster.
write 4096 8192
write 8192 $((2 * 65536 - 4096))
write 65536 $((5 * 65536))
disk="$(served)"

for pair in subcluster-size=4096 total-clusters=10 allocated-clusters=1 partial-clusters=3 \
    allocated-subclusters=3 'optional-features=["backing-identity"]' \
    'features=["backing-file","image-file","subclusters"]'; do
    expect_equal "${pair#*=}" "$(info "${pair%%=*}")" "${pair%%=*}"
done
addcow info x.add-cow >words
grep -q '^allocated in part: 3 clusters (3 subclusters of 4096 bytes)$' words || fail "$(cat words)"
grep -q '^    features: .*subclusters$' words || fail "$(cat words)"
expect_equal '8192+4096 126976+8192 327680+65536' "$(addcow map --output=json x.add-cow |
    jq -r '.[] | select(.depth == 0) | "\(.start)+\(.length)"' | xargs)" "what was written"

# A disk of which no cluster is allocated is not thrown away.
cp --sparse=always x.add-cow kept.add-cow
expect_fails 1 addcow create --force --reuse-image -b base.img -F raw -i disk.raw x.add-cow
grep -q 'x.add-cow: has data in 4 clusters, which would be lost' stderr || fail "$(cat stderr)"
cmp kept.add-cow x.add-cow

# Leaks go by subclusters, and nothing else is given back.
used="$(used_bytes disk.raw)"
addcow check --output=json x.add-cow >report
expect_equal '0 0 3' "$(found leaks) $(found leaked-subclusters) $(found partial-clusters)" "check"
dd if=noise of=disk.raw bs=4K seek=3 count=2 conv=notrunc status=none
dd if=noise of=disk.raw bs=4K seek=100 count=1 conv=notrunc status=none
expect_fails 3 addcow check x.add-cow
grep -q '^2 leaked clusters were found on the image (3 subclusters of 4096 bytes).$' stdout ||
    fail "$(cat stdout)"
grep -q '^1/10 = 10.00% allocated, 3 more in part$' stdout || fail "$(cat stdout)"
addcow check -r leaks --output=json x.add-cow >report
expect_equal '0 2 0' "$(found leaks) $(found leaks-fixed) $(found leaked-subclusters)" "after -r leaks"
expect_equal "$used" "$(used_bytes disk.raw)" "storage after -r leaks"
expect_equal "$disk" "$(served)" "the disk after -r leaks"

# Other names.
mv disk.raw moved.raw
addcow rebase -u -q -i moved.raw x.add-cow
expect_equal 3 "$(info partial-clusters)" "partial clusters after rebase"
expect_equal "$disk" "$(served)" "the disk after rebase"
addcow create -q -b base.img -F raw -i other.raw other.add-cow
nbdkit -U - addcow other.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"o\" * 4096, 0)"'
expect_fails 1 addcow rebase -u -i other.raw x.add-cow
grep -q 'other.raw: holds data in 1 cluster where nothing is allocated' stderr || fail "$(cat stderr)"
mv moved.raw disk.raw
addcow rebase -u -q -i disk.raw x.add-cow

# The second bitmap's place depends on the size: none is read from a wrong one.
cp --sparse=always x.add-cow y.add-cow
truncate -s 65600 y.add-cow
expect_fails 2 addcow check y.add-cow
grep -q 'y.add-cow: truncated: 65600 bytes, must be at least .* subcluster bitmap' stderr || fail "$(cat stderr)"
cp --sparse=always disk.raw before.raw
truncate -s 33G disk.raw
for verb in info map check flatten; do
    expect_fails 1 addcow "$verb" x.add-cow
    grep -q 'x.add-cow: the image file has 35433480192 bytes, but' stderr || fail "$verb: $(cat stderr)"
done
expect_fails 1 nbdkit -U - addcow x.add-cow --run true
truncate -s 640K disk.raw
expect_equal "$disk" "$(served)" "the disk of the old size"
# By the remedy that is shown.
truncate -s 3G disk.raw
expect_fails 1 addcow info x.add-cow
remedy="$(sed -n 's/.*made longer: \(truncate [^;]*\);.*/\1/p' stderr)"
[ -n "$remedy" ] || fail "no remedy: $(cat stderr)"
eval "$remedy"
expect_equal 3 "$(info partial-clusters)" "partial clusters of the longer disk"
write 4096 $((2 << 30))
truncate -s 640K disk.raw
expect_fails 2 addcow check x.add-cow
grep -q 'x.add-cow: has .* bytes, but may have .*: the image file was cut' stderr || fail "$(cat stderr)"
truncate -s 3G disk.raw
expect_equal 4 "$(info partial-clusters)" "partial clusters of the disk that was cut"

# Flattened, it is a plain file of version 1.
mv kept.add-cow x.add-cow
mv before.raw disk.raw
expect_equal "$disk" "$(served)" "the disk as it was"
addcow flatten -q x.add-cow
expect_equal '["backing-file","image-file","all-allocated"]' "$(info features)" "features"
expect_equal 69632 "$(stat -c %s x.add-cow)" "size of the flat file"
expect_equal "$disk" "$(sha256sum <disk.raw)" "the image file"
addcow check -q x.add-cow

# Who wants none.
rm disk.raw
addcow create -q --force --discard --subclusters=off -b base.img -F raw -i disk.raw x.add-cow
write 4096 8192
expect_equal '["backing-file","image-file"] ["backing-identity","no-subclusters"] 1 0' \
    "$(info features) $(info optional-features) $(info allocated-clusters) $(info partial-clusters)" \
    "with --subclusters=off"
addcow rebase -u -q -b base.img -F raw x.add-cow
expect_equal '["backing-identity","no-subclusters"]' "$(info optional-features)" "after rebase"
expect_fails 64 addcow create --subclusters=some -i disk.raw z.add-cow
