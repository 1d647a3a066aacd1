#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A file can claim any size and have no storage. What the server and the tool
# take in memory goes by the storage, and what does not fit is refused.

. "$(dirname "$0")/../functions.sh"
requires python3 nbdkit

huge=
for size in 64T 8T 1T; do
    if truncate -s "$size" huge.raw 2>/dev/null; then huge="$size"; break; fi
done
[ -n "$huge" ] || skip "no file of 1 TiB can be made in $scratch"
echo "size: $huge"

random_file base.img 100000
addcow create -q -b base.img -F raw -i huge.raw huge.add-cow
addcow create -q -b base.img -F raw -i small.raw small.add-cow
# One bit at each end of the bitmap.
printf '\001' | dd of=huge.add-cow oflag=seek_bytes seek=4096 conv=notrunc status=none
printf '\200' | dd of=huge.add-cow oflag=seek_bytes seek=$(($(stat -c %s huge.add-cow) - 1)) \
    conv=notrunc status=none

# resident NAME: the most memory, in KiB, that a server of NAME.add-cow had.
resident() {
    start_server "$1.sock" addcow "$1.add-cow"
    awk '$1 == "VmHWM:" { print $2 }' "/proc/$server_pid/status" >"$1.resident"
    stop_server "$server_pid"
}
resident small
resident huge
small="$(cat small.resident)" large="$(cat huge.resident)"
echo "server: $small KiB for a small disk, $large KiB for $huge"
[ "$small" -gt 0 ] || fail "the server's memory is not known"
[ "$large" -lt $((small + 16384)) ] || fail "the server takes $large KiB, $small for a small disk"

# peak ARGUMENT...: the same for a run of the tool.
peak() {
    python3 - "$ADDCOW_RUN" addcow "$@" <<'END'
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
END
}
for verb in info 'info --picture' map 'map --output=svg' check; do
    # shellcheck disable=SC2086  # words
    small="$(peak $verb small.add-cow)"
    # shellcheck disable=SC2086
    large="$(peak $verb huge.add-cow)"
    echo "$verb: $small KiB, $large KiB"
    [ "$large" -lt $((small + 16384)) ] || fail "$verb takes $large KiB, $small for a small disk"
done

# The bitmap is too short for what the image file claims.
cp small.add-cow short.add-cow
python3 - <<'END'
with open("short.add-cow", "r+b") as file:
    header = bytearray(file.read(4096))
    at = header.index(b"small.raw")
    header[at:at + 9] = b"huge.raw\0"
    header[24:28] = (8).to_bytes(4, "little")
    file.seek(0)
    file.write(header)
END
expect_fails 1 nbdkit -U - addcow short.add-cow --run true
grep -q 'short.add-cow: the image file has grown to .* but the COW bitmap' stderr || fail "the server: $(cat stderr)"
expect_fails 1 addcow map short.add-cow
grep -q 'short.add-cow: the image file has grown to .* but the COW bitmap' stderr || fail "map: $(cat stderr)"
