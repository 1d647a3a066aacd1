#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The kernel tells each open file description once that data was lost on its way
# to the disk, on NFS also by a plain write. A flush must hear of it all the same.
# A durable write without room fails by itself, is not made twice, and costs
# nobody else anything.

. "$(dirname "$0")/../functions.sh"
requires nbdsh

K=65536
errno_eio=5 errno_enospc=28 errno_efbig=27 errno_edquot=122 errno_einval=22
random_file noise $((16 * K))

serve() {
    new_image
    no_fault
    with_faults start_server sock addcow x.add-cow sync-interval=0 "$@"
    client 'h.pwrite(b"f" * K, 0)' 'h.flush()'
}

# descriptions FILE: how many descriptors the server has on it.
descriptions() { find "/proc/$server_pid/fd" -lname "$scratch/$1" | wc -l; }

serve
expect_equal 3 "$(descriptions disk.raw)" "descriptions of the image file"
expect_equal 1 "$(descriptions x.add-cow)" "descriptions of the add-cow file"
# One of them holds the lock; and the others had none to take away.
expect_fails 1 nbdkit -U - addcow x.add-cow --run true
grep -q 'is in use by another program' stderr || fail "$(cat stderr)"
stop_server "$server_pid"

# A plain write is told first; written once more it succeeds. Then whoever asks
# for what was written before to be durable must hear of it.
for flush in 'h.flush()' 'h.pwrite(b"m", 3 * K, fua)' 'h.zero(K, 9 * K, fua)'; do
    serve
    client 'h.pwrite(b"a" * K, 4 * K)'
    fault loss 1 "$errno_eio" /disk.raw
    client 'refused(lambda: h.pwrite(b"b" * 100, 100))' 'h.pwrite(b"b" * 100, 100)' \
        "refused(lambda: $flush)" 'refused(h.flush)' 'refused(lambda: h.pwrite(b"x", 0))' \
        'assert h.pread(K, 4 * K) == b"a" * K'
    grep -q '^pwrite ' fault.hits || fail "no write was told: $(cat fault.hits)"
    grep -q '^fdatasync ' fault.hits || fail "no sync was told: $(cat fault.hits)"
    logged 1 'fdatasync: .*/disk.raw: .*; read only from here on'
    no_fault
    stop_server "$server_pid"
done

# A durable write is told first, and then a flush.
for error in "$errno_eio EIO" "$errno_enospc ENOSPC"; do
    serve
    client 'h.pwrite(b"a" * K, 4 * K)'
    fault loss 1 "${error% *}" /disk.raw
    client 'refused(lambda: h.pwrite(b"b" * 512, 512, fua), "'"${error#* }"'")' 'refused(h.flush)' 'refused(h.flush)'
    [ "${error#* }" = EIO ] || grep -q '^fdatasync ' fault.hits || fail "$(cat fault.hits)"
    logged 1 'read only from here on'
    no_fault
    stop_server "$server_pid"
done

# No room for a durable write.
for error in "$errno_enospc" "$errno_edquot" "$errno_efbig"; do
    serve
    client 'h.pwrite(b"a" * K, 4 * K)'
    fault pwritev2 1+ "$error" /disk.raw
    client 'refused(lambda: h.pwrite(b"b" * 512, 512, fua), "ENOSPC")' 'h.flush()' \
        'h.pwrite(b"c" * 512, 8 * K + 512, fua)' 'h.pwrite(b"d", 7)' 'h.flush()' 'assert not h.is_read_only()'
    logged 0 'read only from here on'
    no_fault
    client 'h.pwrite(b"e" * 512, 1024, fua)'
    stop_server "$server_pid"
    nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "
assert h.pread(65536, 4 * 65536) == b\"a\" * 65536
assert h.pread(1, 7) == b\"d\"
assert h.pread(512, 1024) == b\"e\" * 512"'
done

# Written once.
serve
fault pwrite 1+ "$errno_eio" /disk.raw
client 'h.pwrite(b"o" * 512, 512, fua)' 'assert h.pread(512, 512) == b"o" * 512'
[ ! -e fault.hits ] || fail "written twice: $(cat fault.hits)"
no_fault
stop_server "$server_pid"

# Where the system does not have the call, or the file system is not one that is
# known to keep it, the file is synced.
serve
fault pwritev2 1+ "$errno_einval" /disk.raw
client 'h.pwrite(b"o" * 512, 512, fua)' 'h.pwrite(b"o" * 512, 1024, fua)' 'h.flush()'
expect_equal 1 "$(wc -l <fault.hits)" "durable writes that were tried"
no_fault
stop_server "$server_pid"

new_image
fault fstatfs 1+ "$errno_einval" /disk.raw
with_faults start_server sock addcow x.add-cow sync-interval=0
client 'h.pwrite(b"f" * K, 0)' 'h.flush()'
fault pwritev2 1+ "$errno_eio" /disk.raw
client 'h.pwrite(b"o" * 512, 512, fua)'
[ ! -e fault.hits ] || fail "durable writes on an unknown file system"
fault fdatasync 1 "$errno_eio" /disk.raw
client 'refused(lambda: h.pwrite(b"o" * 512, 512, fua))'
no_fault
stop_server "$server_pid"

# Without /proc the file is opened by its name, beneath the directory of confine= too.
if can_mount; then
    for confine in '' "confine=$scratch"; do
        new_image
        without_proc "$ADDCOW_RUN" nbdkit -U - addcow x.add-cow ${confine:+"$confine"} --run 'nbdsh -u "$uri" -c "
h.pwrite(b\"p\" * 65536, 0)
h.flush()
h.pwrite(b\"q\" * 512, 0, nbd.CMD_FLAG_FUA)
assert not h.is_read_only()"' || fail "without /proc ($confine)"
        expect_equal "$(printf 'q%.0s' {1..512})" "$(head -c 512 disk.raw)" "what was written without /proc"
    done
else
    echo "not tried: without /proc (needs root, and mount name spaces)"
fi

# A read-only connection does not vouch for what a flush has failed for: nbdkit's
# retry filter opens one and asks again.
serve --filter=retry retries=2 retry-delay=1 retry-exponential=no retry-readonly=yes
fault fdatasync 1 "$errno_eio" /disk.raw
client 'h.pwrite(b"a" * K, 4 * K)' 'refused(h.flush)'
no_fault
stop_server "$server_pid"
