# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the tests with a whole guest share: the guest, its servers, its XML. Sourced after
# functions.sh.
#
# ADDCOW_GUEST_IMAGE is the guest, made by make-guest.sh; without it, one is made here, which
# takes one or two minutes.

# shellcheck disable=SC2034,SC2154  # of functions.sh, and for who sources this
PATH="$PATH:/usr/sbin:/sbin"
compgen -G '/boot/vmlinuz-*' >/dev/null || skip "no kernel in /boot for libguestfs"
export LIBGUESTFS_BACKEND="${LIBGUESTFS_BACKEND:-direct}"
export LIBGUESTFS_BACKEND_SETTINGS="${LIBGUESTFS_BACKEND_SETTINGS-force_tcg}"
# virt-v2v's overlay, and what a run that is killed leaves, go with the scratch directory.
mkdir v2v
export VIRT_V2V_TMPDIR="$PWD/v2v"

MiB=1048576
# Where make-guest.sh puts the one partition, in bytes.
partition=1048576

# take_guest: leaves the guest's disk in $base, and its sum in $base_sum.
take_guest() {
    local status=0
    if [ -n "${ADDCOW_GUEST_IMAGE:-}" ]; then
        base="$(realpath "$ADDCOW_GUEST_IMAGE")"
        [ -f "$base" ] || fail "ADDCOW_GUEST_IMAGE=$base: no such file"
    else
        base="$PWD/base.img"
        "$srcdir/tests/slow/make-guest.sh" "$base" || status=$?
        [ "$status" -ne 77 ] || skip "make-guest.sh cannot make a guest here"
        [ "$status" -eq 0 ] || fail "make-guest.sh failed with exit status $status"
    fi
    base_sum="$(sha256sum <"$base")"
}

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

# guest_xml HOST: guest.xml, whose disk is the NBD server that <host HOST/> names.
guest_xml() {
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
      <source protocol='nbd'><host $1/></source>
      <target dev='sda' bus='scsi'/>
    </disk>
  </devices>
</domain>
END
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
