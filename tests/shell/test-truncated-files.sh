#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Files that change under a running server: each of the three truncated, the
# backing file deleted or replaced. What is lost gives EIO and a line in the log
# that names the file, never zeroes; the rest is served; the server goes on, and
# stops cleanly.

. "$(dirname "$0")/../functions.sh"
requires nbdsh

K=65536
random_file noise $((16 * K))
client_knows 'base = open("noise", "rb").read()'

# serve: a new image, of whose 16 clusters 0 to 3 are allocated and flushed.
serve() {
    new_image
    start_server sock addcow x.add-cow sync-interval=0
    client 'h.pwrite(b"w" * 4 * K, 0)' 'h.flush()'
}


# The image file. What it had cannot be read, and no flush says that all is well.
serve
truncate -s $((2 * K + 100)) disk.raw
client 'refused(lambda: h.pread(K, 2 * K))' 'refused(lambda: h.pread(1, 3 * K))' \
    'assert h.pread(2 * K + 100, 0) == b"w" * (2 * K + 100)' \
    'assert h.pread(12 * K, 4 * K) == base[4 * K:]'
logged 1 'disk.raw: ends at byte 131172, .*truncated'
logged 1 'disk.raw: ends at byte 196608 or earlier, .*truncated'
client 'h.pwrite(b"x", 0)' 'refused(h.flush)' 'refused(h.flush)' \
    'refused(lambda: h.pwrite(b"x", 0))' 'assert h.pread(1, 0) == b"x"' \
    'assert h.pread(12 * K, 4 * K) == base[4 * K:]'
logged 1 'disk.raw: was truncated while in use: .*; read only from here on'
client 'assert h.is_read_only()'
stop_server "$server_pid"

serve
truncate -s 0 disk.raw
client 'refused(lambda: h.pread(1, 0))' 'refused(lambda: h.pwrite(b"x", 5 * K, fua))' \
    'assert h.pread(12 * K, 4 * K)[K + 1:] == base[5 * K + 1:]'
stop_server "$server_pid"

# The backing file. What is allocated, and whole clusters, do not need it.
serve
truncate -s $((6 * K)) base.img
client 'refused(lambda: h.pread(K, 8 * K))' 'refused(lambda: h.pwrite(b"x", 8 * K))' \
    'assert h.pread(4 * K, 0) == b"w" * 4 * K' 'assert h.pread(2 * K, 4 * K) == base[4 * K:6 * K]' \
    'h.pwrite(b"v" * K, 9 * K)' 'h.pwrite(b"v", 5 * K)' 'h.flush()' \
    'assert h.pread(K, 9 * K) == b"v" * K' 'assert not h.is_read_only()'
logged 2 'base.img: ends at byte .* or earlier, .*truncated'
stop_server "$server_pid"

# Deleted, or replaced: the file that was opened goes on being read.
for how in 'rm base.img' 'rm base.img; head -c 1048576 /dev/zero >base.img' \
    'head -c 5 /dev/zero >other; mv other base.img'; do
    serve
    eval "$how"
    client 'assert h.pread(12 * K, 4 * K) == base[4 * K:]' 'h.pwrite(b"x", 7 * K)' 'h.flush()' \
        'assert h.pread(K, 7 * K) == b"x" + base[7 * K + 1:8 * K]'
    logged 0 'error'
    stop_server "$server_pid"
done
rm base.img
expect_fails 1 nbdkit -U - addcow x.add-cow --run true
grep -q 'base.img: not found, but it is the backing file of' stderr || fail "$(cat stderr)"

# The add-cow file. No bits are written behind a header that is gone.
for size in 0 100 4096; do
    serve
    truncate -s "$size" x.add-cow
    # A small write would have the file grow, which would hide it.
    client 'refused(lambda: h.pwrite(b"x", 9 * K))' 'h.pwrite(b"x" * K, 6 * K)' \
        'refused(h.flush)' 'refused(lambda: h.pwrite(b"y", 0))' \
        'assert h.pread(K, 6 * K) == b"x" * K' 'assert h.pread(K, 9 * K) == base[9 * K:10 * K]' \
        'assert h.pread(4 * K, 0) == b"w" * 4 * K'
    logged 1 "x.add-cow: was truncated while in use: $size bytes, .*; read only from here on"
    client 'assert h.is_read_only()'
    stop_server "$server_pid"
    expect_equal "$size" "$(stat -c %s x.add-cow)" "size of the add-cow file"
    want=2
    [ "$size" -gt 0 ] || want=1 # not an add-cow file at all
    expect_fails "$want" addcow check x.add-cow
done

# Without a flush only the end of the server can tell. Its status stays 0.
serve
client 'h.pwrite(b"x", 6 * K)'
truncate -s 0 x.add-cow
stop_server "$server_pid"
logged 1 'x.add-cow: was truncated while in use: .*; read only from here on'
