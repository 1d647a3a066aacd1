#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A cloud image from beginning to end: a compressed qcow2 with a partitioned guest is
# the base of an image; the guest is changed over NBD, its free space trimmed, and the
# disk copied out by nbdcopy and by qemu-img. Both copies are the guest with its changes,
# sparse, and clean; the qcow2 has not changed, and no qemu-nbd is left.

# shellcheck source=tests/functions.sh
source "$(dirname "$0")/../functions.sh"
PATH="$PATH:/usr/sbin:/sbin"

requires guestfish qemu-img qemu-nbd nbdcopy nbdinfo e2fsck dumpe2fs
compgen -G '/boot/vmlinuz-*' >/dev/null || skip "no kernel in /boot for libguestfs"
export LIBGUESTFS_BACKEND="${LIBGUESTFS_BACKEND:-direct}"
export LIBGUESTFS_BACKEND_SETTINGS="${LIBGUESTFS_BACKEND_SETTINGS-force_tcg}"

MiB=1048576
disk_mib=200
# The partition for the firmware, and then the one of the guest, in bytes.
firmware=$MiB
root=$((17 * MiB))

space() { echo $(($(stat -c '%b * %B' "$1"))); }
hashes() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 -r sha256sum); }

# stage TREE FIRST LAST: those of the files of this machine, in the order of their names.
stage() {
    mkdir -p "$1"
    find /usr/lib /usr/share -type f -size +64k -size -1024k ! -name '*[^-A-Za-z0-9._+]*' |
        LC_ALL=C sort | sed -n "$2,$3p" | xargs -d '\n' cp --parents -t "$1"
}

# What libguestfs looks for to take it for a Debian.
mkdir -p guest/{bin,boot,usr,var/lib/dpkg} guest/etc
cat >guest/etc/fstab <<'END'
LABEL=cloudimg-rootfs / ext4 errors=remount-ro 0 1
LABEL=UEFI /boot/efi vfat umask=0077 0 2
END
mkdir guest/boot/efi
echo 12.0 >guest/etc/debian_version
printf 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n' >guest/etc/os-release
echo localhost >guest/etc/hostname
touch guest/var/lib/dpkg/status
stage guest/srv/old 1 300
stage guest/srv/kept 451 500
stage new 301 450
[ "$(find new -type f | wc -l)" -eq 150 ] || skip "/usr has too few files to take"
tar -C guest -cf guest.tar .
tar -cf new.tar new

echo "making the cloud image"
truncate -s ${disk_mib}M guest.raw
guestfish --format=raw -a guest.raw <<END
run
part-init /dev/sda gpt
part-add /dev/sda p $((firmware / 512)) $((root / 512 - 1))
part-add /dev/sda p $((root / 512)) -2048
part-set-gpt-type /dev/sda 1 C12A7328-F81F-11D2-BA4B-00A0C93EC93B
mkfs vfat /dev/sda1 label:UEFI
mke2fs /dev/sda2 blocksize:4096 fstype:ext4 label:cloudimg-rootfs lazyitableinit:false
mount /dev/sda2 /
tar-in guest.tar /
umount-all
shutdown
END
qemu-img convert -c -f raw -O qcow2 guest.raw base.qcow2
rm guest.raw
base_sum="$(sha256sum <base.qcow2)"
echo "the qcow2 takes up $(($(space base.qcow2) / MiB)) MiB of $disk_mib"

addcow create -b base.qcow2 -F qcow2 -i disk.raw x.add-cow
start_server sock addcow file=x.add-cow

# guest: the commands of standard input, in the disk that is served. Only add-drive can
# ask for discard.
guest() {
    {
        echo "add-drive \"\" format:raw protocol:nbd server:unix:$PWD/sock discard:enable"
        echo "run"
        echo "mount /dev/sda2 /"
        cat
        echo "umount-all"
        echo "shutdown"
    } | guestfish
}

echo "changing the guest"
guest <<'END'
tar-in new.tar /srv
write /etc/hostname "changed\n"
rm-rf /srv/old/usr/lib
END
printf 'changed\n' >guest/etc/hostname
deleted="$(du -sk guest/srv/old/usr/lib | cut -f 1)"
rm -r guest/srv/old/usr/lib
mv new guest/srv/new
hashes guest/srv >expected
[ "$(wc -l <expected)" -ge 200 ] || fail "too few files"
nbdcopy "$(uri sock)" before.raw

echo "trimming the guest"
guest <<'END'
fstrim /
END
nbdcopy "$(uri sock)" copy.raw
qemu-img convert -f raw -O raw "nbd:unix:$PWD/sock" convert.raw
qemu-img convert -f raw -O qcow2 "nbd:unix:$PWD/sock" convert.qcow2
nbdinfo --map --totals "$(uri sock)"
stop_server "$server_pid"

for copy in "raw convert.raw" "qcow2 convert.qcow2"; do
    qemu-img compare -f raw -F "${copy% *}" copy.raw "${copy#* }" || fail "the copies differ: $copy"
done
e2fsck -fn "copy.raw?offset=$root" || fail "the copy's file system is not clean"
dumpe2fs -h "copy.raw?offset=$root" >superblock
field() { sed -n "s/^$1: *//p" superblock; }
used=$((($(field 'Block count') - $(field 'Free blocks')) * $(field 'Block size')))
# Beside the file system: the partition tables at both ends, and the other file system.
allowed=$((used + 3 * MiB))
echo "used in the file system: $((used / MiB)) MiB; a copy before fstrim: $(($(space before.raw) / MiB)) MiB"
for copy in copy.raw convert.raw; do
    echo "$copy takes up $(($(space $copy) / MiB)) MiB"
    [ "$(space $copy)" -le "$allowed" ] || fail "$copy is larger than the file system asks for"
done
# What was deleted, but for what QEMU and nbdcopy found to be zeroes in it.
[ "$((deleted / 1024))" -ge 10 ] || fail "too little was deleted to tell"
[ "$(space copy.raw)" -le "$(($(space before.raw) - deleted * 1024 / 2))" ] ||
    fail "what was deleted is in the copy: $deleted KiB"

# Found as a guest of its kind, and with what it was given, in both formats.
for copy in "raw copy.raw" "qcow2 convert.qcow2"; do
    rm -rf out
    mkdir out
    guestfish --ro --format="${copy% *}" -a "${copy#* }" -i >seen <<'END'
inspect-get-distro /dev/sda2
cat /etc/hostname
copy-out /srv out
END
    expect_equal "debian changed" "$(xargs <seen)" "$copy: distribution and name"
    (cd out/srv && hashes .) >actual
    cmp expected actual || fail "$copy: not the guest's files"
    echo "$copy: a Debian with $(wc -l <actual) files as they were written"
done

addcow check x.add-cow
expect_equal "$base_sum" "$(sha256sum <base.qcow2)" "the hash of the qcow2"
served_still() { pgrep -f "^qemu-nbd .*$PWD/base.qcow2" >/dev/null; }
for ((waited = 0; waited < 100; waited++)); do served_still || break; sleep 0.1; done
! served_still || fail "a qemu-nbd is left"
