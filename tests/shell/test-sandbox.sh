#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Containers forbid system calls that their profile does not know, with EPERM or
# ENOSYS. Whatever there is another way for takes that way: server and tool work
# without each such call and without all of them. openat2 has none (confine=), and
# the message says so.

. "$(dirname "$0")/../functions.sh"
requires nbdsh python3

forbid="$ADDCOW_BUILDDIR/tests/fault/forbid"
[ -x "$forbid" ] || fail "$forbid is not built"
"$forbid" 1 statx -- true 2>stderr || skip "no sandboxes here: $(head -n 1 stderr)"
"$forbid" 1 fallocate -- fallocate -l 1 probe 2>/dev/null && fail "nothing is forbidden"

random_file base.img 512K
truncate -s 1M base.img
calls=(pwritev2 fallocate renameat2 sync_file_range fadvise64 fstatfs prlimit64 statx
    copy_file_range ficlonerange fiemap blkroget seek_data seek_hole)
if built_with_sanitizer; then
    echo "prlimit64 is forbidden for RLIMIT_FSIZE alone: AddressSanitizer asks for RLIMIT_STACK at its start"
    calls=("${calls[@]/prlimit64/prlimit_fsize}")
fi

# What the disk is to hold in the end.
python3 -c '
K = 65536
disk = bytearray(open("base.img", "rb").read())
def put(data, at):
    disk[at:at + len(data)] = data
put(b"1" * K, 0)
put(b"2" * 512, 1024)
put(b"3" * 512, 3 * K + 512)
put(bytes(4096), 8192)
put(bytes(K), 2 * K)
put(bytes(5000), 4 * K + 100)
put(bytes(4096), 16384)
put(b"4" * 100, 7 * K + 3)
open("want", "wb").write(disk)
'

# under ERROR CALLS: one whole life of an image without these calls.
under() {
    local error="$1" what="$*" run="$ADDCOW_RUN"
    local sandbox=("$forbid" "$@" --)
    rm -f x.add-cow disk.raw
    "${sandbox[@]}" "$run" addcow create -q -b base.img -F raw -i disk.raw x.add-cow ||
        fail "create, without $what"
    ADDCOW_RUN="$scratch/run-in-sandbox"
    { echo '#!/bin/sh'; echo "exec ${sandbox[*]} '$run' \"\$@\""; } >"$ADDCOW_RUN"
    chmod +x "$ADDCOW_RUN"
    start_server sock addcow x.add-cow
    ADDCOW_RUN="$run"
    nbdsh -u "$(uri sock)" -c '
K = 65536
h.pwrite(b"1" * K, 0)
h.flush()
h.pwrite(b"2" * 512, 1024, nbd.CMD_FLAG_FUA)
h.pwrite(b"3" * 512, 3 * K + 512, nbd.CMD_FLAG_FUA)
h.trim(4096, 8192)
h.trim(K, 2 * K)
h.zero(5000, 4 * K + 100)
h.zero(4096, 16384, nbd.CMD_FLAG_NO_HOLE)
h.cache(8 * K, 0)
assert h.pread(4096, 8192) == bytes(4096)
assert h.pread(K, 2 * K) == bytes(K)
assert h.pread(4096, 16384) == bytes(4096)
assert h.pread(512, 1024) == b"2" * 512
h.pwrite(b"4" * 100, 7 * K + 3)
' || fail "a request failed, without $what: $(cat sock.log)"
    nbdkit -r -U - addcow x.add-cow lock=off --run true
    stop_server "$server_pid"
    [ ! -s sock.log ] || fail "in the log, without $what: $(cat sock.log)"
    "${sandbox[@]}" "$run" addcow check x.add-cow >out || [ $? -eq 3 ] || fail "check, without $what"
    "${sandbox[@]}" "$run" addcow map x.add-cow >out || fail "map, without $what"
    "${sandbox[@]}" "$run" addcow flatten -q x.add-cow || fail "flatten, without $what"
    cmp want disk.raw || fail "other bytes, without $what"
}

for error in 1 38; do # EPERM, ENOSYS
    for call in "${calls[@]}"; do under "$error" "$call"; done
    under "$error" "${calls[@]}"
    # The one that confine= cannot do without.
    addcow create -q --force --discard -b base.img -F raw -i disk.raw x.add-cow 2>/dev/null
    expect_fails 1 "$forbid" "$error" openat2 -- \
        "$ADDCOW_RUN" nbdkit -U - addcow x.add-cow confine=. --run true
    grep -q 'confine= needs openat2, which this system does not have' stderr || fail "$(cat stderr)"
    expect_equal 1 "$(wc -l <stderr)" "lines of message: $(cat stderr)"
    "$forbid" "$error" openat2 -- "$ADDCOW_RUN" nbdkit -U - addcow x.add-cow --run true
done
