#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# make-guest.sh OUTPUT.img: makes a small bootable Debian guest, on the spot,
# as a raw disk: an MBR partition table, one ext4 partition, GRUB, a kernel and
# systemd. The slow tests use it as the backing file of an add-cow image, since
# a real operating system is the only thing that virt-v2v converts.
#
# The packages come from wherever this machine's own apt takes them (sources,
# proxy and all, read when the script runs). Exits 77, saying why, where
# something it needs is missing.
#
# Environment: LIBGUESTFS_BACKEND and LIBGUESTFS_BACKEND_SETTINGS as in
# guestfs(3); by default a plain qemu without KVM.

[ $# -eq 1 ] || { echo "usage: $0 OUTPUT.img" >&2; exit 2; }
output="$(realpath -m "$1")"

# shellcheck source=tests/functions.sh
source "$(dirname "$0")/../functions.sh"

suite=bookworm
disk_size=2G

requires apt-get apt-config mmdebstrap guestfish
compgen -G '/boot/vmlinuz-*' >/dev/null || skip "no kernel in /boot for libguestfs"
[ "$(dpkg --print-architecture)" = amd64 ] || skip "the guest is made on amd64 only"
[ "$(id -u)" -eq 0 ] || skip "the guest's root file system is made as root only"

export LIBGUESTFS_BACKEND="${LIBGUESTFS_BACKEND:-direct}"
export LIBGUESTFS_BACKEND_SETTINGS="${LIBGUESTFS_BACKEND_SETTINGS-force_tcg}"

# This machine's sources of Debian $suite, its updates and security fixes, as
# lines for the guest's sources.list, and how apt is to reach them.
for release in "$suite" "$suite-updates" "$suite-security"; do
    apt-get indextargets --format "deb \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
            "Created-By: Packages" "Origin: Debian" "Codename: $release" "Architecture: amd64"
done | sort -u >sources.list
[ -s sources.list ] || skip "this machine's apt has no (fetched) sources of Debian $suite"
apt-config dump | { grep -E '^Acquire::(https?|Retries|Check-)' || [ $? -eq 1 ]; } >apt.conf

echo "making the root file system"
# Documentation and translations are left out: they only cost time.
mmdebstrap --quiet --variant=apt --format=tar --architectures=amd64 \
    --include=linux-image-cloud-amd64,grub-pc,initramfs-tools,systemd-sysv \
    --aptopt="$PWD/apt.conf" \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$suite" root.tar sources.list

echo "making the disk"
uuid="$(cat /proc/sys/kernel/random/uuid)"
cat >fstab <<END
UUID=$uuid / ext4 errors=remount-ro 0 1
END
# The serial console is where a boot can be watched without a screen.
cat >grub <<'END'
GRUB_DEFAULT=0
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0"
GRUB_TERMINAL="console serial"
END
# grub-probe says the disk's name, since the kernel numbers the disks that it has
# in either order: guestfish's own commands take care of that, these do not.
truncate -s "$disk_size" guest.img
guestfish --format=raw -a guest.img <<END
run
part-init /dev/sda mbr
part-add /dev/sda p 2048 -2048
part-set-bootable /dev/sda 1 true
mke2fs /dev/sda1 fstype:ext4 uuid:$uuid lazyitableinit:false
mount /dev/sda1 /
tar-in root.tar /
upload fstab /etc/fstab
upload grub /etc/default/grub
write /etc/hostname "addcow-guest\n"
sh "grub-install --target=i386-pc \$(grub-probe --target=disk /)"
command "update-grub"
umount-all
shutdown
END

mv guest.img "$output"
echo "made $output: $disk_size, of which $(du -h "$output" | cut -f 1) used"
