#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A guest's file system trimmed through the served image. guestfish writes files
# to a partitioned disk over NBD, deletes most of what is there (files of the
# backing file and its own), and runs fstrim. Copies made afterwards must be no
# larger than the files left ask for, clean, with the right contents in every
# file, and the same whichever program made them. The raw image file must have
# given its space back too, and the backing file must not have changed.

# shellcheck source=tests/functions.sh
source "$(dirname "$0")/../functions.sh"
PATH="$PATH:/usr/sbin:/sbin"

requires guestfish qemu-img nbdcopy nbdinfo e2fsck dumpe2fs debugfs
compgen -G '/boot/vmlinuz-*' >/dev/null || skip "no kernel in /boot for libguestfs"
export LIBGUESTFS_BACKEND="${LIBGUESTFS_BACKEND:-direct}"
export LIBGUESTFS_BACKEND_SETTINGS="${LIBGUESTFS_BACKEND_SETTINGS-force_tcg}"

MiB=1048576
# The disk, and how much of this machine's /usr goes to its two trees of files.
disk_mib=512
base_mib=120
new_mib=80
# Each tree has directories d00 to d39; those that stay, but for every other
# file of the first, are one in four.
directories=40
kept_every=4

# The disk has one partition, here, in bytes.
partition=$MiB

# Bytes of disk space that a file takes up.
space() { echo $(($(stat -c '%b * %B' "$1"))); }
mib() { echo "$((($1 + MiB / 2) / MiB)) MiB"; }
# The hashes of every file below DIRECTORY.
hashes() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 -r sha256sum); }

# stage TREE MIB: about that much of /usr, files not yet taken, in
# TREE/d00/..., TREE/d01/... in turn. The list of all files is in ./files.
stage() {
    local tree="$1" number directory
    awk -v limit="$(($2 * MiB))" -v n="$directories" -v tree="$tree" '
        bytes < limit { bytes += $1; sub(/^[0-9]+ /, ""); print >(tree "." NR % n); next }
        { print >"files.rest" }
        END { exit bytes < limit }
    ' files || skip "/usr/share/doc and /usr/lib are too small to take files from"
    mv files.rest files
    for ((number = 0; number < directories; number++)); do
        directory="$(printf '%s/d%02d' "$tree" "$number")"
        mkdir -p "$directory"
        xargs -d '\n' cp --parents -t "$directory" <"$tree.$number"
    done
}

# delete TREE: takes the files to delete out of the staged TREE, and prints the
# guestfish commands that do the same in the guest.
delete() {
    local tree="$1" number directory file
    for ((number = 0; number < directories; number++)); do
        directory="$(printf '%s/d%02d' "$tree" "$number")"
        if [ $((number % kept_every)) -ne 0 ]; then
            rm -r "$directory"
            echo "rm-rf /$directory"
        fi
    done
    find "$tree/d00" -type f | sort | sed -n 'p;n' | while read -r file; do
        rm "$file"
        echo "rm \"/$file\""
    done
}

# Plain names only, since they are written into guestfish commands.
find /usr/share/doc /usr/lib -type f -size -2048k ! -name '*[^-A-Za-z0-9._+]*' \
    -printf '%s %p\n' | grep -v '["\\]' | sort -k 2 >files
stage base "$base_mib"
stage new "$new_mib"
tar -cf base.tar base
tar -cf new.tar new

echo "making the backing file"
truncate -s "${disk_mib}M" base.img
guestfish --format=raw -a base.img <<END
run
part-init /dev/sda mbr
part-add /dev/sda p $((partition / 512)) -2048
mke2fs /dev/sda1 blocksize:4096 fstype:ext4 lazyitableinit:false
mount /dev/sda1 /
tar-in base.tar /
umount-all
shutdown
END
base_sum="$(sha256sum <base.img)"

addcow create -b base.img -F raw -i disk.raw x.add-cow
start_server s.sock addcow file=x.add-cow

# guest: guestfish on the served disk, discard enabled (which only add-drive
# can ask for; -a cannot), with the commands of standard input.
guest() {
    {
        echo "add-drive \"\" format:raw protocol:nbd server:unix:$PWD/s.sock discard:enable"
        echo "run"
        echo "mount /dev/sda1 /"
        cat
        echo "umount-all"
        echo "shutdown"
    } | guestfish
}

echo "writing and deleting files in the guest"
{
    echo "tar-in new.tar /"
    echo "sync"
    delete base
    delete new
} >changes
guest <changes
hashes base >expected
hashes new >>expected

nbdcopy "$(uri s.sock)" untrimmed.raw
untrimmed="$(space untrimmed.raw)"
untrimmed_image="$(space disk.raw)"

echo "trimming the guest"
guest <<END
fstrim /
END
trimmed_image="$(space disk.raw)"

# Not nbdcopy --sparse=0, to go by what the server says is a hole and nothing
# else: it writes out zeroes for short holes, of whichever server. The server's
# map is looked at below instead.
nbdcopy "$(uri s.sock)" copy.raw
qemu-img convert -f raw -O raw "nbd:unix:$PWD/s.sock" convert.raw
qemu-img compare -f raw -F raw copy.raw convert.raw || fail "the two copies differ"
nbdinfo --map "$(uri s.sock)" >map

# What the copy asks for: the blocks in use, the file system's own (inode
# tables, bitmaps, the journal) among them. Allowed beyond that are 2 MiB, for
# the partition table and the gaps before and after the partition.
dumpe2fs "copy.raw?offset=$partition" >blocks
field() { sed -n "s/^$1: *//p" blocks; }
block_size="$(field 'Block size')"
used=$((($(field 'Block count') - $(field 'Free blocks')) * block_size))
allowed=$((used + 2 * MiB))
echo "used in the file system: $(mib "$used"); allowed in a copy: $(mib "$allowed")"
echo "a copy before fstrim: $(mib "$untrimmed"); the image file: $(mib "$untrimmed_image")"
for copy in copy.raw convert.raw; do
    echo "$copy after fstrim: $(mib "$(space "$copy")")"
done
echo "the image file after fstrim: $(mib "$trimmed_image")"
# Else the test would pass without any trim.
[ "$untrimmed" -gt "$((allowed + 50 * MiB))" ] || fail "too little was deleted to tell"
for copy in copy.raw convert.raw; do
    [ "$(space "$copy")" -le "$allowed" ] || fail "$copy is larger than the file system asks for"
done
# Three quarters of what the guest wrote were deleted: half must have come back.
[ "$trimmed_image" -le "$((untrimmed_image - new_mib * MiB / 2))" ] ||
    fail "the image file did not give its space back"

# The same to the byte: no free block is served as data, also where the blocks
# trimmed begin or end inside one of the image's clusters.
awk -v size="$block_size" -v start="$partition" '
    sub(/^  Free blocks: */, "") {
        for (i = split($0, ranges, ", "); i > 0; i--) {
            n = split(ranges[i], ends, "-")
            print start + ends[1] * size, start + (ends[n] + 1) * size
        }
    }
' blocks >free
awk '
    BEGIN { n = 0 }
    NR == FNR { from[n] = $1; to[n++] = $2; total += $2 - $1; next }
    $4 == "data" {
        data += $2
        for (i = 0; i < n; i++) {
            a = $1 > from[i] ? $1 : from[i]
            b = $1 + $2 < to[i] ? $1 + $2 : to[i]
            if (a < b) stale += b - a
        }
    }
    END {
        printf "served as data: %d bytes\n", data
        printf "free: %d bytes in %d ranges; of them served as data: %d\n", total, n, stale
        exit stale > 0
    }
' free map || fail "free space is served as data"

e2fsck -fn "copy.raw?offset=$partition" || fail "the copy's file system is not clean"
mkdir out
debugfs -R "rdump /base /new out" "copy.raw?offset=$partition"
(cd out && { hashes base; hashes new; }) >actual
cmp expected actual || fail "the copy's files are not those that the guest kept"
echo "$(wc -l <actual) files are as written"

stop_server "$server_pid"
addcow check x.add-cow
expect_equal "$base_sum" "$(sha256sum <base.img)" "the backing file's hash"
