#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# New image and add-cow files have no more rights than the base, so that a disk
# does not become readable by way of a copy of it; and preallocation.

. "$(dirname "$0")/../functions.sh"
umask 022

# rights MODE-OF-BASE EXPECTED [UMASK]
rights() {
    local file
    random_file base.img 100K
    chmod "$1" base.img
    (umask "${3:-022}" && "$ADDCOW_RUN" addcow create -q -b base.img -F raw -i disk.raw x.add-cow)
    for file in disk.raw x.add-cow; do
        expect_equal "$2" "$(stat -c %a "$file")" "$file over a base of mode $1, umask ${3:-022}"
    done
    rm -f base.img disk.raw x.add-cow
}
rights 600 600
rights 640 640
rights 644 644
rights 666 644
rights 666 666 000
rights 660 660 000
rights 444 644
rights 600 600 000
rights 644 600 077
# Of another group: who is in the new one may not read the base.
if [ "$(id -u)" -eq 0 ]; then
    random_file base.img 100K
    chmod 640 base.img
    chgrp 12345 base.img
    addcow create -q -b base.img -F raw -i disk.raw x.add-cow
    expect_equal 600 "$(stat -c %a disk.raw)" "disk.raw, whose group is not the base's"
    rm -f base.img disk.raw x.add-cow
else
    echo "not tried: a base of another group (needs root)"
fi
# Without a base as always.
addcow create -q -i alone.raw -s 1M alone.add-cow
expect_equal 644 "$(stat -c %a alone.raw)" "an image file without a base"

# Preallocation, by the names of qemu-img.
for how in off falloc full; do
    addcow create -q --preallocation="$how" -i "$how.raw" -s 3000001 "$how.add-cow" ||
        fail "preallocation=$how"
    expect_equal 3000001 "$(stat -c %s "$how.raw")" "size with preallocation=$how"
done
expect_equal 0 "$(used_bytes off.raw)" "storage with preallocation=off"
for how in falloc full; do
    [ "$(used_bytes "$how.raw")" -ge 3000001 ] || fail "preallocation=$how: $(used_bytes "$how.raw")"
done
addcow create --preallocation=full -p -i p.raw -s 20M p.add-cow >out
grep -q '^100% of 20 MiB' out || fail "no progress: $(cat out)"
expect_fails 1 addcow create --preallocation=full -i off.raw again.add-cow
grep -q 'off.raw: already exists' stderr || fail "$(cat stderr)"

# No room: nothing is left.
if can_mount; then
    mkdir full
    for how in falloc full; do
        unshare -m bash -e -c "
            mount -t tmpfs -o size=4M none full
            if '$ADDCOW_RUN' addcow create --preallocation=$how -i disk.raw -s 1G full/x.add-cow 2>stderr
            then exit 1; fi
            test -z \"\$(ls -A full)\"
        " || fail "preallocation=$how on a full file system: $(cat stderr)"
        grep -q 'No space left' stderr || fail "$(cat stderr)"
    done
else
    echo "not tried: a full file system (needs root)"
fi
