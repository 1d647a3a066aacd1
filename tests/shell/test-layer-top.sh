#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# layer=top: extents of what the image file holds, the rest a hole with no
# word of zeroes; read only. With it, qemu-img convert -B copies one layer.

. "$(dirname "$0")/../functions.sh"
requires nbdinfo qemu-img nbdsh jq

random_file base.img 512K
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"x\" * 65536, 131072)" \
    -c "h.zero(65536, 262144)"'
before="$(cat x.add-cow disk.raw | sha256sum)"
nbdkit -U - addcow x.add-cow layer=top --run 'nbdinfo --map "$uri"' >map
cat >want <<'END'
         0      131072    1  hole
    131072       65536    0  data
    196608       65536    1  hole
    262144       65536    3  hole,zero
    327680      196608    1  hole
END
diff -u want map
nbdkit -U - addcow x.add-cow layer=top --run 'nbdinfo --is read-only "$uri"' ||
    fail "layer=top lets clients write"

# One layer into a qcow2 file on the same backing file: only two clusters.
nbdkit -U - addcow x.add-cow layer=top \
    --run 'qemu-img convert -f raw -O qcow2 -B base.img -F raw "$uri" top.qcow2'
nbdkit -r -U - addcow x.add-cow --run 'qemu-img compare -f raw -F qcow2 "$uri" top.qcow2'
[ "$(qemu-img map --output=json top.qcow2 | jq '[.[] | select(.depth == 0) | .length] | add')" \
    -eq 131072 ] || fail "the copy holds more than the layer: $(qemu-img map top.qcow2)"
expect_equal "$before" "$(cat x.add-cow disk.raw | sha256sum)" "layer=top wrote to the files"
expect_fails 1 nbdkit -U - addcow x.add-cow layer=bottom --run true
grep -q "layer=: is 'bottom', must be 'all' or 'top'" stderr || fail "$(cat stderr)"
