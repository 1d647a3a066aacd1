#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# create on a file system that has neither RENAME_NOREPLACE nor hard links.

. "$(dirname "$0")/../functions.sh"
requires nbdcopy qemu-io
[ "$(id -u)" -eq 0 ] || skip "mounting needs root"
PATH="$PATH:/usr/sbin:/sbin"
command -v mkfs.exfat >/dev/null || skip "mkfs.exfat is not installed (exfatprogs)"

truncate -s 64M exfat.img
mkfs.exfat exfat.img >/dev/null
mkdir mnt
if command -v mount.exfat-fuse >/dev/null && [ -e /dev/fuse ]; then
    loop="$(losetup --find --show exfat.img)" || skip "no loop device"
    at_exit "losetup -d $loop"
    mount.exfat-fuse "$loop" mnt >/dev/null || skip "exfat-fuse cannot mount here"
else
    mount -o loop -t exfat exfat.img mnt 2>/dev/null || skip "neither exfat-fuse nor exfat in the kernel"
fi
at_exit "umount '$scratch/mnt'"

names() { (cd mnt && printf '%s ' *); }
random_file base.img 1M
cp base.img mnt/base.img
addcow create -q -b base.img -F raw -i disk.raw mnt/x.add-cow
expect_equal 'base.img disk.raw x.add-cow ' "$(names)" "files"
expect_fails 1 addcow create -b base.img -F raw -i other.raw mnt/x.add-cow
expect_equal 'base.img disk.raw x.add-cow ' "$(names)" "files, when it was there"
nbdkit -U - addcow mnt/x.add-cow --run 'qemu-io -f raw -c "write -P 5 0 4k" "$uri"' >/dev/null
addcow rebase -u -q -b base.img -F raw mnt/x.add-cow
nbdkit -r -U - addcow mnt/x.add-cow --run 'nbdcopy "$uri" got.img'
printf '\005%.0s' $(seq 4096) | dd of=base.img conv=notrunc status=none
cmp got.img base.img
