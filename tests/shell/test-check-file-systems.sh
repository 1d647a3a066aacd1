#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow check on file systems that give storage to what nobody has written:
# exFAT, which has no holes, and XFS, which takes more than it was asked for. A
# new overlay has no leaks there, nor has one after a clean stop; what leaks is
# found, and -r leaks mends it.

. "$(dirname "$0")/../functions.sh"
requires nbdsh jq
[ "$(id -u)" -eq 0 ] || skip "file systems are made and mounted, which takes root"

# try NAME MKFS MOUNT...: makes and mounts NAME.img at NAME, and works there.
missing=
tried=0
try() {
    local name="$1" make="$2"
    shift 2
    if ! command -v "${make%% *}" >/dev/null; then missing="$missing ${make%% *}"; return; fi
    truncate -s 400M "$name.img"
    mkdir "$name"
    $make "$name.img" >mkfs.log 2>&1 || { cat mkfs.log >&2; fail "$make"; }
    if ! "$@" "$name.img" "$name" >mount.log 2>&1; then missing="$missing mount($name)"; return; fi
    at_exit "if mountpoint -q '$scratch/$name'; then umount '$scratch/$name'; fi"
    tried=$((tried + 1))
    (cd "$name" && works "$name") || fail "$name"
    umount "$name"
}

leaks() { addcow check --output=json x.add-cow 2>/dev/null | jq .leaks; }

works() {
    random_file base.img 20M
    # No hard links and no RENAME_NOREPLACE on exFAT: the add-cow file is moved in.
    addcow create -q -b "$PWD/base.img" -F raw -i "$PWD/disk.raw" "$scratch/new.add-cow"
    mv "$scratch/new.add-cow" x.add-cow
    expect_equal 0 "$(leaks)" "leaks of a new overlay on $1"
    # Growing runs, as XFS likes to reserve storage after.
    nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "
for i in range(40):
    h.pwrite(b\"y\" * 65536, i * 65536)
for i in range(120, 200):
    h.pwrite(b\"y\" * 30000, i * 65536 + 9)
h.pread(20 << 20, 0)
"'
    expect_equal 0 "$(leaks)" "leaks after a clean stop on $1"
    addcow check -q x.add-cow || fail "check on $1: $?"
    # Old data under 0 bits is a leak here, too.
    dd if=base.img of=disk.raw bs=64K seek=250 count=3 conv=notrunc status=none
    expect_equal 3 "$(leaks)" "leaks on $1"
    nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" -' | sha256sum >before
    addcow check -q -r leaks x.add-cow || fail "check -r leaks on $1: $?"
    expect_equal 0 "$(leaks)" "leaks after -r leaks on $1"
    nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" -' | sha256sum | cmp - before
}

exfat() {
    mount -t exfat -o loop "$@" && return
    local device
    device="$(losetup -f --show "$1")" || return
    at_exit "losetup -d '$device'"
    mount.exfat-fuse "$device" "$2"
}
try xfs 'mkfs.xfs -q -f' mount -o loop
try exfat 'mkfs.exfat' exfat
[ "$tried" -gt 0 ] || skip "not there:$missing"
[ -z "$missing" ] || skip "$tried file systems hold; not there:$missing"
