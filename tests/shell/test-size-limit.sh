#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A limit of file sizes (ulimit -f, RLIMIT_FSIZE): what would pass it fails, and
# neither server nor tool is killed by it (SIGXFSZ). What was acknowledged stays.

. "$(dirname "$0")/../functions.sh"
requires nbdsh

random_file base.img 1M
truncate -s 64M base.img
limited() { (ulimit -f "$limit" && exec "$ADDCOW_RUN" "$@"); }
# In KiB: the end of a cluster, and inside of one.
for limit in 8256 8250; do
    rm -f x.add-cow disk.raw
    addcow create -q -b base.img -F raw -i disk.raw x.add-cow
    ADDCOW_RUN_BEFORE="$ADDCOW_RUN"
    printf '#!/usr/bin/env bash\nulimit -f %s && exec "%s" "$@"\n' "$limit" "$ADDCOW_RUN" >limited-run
    chmod +x limited-run
    ADDCOW_RUN="$scratch/limited-run"
    start_server sock addcow x.add-cow
    ADDCOW_RUN="$ADDCOW_RUN_BEFORE"
    nbdsh -u "$(uri sock)" -c '
K = 65536
def refused(request):
    try:
        request()
    except nbd.Error as error:
        assert error.errno in ("ENOSPC", "EFBIG"), error.errno
    else:
        raise SystemExit("not refused")
h.pwrite(b"1" * K, 127 * K)
refused(lambda: h.pwrite(b"2" * K, 200 * K))
refused(lambda: h.pwrite(b"2" * 512, 300 * K + 512))
refused(lambda: h.pwrite(b"2" * 4 * K, 127 * K + 4096))
refused(lambda: h.pwrite(b"2" * K, 200 * K, nbd.CMD_FLAG_FUA))
h.pwrite(b"3" * K, 127 * K)
# The cluster in which the limit is, of which only a part can be written.
try:
    h.pwrite(b"4" * 512, 128 * K + 512)
    inside = b"4" * 512
except nbd.Error as error:
    assert error.errno in ("ENOSPC", "EFBIG"), error.errno
    inside = bytes(512)
open("inside", "wb").write(inside)
h.flush()
assert h.pread(K, 127 * K) == b"3" * K
assert h.pread(512, 128 * K + 512) == inside
assert h.pread(K, 200 * K) == bytes(K)
assert not h.is_read_only()
h.pwrite(b"5" * 1000, 3 * K)
'
    stop_server "$server_pid" || fail "the server died"
    nbdkit -r -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "
K = 65536
assert h.pread(K, 127 * K) == b\"3\" * K
assert h.pread(512, 128 * K + 512) == open(\"inside\", \"rb\").read()
assert h.pread(1000, 3 * K) == b\"5\" * 1000
"'
    sound x.add-cow
done

# The tool: create leaves nothing behind, flatten keeps what it has done.
limit=8192
touch stdout stderr
before="$(ls)"
expect_fails 1 limited addcow create -b base.img -F raw -i new.raw new.add-cow
expect_equal 1 "$(wc -l <stderr)" "lines of message: $(cat stderr)"
grep -q 'new.raw: cannot have 67108864 bytes: .*the limit of file sizes (ulimit -f)' stderr || fail "$(cat stderr)"
expect_equal "$before" "$(ls)" "what is left behind"

rm -f x.add-cow disk.raw
random_file base.img 16M
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
expect_fails 1 limited addcow flatten x.add-cow
expect_equal 1 "$(wc -l <stderr)" "lines of message: $(cat stderr)"
grep -q 'disk.raw: .*: File too large; 128 of 256 clusters are in the image file, and are kept; run it again' stderr ||
    fail "$(cat stderr)"
expect_equal 128 "$(addcow check --output=json x.add-cow | grep -o '"allocated-clusters": [0-9]*' | grep -o '[0-9]*$')" "clusters kept"
addcow flatten -q x.add-cow
cmp base.img disk.raw
