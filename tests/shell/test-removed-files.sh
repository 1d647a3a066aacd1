#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The add-cow file or the image file is removed, replaced or renamed under a
# running server. Where nobody can open the old one again, a flush fails, also
# those after it, and the log says why once; reads go on, so that the disk can be
# copied. One that only has another name is served on.

. "$(dirname "$0")/../functions.sh"
requires nbdsh nbdcopy

K=65536
random_file noise $((16 * K))
client_knows 'base = open("noise", "rb").read()'

serve() {
    rm -f moved
    new_image
    start_server sock addcow x.add-cow sync-interval=0
    client 'h.pwrite(b"w" * 4 * K, 0)' 'h.flush()'
}


for file in x.add-cow disk.raw; do
    for how in removed replaced; do
        for request in 'h.flush()' 'h.pwrite(b"f", 0, fua)' 'h.zero(K, 9 * K, fua)'; do
            serve
            if [ "$how" = removed ]; then
                rm "$file"
            else
                cp --sparse=always "$file" other
                mv other "$file"
            fi
            client 'h.pwrite(b"x" * 100, 6 * K)' "refused(lambda: $request)" 'refused(h.flush)' \
                'refused(lambda: h.pwrite(b"y", 0))' 'assert h.pread(1, 6 * K) == b"x"'
            logged 1 "/$file: was $how while in use: the file in use has no name any more, .*; read only from here on"
            client 'assert h.is_read_only()'
            nbdcopy "$(uri sock)" copy.raw
            stop_server "$server_pid"
            logged 1 'read only from here on'
            client_of_copy="$(head -c $((6 * K + 100)) copy.raw | tail -c 100)"
            expect_equal "$(printf 'x%.0s' {1..100})" "$client_of_copy" "what was copied"
        done
    done
done

# At the end, though all was flushed before.
serve
rm disk.raw
stop_server "$server_pid"
logged 1 '/disk.raw: was removed while in use.*; read only from here on'

# Renamed: said once, and served on, from its new name in the end.
for file in x.add-cow disk.raw; do
    serve
    mv "$file" moved
    client 'h.pwrite(b"x" * 100, 6 * K)' 'h.flush()' 'h.pwrite(b"y", 6 * K, fua)' 'h.flush()'
    logged 1 "/$file: leads to nothing by now"
    stop_server "$server_pid"
    logged 0 'read only from here on'
    mv moved "$file"
    nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "assert h.pread(100, 6 * 65536) == b\"y\" + b\"x\" * 99"'
done

# A second name is one, too.
serve
ln x.add-cow moved
rm x.add-cow
client 'h.flush()'
logged 1 '/x.add-cow: leads to nothing by now'
stop_server "$server_pid"

# The backing file goes on being read; it has nothing that was written here.
serve
rm base.img
client 'h.pwrite(b"x", 6 * K)' 'h.flush()' 'assert h.pread(K, 8 * K) == base[8 * K:9 * K]'
logged 0 'error'
stop_server "$server_pid"
