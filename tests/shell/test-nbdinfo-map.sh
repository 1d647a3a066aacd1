#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What nbdinfo --map shows is just the table in docs/architecture.md.

. "$(dirname "$0")/../functions.sh"
requires nbdinfo nbdsh

# The backing file: data in cluster 0-1, a hole in 2-3, data in 4, and it ends
# 100 bytes into cluster 5. The disk has 8 clusters.
truncate -s $((5 * 65536 + 100)) base.img
random_file noise 131072
dd if=noise of=base.img bs=64K conv=notrunc status=none
dd if=noise of=base.img bs=64K seek=4 count=1 conv=notrunc status=none
dd if=noise of=base.img bs=100 count=1 oflag=seek_bytes seek=$((5 * 65536)) conv=notrunc status=none
addcow create -q -b base.img -F raw -i disk.raw -s 512K x.add-cow
start_server sock addcow x.add-cow
nbdinfo --map "$(uri sock)" >map
# The file system may keep storage for the rest of the backing file's last
# block; its last sector counts as data, rounded outwards.
cat >want <<'END'
         0      131072    0  data
    131072      131072    3  hole,zero
    262144       66048    0  data
    328192      196096    3  hole,zero
END
diff -u want map

# Allocated with data; allocated as a hole over data; a partial write past the
# end of the backing file.
nbdsh -u "$(uri sock)" -c 'h.pwrite(b"x" * 65536, 2 * 65536)' -c 'h.trim(65536, 0)' \
    -c 'h.pwrite(b"y" * 4096, 7 * 65536)' -c 'h.flush()'
nbdinfo --map "$(uri sock)" >map
cat >want <<'END'
         0       65536    3  hole,zero
     65536      131072    0  data
    196608       65536    3  hole,zero
    262144       66048    0  data
    328192      130560    3  hole,zero
    458752        4096    0  data
    462848       61440    3  hole,zero
END
diff -u want map
