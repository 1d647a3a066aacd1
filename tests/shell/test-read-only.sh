#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Read only: with -r, and where a file cannot be opened for writing. Nothing
# is written then, and a write is refused.

. "$(dirname "$0")/../functions.sh"
requires nbdinfo nbdsh

random_file base.img 300000
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"abc\", 70000)"'
before="$(cat x.add-cow disk.raw base.img | sha256sum)"
stamps="$(stat -c '%y %z' x.add-cow disk.raw base.img)"

check_read_only() {
    nbdinfo --is read-only "$1" || fail "not read only: $2"
    nbdsh -u "$1" -c 'assert h.pread(3, 70000) == b"abc"' -c 'h.flush()' -c '
try:
    h.set_strict_mode(0)
    h.pwrite(b"x", 0)
    raise SystemExit("a write was accepted")
except nbd.Error as error:
    assert error.errno in ("EPERM", "EROFS"), error.errno
'
}

# told LOG FILE WHY: one line says which file makes the disk read only.
told() {
    expect_equal 1 "$(grep -c 'the disk is read only' "$1")" "lines of log: $(cat "$1")"
    grep -q "/$2: $3; so the disk is read only" "$1" || fail "$(cat "$1")"
}

start_server sock -r addcow x.add-cow
check_read_only "$(uri sock)" "-r"
stop_server "$server_pid"
grep 'the disk is read only' sock.log && fail "-r was asked for, and is no news"
expect_equal "$stamps" "$(stat -c '%y %z' x.add-cow disk.raw base.img)" "time stamps"
expect_equal "$before" "$(cat x.add-cow disk.raw base.img | sha256sum)" "files after -r"

# readonly=on is the same, also where /proc is not there to show -r: then two
# servers with -r refuse each other, and two with readonly=on do not. The
# filter that writes beside it has a disk of its own.
start_server sock3 addcow x.add-cow readonly=on
check_read_only "$(uri sock3)" "readonly=on"
start_server sock4 --filter=cow addcow x.add-cow readonly=on
nbdsh -u "$(uri sock4)" -c 'h.pwrite(b"new", 70000)' -c 'assert h.pread(3, 70000) == b"new"'
nbdsh -u "$(uri sock3)" -c 'assert h.pread(3, 70000) == b"abc"'
start_server sock5 --filter=cow addcow x.add-cow readonly=on
addcow map x.add-cow >/dev/null || fail "map beside readers"
expect_fails 1 nbdkit -U - addcow x.add-cow readonly=off --run true
grep -q 'x.add-cow: is in use by another program' stderr || fail "a writer beside readers: $(cat stderr)"
expect_fails 1 nbdkit -U - addcow x.add-cow readonly=maybe --run true
grep -q "readonly=: is 'maybe', must be 'on' or 'off'" stderr || fail "readonly=maybe: $(cat stderr)"
if can_mount; then
    without_proc "$ADDCOW_RUN" nbdkit -U - addcow x.add-cow readonly=on --run true ||
        fail "readonly=on without /proc beside a reader"
    expect_fails 1 without_proc "$ADDCOW_RUN" nbdkit -U - -r addcow x.add-cow --run true
    grep -q 'x.add-cow: is in use by another program' stderr || fail "-r without /proc: $(cat stderr)"
else
    echo "not tried: without /proc (needs root, and mount name spaces)"
fi
for socket in sock3 sock4 sock5; do stop_server "$(cat "$socket.pid")"; done
expect_equal "$before" "$(cat x.add-cow disk.raw base.img | sha256sum)" "files after readonly=on"

# Files that cannot be written: by permission, or for root by a read-only
# bind mount of the directory, in a mount name space of its own.
if [ "$(id -u)" -ne 0 ]; then
    chmod a-w x.add-cow disk.raw
    start_server sock2 addcow x.add-cow
    check_read_only "$(uri sock2)" "files without write permission"
    told sock2.log x.add-cow 'Permission denied'
    stop_server "$server_pid"
elif unshare -m true 2>/dev/null; then
    mkdir ro
    # The server stays in the name space in which the directory is read only.
    unshare -m bash -e -c "
        mount --bind '$scratch' '$scratch/ro'
        mount -o remount,bind,ro '$scratch/ro'
        exec '$ADDCOW_RUN' nbdkit -f -U '$scratch/sock2' -P '$scratch/pid2' \
            addcow '$scratch/ro/x.add-cow'" 2>sock2.log &
    server_pid=$!
    at_exit "kill $server_pid 2>/dev/null; wait $server_pid 2>/dev/null"
    wait_for pid2
    check_read_only "$(uri sock2)" "read-only mount"
    told sock2.log x.add-cow 'Read-only file system'
    stop_server "$server_pid"
else
    skip "-r holds, but root cannot make a read-only mount here"
fi
expect_equal "$before" "$(cat x.add-cow disk.raw base.img | sha256sum)" "files at the end"

# A device that is read only is opened for writing all the same by the system.
[ "$(id -u)" -eq 0 ] || { echo "not tried, only root can: a read-only loop device"; exit 0; }
truncate -s 1M device.img
if ! device="$(losetup --find --show --read-only device.img 2>stderr)"; then
    echo "not tried, no loop device: $(head -n 1 stderr)"
    exit 0
fi
at_exit "losetup -d '$device'"
addcow create -q -b base.img -F raw -i "$device" device.add-cow
start_server sock3 addcow device.add-cow
nbdinfo --is read-only "$(uri sock3)" || fail "a read-only device is served as writable"
told sock3.log "${device##*/}" 'the device is read only'
stop_server "$server_pid"
expect_fails 1 addcow flatten device.add-cow
grep -q "$device: the device is read only" stderr || fail "$(cat stderr)"
expect_equal 1 "$(wc -l <stderr)" "lines of message: $(cat stderr)"
