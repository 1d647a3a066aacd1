#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What breaks a rule of revision 20 is refused by the plugin and by every verb, with one
# line that says which field; what readers ignore is not, and check tells of it.

. "$(dirname "$0")/../functions.sh"
requires jq nbdcopy

random_file base.img 1000000 # 16 clusters
addcow create -q --revision=20 -b base.img -F raw -i disk.raw good.add-cow

# patch OFFSET BYTES: a copy of the good one, x.add-cow, with other bytes.
patch() {
    cp --sparse=always good.add-cow x.add-cow
    printf '%b' "$2" | dd of=x.add-cow bs=1 seek="$1" conv=notrunc status=none
}
cut_to() { truncate -s "$1" x.add-cow; }
files() { cat x.add-cow disk.raw base.img | sha256sum; }
served() { nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" - | sha256sum'; }
size() { stat -c %s x.add-cow; }

# refused CHECK-STATUS PATTERN: x.add-cow must be.
refused() {
    local check="$1" pattern="$2" before command status
    before="$(files)"
    for command in "nbdkit -U - addcow x.add-cow --run true" "addcow info x.add-cow" \
        "addcow map x.add-cow" "addcow check -q x.add-cow" "addcow check -q -r all x.add-cow" \
        "addcow flatten x.add-cow" "addcow rebase -u -b base.img -F raw x.add-cow" \
        "addcow upgrade x.add-cow" "addcow upgrade --cluster-size=4k x.add-cow" \
        "addcow downgrade x.add-cow"; do
        status=1
        [[ $command != *' check '* ]] || status="$check"
        # shellcheck disable=SC2086  # words on purpose
        expect_fails "$status" $command
        expect_equal 1 "$(wc -l <stderr)" "$command: lines of message ($(cat stderr))"
        grep -qE -- "x.add-cow: $pattern" stderr || fail "$command: no '$pattern' in: $(cat stderr)"
        expect_equal "$before" "$(files)" "$command changed what it refused ($pattern)"
    done
}

patch 20 '\013'; refused 2 'cluster bits is 11, must be 12 to 21$'
patch 20 '\026'; refused 2 'cluster bits is 22, must be 12 to 21$'
patch 20 '\020\0\0\0200'; refused 2 'cluster bits is 2147483664, must be 12 to 21$'
patch 20 '\017'; refused 2 'header size is 65536, must be 32768 with cluster bits 15$'
patch 40 '\0\020\0'; refused 2 'header size is 4096, must be 65536 with cluster bits 16$'
patch 24 '\040'; refused 1 'features is 0x20, has unknown bit 5, must be made of 0x10000 '
patch 24 '\01'; refused 1 'features is 0x1, has unknown bit 0, must be made of 0x10000 '
patch 4 '\0113'; refused 2 'backing file name offset is 75, must be 76 to 65534$'
patch 4 '\0377\0377\01'; refused 2 'backing file name offset is 131071, must be 76 to 65534$'
patch 8 '\0264\0377'; refused 2 'backing file name size is 65460, must be 1 to 65459$'
patch 4 '\0360\0377\0\0\024'; refused 2 'backing file name: offset 65520 \+ size 20 is 65540, must be at most 65536$'
patch 4 '\0\0\0\0'; refused 2 'backing file name size is 8, must be 0 where the offset is 0$'
patch 4 '\0\0\0\0\0'; refused 2 "backing file format is 'raw', must be empty without a backing file$"
patch 12 '\0\0\0\0'; refused 2 'image file name offset is 0, must be 76 to 65534$'
patch 16 '\0\0\0\0'; refused 2 'image file name size is 0, must be 1 to 65459$'
patch 12 '\0115'; refused 2 'backing file name .* and image file name .* overlap'
patch 44 '1234567890123456'; refused 2 "backing file format is '1234567890123456', must have 15 characters at most$"
patch 44 'raw\0x'; refused 2 "backing file format is '72 61 77 00 78 .*', must be printable ASCII, padded"
patch 60 '\0\0\0'; refused 2 "image file format is empty, must be 'raw'$"
patch 60 'vmdk'; refused 1 "image file format is 'vmdk', must be 'raw'$"

# The other revision's magic, or half of each.
patch 4 'ADD_COW\0377'; refused 2 'backing file name offset is'
patch 0 'ADD_COW\0377'; refused 1 'version is .*, must be 1$'
patch 0 'ACOV'; refused 1 "not an add-cow file: magic is '41 43 4f 56 .*', must be '41 44 .*' or '41 43 4f 57'$"

# Truncated: the header, or its first page, or the bitmap.
cp --sparse=always good.add-cow x.add-cow
cut_to 65537; refused 2 'truncated: 65537 bytes, must be at least 65538 for the COW bitmap of a disk of 1000000 bytes$'
cut_to 65535; refused 2 'truncated: 65535 bytes, the header alone must be 65536$'
cut_to 4095; refused 2 'truncated: 4095 bytes, the header alone must be 4096 or more$'
cut_to 76; refused 2 'truncated: 76 bytes, the header alone must be 4096 or more$'
cut_to 4; refused 2 'truncated: 4 bytes, the header alone must be 4096 or more$'
cut_to 3; refused 1 'not an add-cow file: magic is'
# SUBCLUSTERS without the bitmap, or in clusters of just that size.
patch 26 '\01'; refused 2 'truncated: 131072 bytes, must be at least 131103 for the subcluster bitmap of a disk of 1000000 bytes$'
patch 26 '\01'; cut_to 196609; refused 2 'has 196609 bytes, but may have 196608 at most for the subcluster bitmap of a disk of 1000000 bytes'
cp --sparse=always good.add-cow kept.add-cow
addcow upgrade -q --cluster-size=4k good.add-cow
patch 26 '\01'; refused 2 'features is 0x10000, must have bit 16 \(SUBCLUSTERS\) clear with clusters of 4096 bytes$'
mv kept.add-cow good.add-cow

# What is ignored: compatible features that nobody knows, bytes past the names.
disk="$(sha base.img)  -"
patch 32 '\0376\0377\0374\0377'; expect_equal "$disk" "$(served)" "with unknown compatible features"
addcow check -q x.add-cow
patch 5000 'leftover'; expect_equal "$disk" "$(served)" "with bytes past the names"

# A bitmap whose length is no multiple of the cluster size has what readers need. It is
# served; check calls it corrupt, and mends it.
cp --sparse=always good.add-cow x.add-cow
cut_to 70000
expect_equal "$disk" "$(served)" "with a bitmap that is not padded"
addcow info x.add-cow >stdout
addcow map x.add-cow >stdout
expect_fails 2 addcow check -q x.add-cow
expect_equal "addcow: x.add-cow: the bitmap's length is no multiple of the cluster size" \
    "$(cat stderr)" "message of check"
expect_fails 2 addcow check --output=json x.add-cow
expect_equal '1 0' "$(jq -r '"\(.corruptions) \(.leaks)"' stdout)" "corruptions and leaks"
expect_fails 2 addcow check -q -r leaks x.add-cow
expect_equal 70000 "$(size)" "length after -r leaks"
addcow check -r all --output=json x.add-cow >report
expect_equal '0 1' "$(jq -r '"\(.corruptions) \(."corruptions-fixed")"' report)" "after -r all"
expect_equal 131072 "$(size)" "length after -r all"
addcow check -q x.add-cow
# An upgrade writes a whole one, too; so does a server with the first small write.
cut_to 70000
addcow upgrade -q --cluster-size=32k x.add-cow
expect_equal 65536 "$(size)" "length after upgrade"
addcow check -q x.add-cow

# Bits past the end of the disk are 1: ignored, told of, cleared by -r all, and left
# behind by upgrade and downgrade.
stray() {
    patch 65538 '\01'
    printf '\200' | dd of=x.add-cow bs=1 seek=131071 conv=notrunc status=none
}
stray
expect_equal "$disk" "$(served)" "with bits past the end"
expect_equal 0 "$(addcow info --output=json x.add-cow | jq '."allocated-clusters"')" "allocated"
expect_equal '[]' "$(in_image x.add-cow)" "map"
addcow check x.add-cow >stdout
grep -q '^note: 2 bits past the end of the disk are 1; they are ignored, -r all clears them$' stdout ||
    fail "no note: $(cat stdout)"
addcow check -r all x.add-cow >stdout
cmp good.add-cow x.add-cow
for verb in downgrade 'upgrade --cluster-size=128k'; do
    stray
    # shellcheck disable=SC2086
    addcow $verb -q x.add-cow
    expect_equal "$disk" "$(served)" "after $verb, with bits past the end"
    if addcow check x.add-cow | has 'past the end'; then fail "$verb kept bits past the end"; fi
done
