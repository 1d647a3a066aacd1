#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A migration: virt-v2v converts a guest whose disk is a served add-cow image,
# some of it in the backing file and some in the image file. virt-v2v must take
# it for what it is, its output must be the guest, converted, that boots, and
# no larger than it needs to be; and what is served must not have changed, nor
# the backing file.

# shellcheck source=tests/functions.sh
source "$(dirname "$0")/../functions.sh"
requires virt-v2v guestfish qemu-system-x86_64 nbdcopy e2fsck dumpe2fs debugfs
# shellcheck source=tests/slow/guest.sh
source "$srcdir/tests/slow/guest.sh"
take_guest

addcow create -b "$base" -F raw -i disk.raw x.add-cow

echo "changing the guest"
# The guest's later life, which is in the image file only.
mkdir -p files/srv/data
find /usr/lib -type f -size -1024k | sort | sed -n 1,500p | xargs -d '\n' cat |
    split -b 256k - files/srv/data/part-
tar -C files -cf files.tar srv
start_server s.sock addcow file=x.add-cow
guestfish <<END
add-drive "" format:raw protocol:nbd server:unix:$PWD/s.sock discard:enable
run
mount /dev/sda1 /
tar-in files.tar /
write /etc/hostname "addcow-migrated\n"
rm-rf /usr/share/info
umount-all
shutdown
END
nbdcopy "$(uri s.sock)" before.raw
stop_server "$server_pid"
image_sum="$(sha256sum <disk.raw)"

# Not read-only, so that it could be written; and with the log filter, since a
# write is then seen even if it changes nothing.
start_tcp_server --filter=log addcow file=x.add-cow logfile=requests.log

guest_xml "name='localhost' port='$port'"
mkdir out
# virt-v2v's progress bars are for a terminal.
virt-v2v -i libvirtxml guest.xml -o local -os out >v2v.log 2>&1 || {
    cat v2v.log >&2
    fail "virt-v2v failed"
}
grep '^\[' v2v.log

# Nothing written, and nothing changed.
stop_server "$server_pid"
grep -q ' Read ' requests.log || fail "virt-v2v did not read from the server"
if grep -E ' (Write|Trim|Zero) ' requests.log; then fail "virt-v2v wrote to the server"; fi
start_server s.sock -r addcow file=x.add-cow
nbdcopy "$(uri s.sock)" after.raw
stop_server "$server_pid"
cmp before.raw after.raw || fail "what is served has changed"
addcow check x.add-cow
expect_equal "$image_sum" "$(sha256sum <disk.raw)" "the image file's hash"
expect_equal "$base_sum" "$(sha256sum <"$base")" "the backing file's hash"

[ -s out/migrated.xml ] || fail "virt-v2v wrote no metadata"
[ -s out/migrated-sda ] || fail "virt-v2v wrote no disk"
mv out/migrated-sda output.raw
expect_equal "$(stat -c %s "$base")" "$(stat -c %s output.raw)" "the output's size"
e2fsck -fn "output.raw?offset=$partition" || fail "the output's file system is not clean"

# The guest's files, of the backing file and the image file, but the kernel's
# modules, whose index a conversion makes anew. It may add files of its own.
for disk in before output; do
    mkdir "$disk"
    debugfs -R "rdump /srv /usr/bin /usr/lib /usr/share $disk" "$disk.raw?offset=$partition"
    rm -rf "$disk/lib/modules"
done
hashes() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }
hashes before >before.sums
[ "$(wc -l <before.sums)" -gt 1000 ] || fail "too few files in what was served"
(cd output && sha256sum --quiet -c ../before.sums) || fail "files of the guest have changed"
hashes files >written.sums
[ -s written.sums ] || fail "no files were written"
(cd output && sha256sum --quiet -c ../written.sums) || fail "files written have changed"
[ ! -e output/share/info ] || fail "a deleted directory is back"
echo "files as before: $(wc -l <before.sums), of the image file: $(wc -l <written.sums)"

# The output holds what its file system uses (blocks in use, the journal and
# the inode tables among them) and no unused space of the guest: 1 MiB each for
# the partition table and the gap at the end.
dumpe2fs -h "output.raw?offset=$partition" >superblock
field() { sed -n "s/^$1: *//p" superblock; }
used=$((($(field 'Block count') - $(field 'Free blocks')) * $(field 'Block size')))
space="$(($(stat -c '%b * %B' output.raw)))"
echo "the output takes up $((space / MiB)) MiB, its file system uses $((used / MiB)) MiB"
[ "$space" -le "$((used + 2 * MiB))" ] || fail "the output is larger than its files ask for"
[ "$space" -gt "$((100 * MiB))" ] || fail "the output is too small to be the guest"

boots output.raw
