#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow measure: what a raw copy takes, and for qcow2 the same as qemu-img measure says.

. "$(dirname "$0")/../functions.sh"
requires jq

measured() { addcow measure --output=json "$@" | jq -c '[.required, ."fully-allocated"]'; }

random_file base.img 300K
truncate -s 4M base.img
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"w\" * 70000, 2 << 20)"'
expect_equal "$((307200 + 73728))" "$(measured x.add-cow | jq '.[0]')" "required"
expect_equal 4194304 "$(measured x.add-cow | jq '.[1]')" "fully allocated"
expect_equal "$(printf 'required size: 380928\nfully allocated size: 4194304')" "$(addcow measure x.add-cow)" "words"
# It is what there is after it.
cp --sparse=always disk.raw before.raw
addcow flatten -q x.add-cow
expect_equal 380928 "$(used_bytes disk.raw)" "the flattened image file"

if command -v qemu-img >/dev/null; then
    for size in 1 511 512 64K 65537 1M 513M 3G 12345678K 1T 8T; do
        rm -f sized
        truncate -s "$size" sized
        expect_equal "$(qemu-img measure --output=json -O qcow2 -f raw sized | jq -c '[.required, ."fully-allocated"]')" \
            "$(measured -O qcow2 sized)" "an empty disk of $size bytes"
    done
    truncate -s 8T sized
    for at in 0 70000 1048576 3000000000000; do
        printf '%70000s' x | dd of=sized bs=1 seek=$at conv=notrunc status=none
    done
    expect_equal "$(qemu-img measure --output=json -O qcow2 -f raw sized | jq -c '[.required, ."fully-allocated"]')" \
        "$(measured -O qcow2 sized)" "a disk with data"
    # An image, as its server has it.
    nbdkit -r -U - addcow x.add-cow --run \
        'qemu-img measure --output=json -O qcow2 -f raw "$uri"' | jq -c '[.required, ."fully-allocated"]' >theirs
    expect_equal "$(cat theirs)" "$(measured -O qcow2 x.add-cow)" "an image"
else
    echo "SKIP of a part: qemu-img is not installed"
fi

expect_fails 1 addcow measure nosuch.add-cow
has 'nosuch.add-cow: No such file' <stderr || fail "$(cat stderr)"
expect_fails 64 addcow measure -O vmdk x.add-cow
