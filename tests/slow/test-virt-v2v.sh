#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A migration: virt-v2v converts a guest whose disk is a served add-cow image,
# some of it in the backing file and some in the image file. virt-v2v must take
# it for what it is, its output must be the guest, converted, that boots, and
# no larger than it needs to be; and what is served must not have changed, nor
# the backing file.
#
# ADDCOW_GUEST_IMAGE is the guest to convert, made by make-guest.sh; without
# it, one is made here, which takes one or two minutes.

# shellcheck source=tests/functions.sh
source "$(dirname "$0")/../functions.sh"
PATH="$PATH:/usr/sbin:/sbin"

requires virt-v2v guestfish qemu-system-x86_64 nbdcopy e2fsck dumpe2fs debugfs
compgen -G '/boot/vmlinuz-*' >/dev/null || skip "no kernel in /boot for libguestfs"
export LIBGUESTFS_BACKEND="${LIBGUESTFS_BACKEND:-direct}"
export LIBGUESTFS_BACKEND_SETTINGS="${LIBGUESTFS_BACKEND_SETTINGS-force_tcg}"
# virt-v2v's overlay is to go away with the scratch directory.
mkdir v2v
export VIRT_V2V_TMPDIR="$PWD/v2v"

MiB=1048576
# Where make-guest.sh puts the one partition, in bytes.
partition=$MiB

if [ -n "${ADDCOW_GUEST_IMAGE:-}" ]; then
    base="$ADDCOW_GUEST_IMAGE"
    [ -f "$base" ] || fail "ADDCOW_GUEST_IMAGE=$base: no such file"
else
    base="$PWD/base.img"
    status=0
    "$srcdir/tests/slow/make-guest.sh" "$base" || status=$?
    [ "$status" -ne 77 ] || skip "make-guest.sh cannot make a guest here"
    [ "$status" -eq 0 ] || fail "make-guest.sh failed with exit status $status"
fi
base_sum="$(sha256sum <"$base")"

# start_tcp_server NBDKIT-ARGUMENT...: as start_server, but on a free port of
# localhost, left in $port; virt-v2v 2.2 takes an NBD source only from there.
start_tcp_server() {
    local attempt
    for attempt in $(seq 20); do
        port=$((RANDOM % 16384 + 16384))
        rm -f tcp.pid
        "$ADDCOW_RUN" nbdkit -f -i 127.0.0.1 -p "$port" -P tcp.pid "$@" 2>tcp.log &
        server_pid=$!
        at_exit "kill $server_pid 2>/dev/null; wait $server_pid 2>/dev/null"
        if wait_for tcp.pid "$server_pid"; then return; fi
        grep -q 'Address already in use' tcp.log || break
        echo "port $port is taken (attempt $attempt)"
    done
    cat tcp.log >&2
    fail "no server: nbdkit -i 127.0.0.1 -p $port $*"
}

# boots DISK: waits until a login prompt of the guest comes up on its serial
# console; DISK is not changed.
boots() {
    local log="$1.console" qemu_pid waited
    qemu-system-x86_64 -accel tcg -m 512 -nodefaults -display none -no-reboot -snapshot \
        -drive "file=$1,format=raw,if=virtio" -serial "file:$log" &
    qemu_pid=$!
    at_exit "kill $qemu_pid 2>/dev/null; wait $qemu_pid 2>/dev/null"
    for ((waited = 0; waited < 300; waited++)); do
        # The name is the one in the image file, not the backing file's.
        if grep -aq '^addcow-migrated login:' "$log" 2>/dev/null; then
            kill "$qemu_pid"
            wait "$qemu_pid" || fail "qemu did not end well"
            echo "$1 boots: login prompt after $waited seconds"
            return
        fi
        kill -0 "$qemu_pid" 2>/dev/null || break
        sleep 1
    done
    tail -n 20 "$log" >&2
    fail "$1 does not boot"
}

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

cat >guest.xml <<END
<domain type='kvm'>
  <name>migrated</name>
  <memory unit='MiB'>512</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <source protocol='nbd'><host name='localhost' port='$port'/></source>
      <target dev='sda' bus='scsi'/>
    </disk>
  </devices>
</domain>
END
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
