#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow info and map: keys and values as qemu-img gives them for its formats.

. "$(dirname "$0")/../functions.sh"
requires jq qemu-img nbdsh

# Data in cluster 0, a hole in 1, the end 100 bytes into cluster 2; 5 clusters.
random_file noise 65536
truncate -s $((2 * 65536 + 512)) base.img
dd if=noise of=base.img conv=notrunc bs=64K status=none
dd if=noise of=base.img conv=notrunc bs=512 count=1 seek=256 status=none
addcow create -q -b base.img -F raw -i disk.raw -s 320K x.add-cow
nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"x\" * 65536, 3 * 65536)" \
    -c "h.pwrite(b\"x\" * 65536, 4 * 65536)" -c "h.trim(65536, 4 * 65536)"'

addcow map --output=json x.add-cow | jq -c '.[]' >map
cat >want <<'END'
{"start":0,"length":65536,"depth":1,"present":true,"zero":false,"data":true,"offset":0}
{"start":65536,"length":65536,"depth":1,"present":true,"zero":true,"data":false,"offset":65536}
{"start":131072,"length":512,"depth":1,"present":true,"zero":false,"data":true,"offset":131072}
{"start":131584,"length":65024,"depth":0,"present":false,"zero":true,"data":false}
{"start":196608,"length":65536,"depth":0,"present":true,"zero":false,"data":true,"offset":196608}
{"start":262144,"length":65536,"depth":0,"present":true,"zero":true,"data":false,"offset":262144}
END
diff -u want map

# qemu-img says the same of the same layers in its own format, offsets apart.
qemu-img create -q -f qcow2 -b base.img -F raw q.qcow2 320K
qemu-io -f qcow2 -c 'write 192k 64k' -c 'write -z 256k 64k' q.qcow2 >/dev/null
qemu-img map --output=json q.qcow2 | jq -c '.[] | {start,length,depth,zero,data}' >qemu
jq -c '{start,length,depth,zero,data}' map >ours
diff -u qemu ours

# What has been changed, by the example in --help and the manual: not what is
# past the end of the backing file.
example="$(addcow map --help | sed -n "s/.*jq '\(.*\)'/\1/p")"
grep -qF "jq '$example'" "$srcdir/tools/addcow.pod" || fail "the manual has another example"
expect_equal "196608 262144" \
    "$(addcow map --output=json x.add-cow | jq "$example | .[].start" | xargs)" "what was changed"

addcow map x.add-cow >human
expect_equal "Offset Length Mapped to File" "$(head -1 human | xargs)" "head line"
grep -qE '^0 +0x10000 +0 +.*base.img$' human || fail "$(cat human)"
grep -qE '^0x30000 +0x10000 +0x30000 +.*disk.raw$' human || fail "$(cat human)"

addcow info --output=json x.add-cow >info
for pair in '"virtual-size"=327680' '"cluster-size"=65536' 'format="add-cow"' \
    'filename="x.add-cow"' '"backing-filename"="base.img"' '"backing-filename-format"="raw"' \
    'revision=1' '"total-clusters"=5' '"allocated-clusters"=2' '"in-use"="no"' '"image-filename"="disk.raw"' '"image-filename-format"="raw"' \
    '"all-allocated"=false' 'features=["backing-file","image-file"]'; do
    key="${pair%%=*}"
    expect_equal "${pair#*=}" "$(jq -c ".${key}" info)" "$key"
done
expect_equal "$(realpath base.img)" "$(jq -r '."full-backing-filename"' info)" "backing"
expect_equal "$(realpath disk.raw)" "$(jq -r '."full-image-filename"' info)" "image"
expect_equal $(($(used_bytes x.add-cow) + $(used_bytes disk.raw))) \
    "$(jq '."actual-size"' info)" "actual-size"
addcow info x.add-cow >human
grep -q '^virtual size: 320 KiB (327680 bytes)$' human || fail "$(cat human)"
grep -q '^backing file: base.img' human || fail "$(cat human)"

grep -q '^allocated: 2 of 5 clusters (40.00%)$' human || fail "$(cat human)"
grep -q '^in use: no$' human || fail "$(cat human)"

# Names that are not UTF-8: readable, and exact in base64.
odd=$'v\xff\xe4\x80.add-cow'
odd_image=$'d\xfe.raw'
mkdir $'odd\xfd'
if addcow create -q -i "$odd_image" -s 64K $'odd\xfd/'"$odd" 2>stderr; then
    addcow info --output=json $'odd\xfd/'"$odd" >info
    for pair in filename=$'odd\xfd/'"$odd" image-filename="$odd_image" \
        full-image-filename="$PWD"/$'odd\xfd/'"$odd_image"; do
        jq -e ".\"${pair%%=*}\"" info | has -F $'\xef\xbf\xbd' || fail "no readable ${pair%%=*}"
        jq -j ".\"${pair%%=*}-base64\"" info | base64 -d >name
        printf '%s' "${pair#*=}" | cmp - name || fail "${pair%%=*}-base64 is not the name"
    done
    expect_equal false "$(jq 'has("backing-filename-base64")' info)" "base64 of a name that is not there"
    addcow check --output=json $'odd\xfd/'"$odd" | jq -j '."filename-base64"' | base64 -d >name
    printf '%s' $'odd\xfd/'"$odd" | cmp - name || fail "check: filename-base64 is not the name"
else
    # btrfs with casefold, or another file system that wants UTF-8.
    grep -q 'Invalid or incomplete\|Invalid argument\|Illegal' stderr || fail "$(cat stderr)"
fi
expect_equal false "$(addcow info --output=json x.add-cow | jq 'has("filename-base64")')" "base64 of UTF-8"

# info is for finding out what is wrong: it does without the backing file.
rm base.img
addcow info x.add-cow >/dev/null
expect_fails 1 addcow map x.add-cow
grep -q 'base.img: not found' stderr
expect_fails 1 addcow info noise
grep -q 'noise: not an add-cow file' stderr
expect_fails 1 addcow info nowhere
