#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A sync that fails under a real server: that flush and every later write and
# flush give EIO, once in the log, reads go on, new clients find it read only;
# what was flushed before is there for the next server.

. "$(dirname "$0")/../functions.sh"
requires nbdsh

random_file noise 1M
client_knows 'base = open("noise", "rb").read()'
errno_eio=5 errno_enospc=28

# FILE ERRNO REQUEST
try() {
    local file="$1" error="$2" request="$3"
    new_image
    no_fault
    with_faults start_server sock addcow x.add-cow
    client 'h.pwrite(b"f" * 100, 1000)' 'h.flush()'
    # Once only: a sync that is tried again would succeed and prove nothing.
    fault fdatasync 1 "$error" "/$file"
    client '
h.pwrite(b"n" * 100, 200000)
'"refused(lambda: $request)"'
refused(h.flush)
refused(lambda: h.pwrite(b"x", 0))
refused(lambda: h.pwrite(b"x" * 65536, 65536))
refused(lambda: h.pwrite(b"x", 0, fua))
refused(lambda: h.zero(100, 0))
refused(lambda: h.trim(100, 1000))
assert h.pread(100, 1000) == b"f" * 100
assert h.pread(100, 200000) == b"n" * 100
assert h.pread(100, 500000) == base[500000:500100]
h.cache(100, 0)
'
    [ -s fault.hits ] || fail "no sync failed: $*"
    client 'assert h.is_read_only()' 'assert h.pread(100, 1000) == b"f" * 100'
    logged 1 'read only from here on'
    logged 1 "fdatasync: .*/$file: .*; read only from here on"
    stop_server "$server_pid"
    expect_equal 1 "$(wc -l <fault.hits)" "syncs that failed ($*)"
    sound x.add-cow
    nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "
assert h.pread(100, 1000) == b\"f\" * 100
assert not h.is_read_only()
h.pwrite(b\"g\", 5)
h.flush()"'
    cmp noise base.img
}

try disk.raw "$errno_eio" 'h.flush()'
try disk.raw "$errno_enospc" 'h.flush()'
try x.add-cow "$errno_eio" 'h.flush()'
try disk.raw "$errno_eio" 'h.pwrite(b"m", 300000, fua)'
try x.add-cow "$errno_eio" 'h.zero(100, 300000, fua)'
try disk.raw "$errno_eio" 'h.trim(100, 300000, fua)'

# The one at the clean end can only be logged.
new_image
with_faults start_server sock addcow x.add-cow
client 'h.pwrite(b"f" * 100, 1000)'
fault fdatasync 1 "$errno_eio" /disk.raw
stop_server "$server_pid"
[ -s fault.hits ] || fail "no sync at the end"
logged 1 'fdatasync: .*/disk.raw: .*; read only from here on'
