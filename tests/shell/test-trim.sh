#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A trim reads as zeroes from then on, shows as a hole, and gives storage back
# where the cluster was allocated; so does a zero that may punch.

. "$(dirname "$0")/../functions.sh"
requires nbdsh nbdinfo

random_file base.img 1M
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
start_server sock addcow x.add-cow

# Unallocated over data: whole clusters and parts of them.
nbdsh -u "$(uri sock)" -c 'h.trim(131072, 65536)' -c 'h.trim(8192, 300000)' \
    -c 'assert h.pread(131072, 65536) == bytearray(131072)' \
    -c 'assert h.pread(8192, 300000) == bytearray(8192)'
[ "$(used_bytes disk.raw)" -le 65536 ] || fail "a trim took storage: $(used_bytes disk.raw)"
nbdinfo --map "$(uri sock)" | sed -n 1,3p >map
cat >want <<'END'
         0       65536    0  data
     65536      131072    3  hole,zero
    196608      106496    0  data
END
diff -u want map

# Allocated: storage comes back.
nbdsh -u "$(uri sock)" -c 'h.pwrite(b"x" * 524288, 524288)'
full="$(used_bytes disk.raw)"
nbdsh -u "$(uri sock)" -c 'h.trim(524288, 524288)' \
    -c 'assert h.pread(524288, 524288) == bytearray(524288)' -c 'h.flush()'
[ "$(used_bytes disk.raw)" -le $((full - 500000)) ] || fail "a trim gave nothing back"

# Without NO_HOLE a zero may punch; with it the storage stays.
nbdsh -u "$(uri sock)" -c 'h.zero(65536, 524288, nbd.CMD_FLAG_NO_HOLE)' \
    -c 'assert h.pread(65536, 524288) == bytearray(65536)' -c 'h.flush()'
[ "$(used_bytes disk.raw)" -ge $((full - 524288 + 65536)) ] || fail "NO_HOLE made a hole"

# Past the backing file, nothing needs to be allocated for zeroes.
random_file short.img 65536
addcow create -q -b short.img -F raw -i long.raw -s 1M y.add-cow
nbdkit -U - addcow y.add-cow --run 'nbdsh -u "$uri" -c "h.trim(1048576 - 65536, 65536)"'
expect_equal 0 "$(addcow check --output=json y.add-cow | jq '."allocated-clusters"')" \
    "clusters allocated by a trim of nothing"
