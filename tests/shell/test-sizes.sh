#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Any virtual size from one byte up, any backing length: what is read is the
# backing file, then zeroes; what is written reads back, at both ends.

. "$(dirname "$0")/../functions.sh"
requires nbdsh nbdcopy

for size in 1 511 512 513 4097 65535 65536 65537 131072 200001; do
    for backing in none 1 512 1000 65536 70000 300000; do
        rm -f x.add-cow disk.raw base.img want.img got.img
        if [ "$backing" = none ]; then
            addcow create -q -i disk.raw -s "$size" x.add-cow
            : >want.img
        else
            random_file base.img "$backing"
            addcow create -q -b base.img -F raw -i disk.raw -s "$size" x.add-cow
            cp base.img want.img
        fi
        truncate -s "$size" want.img
        printf 'Z' | dd of=want.img oflag=seek_bytes seek=$((size / 2)) conv=notrunc status=none
        printf 'Y' | dd of=want.img oflag=seek_bytes seek=$((size - 1)) conv=notrunc status=none
        nbdkit -U - addcow x.add-cow --run "
            nbdsh -u \"\$uri\" -c 'h.pwrite(b\"Z\", $((size / 2)))' -c 'h.pwrite(b\"Y\", $((size - 1)))' &&
            nbdcopy \"\$uri\" got.img"
        cmp want.img got.img || fail "size $size, backing $backing"
        addcow check x.add-cow >/dev/null || fail "size $size, backing $backing: not sound"
    done
done

# A huge one: 64 TiB with a byte at its end.
if truncate -s 64T huge.raw 2>/dev/null; then
    random_file base.img 100000
    addcow create -q -b base.img -F raw -i huge.raw huge.add-cow
    nbdkit -U - addcow huge.add-cow --run \
        'nbdsh -u "$uri" -c "h.pwrite(b\"end\", 2**46 - 3)" -c "assert h.pread(4, 2**46 - 4) == b\"\0end\""'
    expect_equal 1 "$(addcow check --output=json huge.add-cow | jq '."allocated-clusters"')" \
        "clusters of 64 TiB"
else
    echo "not tried: this file system has no files of 64 TiB"
fi
