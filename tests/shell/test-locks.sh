#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Two users of one file at once, in both directions, with the real programs:
# nbdkit with this plugin, the tool, and QEMU's. Any number of readers, or one
# writer.

. "$(dirname "$0")/../functions.sh"
requires nbdinfo nbdsh qemu-io qemu-img jq

random_file base.img 300000
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
# The same image file under another name and with another add-cow file.
addcow create -q -b base.img -F raw -i disk.raw other.add-cow
ln disk.raw hardlink.raw
cp x.add-cow elsewhere.add-cow
# A second overlay on the same backing file.
addcow create -q -b base.img -F raw -i disk2.raw x2.add-cow
# And one with that as its image file.
addcow create -q --reuse-image -i base.img -b disk2.raw -F raw backwards.add-cow

# refused FILE COMMAND...: with exit status 1 and one line that names FILE.
refused() {
    local file="$1"
    shift
    expect_fails 1 "$@"
    expect_equal 1 "$(wc -l <stderr)" "lines of: $*: $(cat stderr)"
    grep -q -- "$file: is in use by another program" stderr || fail "$*: $(cat stderr)"
}
# serve_refused FILE PARAMETER...: the server does not even start.
serve_refused() {
    local file="$1"
    shift
    refused "$file" "$ADDCOW_RUN" nbdkit -U - "$@" --run 'touch started'
    [ ! -e started ] || fail "it was served: $*"
}
qemu_writes() { qemu-io -f raw -c 'write -P 1 0 512' "$1" >qemu.out 2>&1; }
qemu_refused() {
    local before
    before="$(sha "$1")"
    if qemu_writes "$1"; then fail "QEMU wrote to $1 while it is in use"; fi
    grep -q 'lock' qemu.out || fail "QEMU: $(cat qemu.out)"
    expect_equal "$before" "$(sha "$1")" "contents of $1"
}

# While we serve for writing. The server is a daemon: the locks outlive its
# fork.
start_daemon sock addcow x.add-cow
daemon="$server_pid"
nbdinfo --size "$(uri sock)" >/dev/null

serve_refused x.add-cow addcow x.add-cow
serve_refused x.add-cow -r addcow x.add-cow
serve_refused disk.raw addcow other.add-cow
serve_refused disk.raw -r addcow other.add-cow
serve_refused hardlink.raw addcow elsewhere.add-cow image=hardlink.raw
refused x.add-cow addcow flatten x.add-cow
refused x.add-cow addcow check x.add-cow
grep -q -- '-U looks at it' stderr || fail "check does not tell of -U: $(cat stderr)"
refused x.add-cow addcow check -r all x.add-cow
refused x.add-cow addcow map x.add-cow
refused x.add-cow addcow create --force -i disk.raw x.add-cow
addcow info x.add-cow | has '^in use: yes, by a program that may write to it$' ||
    fail "info needs no lock, and tells of locks"
in_use() { addcow info --output=json "$1" | jq -r '."in-use"'; }
expect_equal writing "$(in_use x.add-cow)" "in-use"
# The image file's lock alone.
expect_equal writing "$(in_use other.add-cow)" "in-use of another add-cow file"
expect_equal no "$(in_use x2.add-cow)" "in-use of another disk"
# create takes no file that others use: another's image file, a base as image file.
refused disk.raw addcow create -b base.img -F raw -i disk.raw new.add-cow
refused disk.raw addcow create -i disk.raw new.add-cow
refused base.img addcow create -i base.img new.add-cow
refused disk.raw addcow create -b disk.raw -F raw -i new.raw new.add-cow
refused x.add-cow addcow rebase -u -b base.img -F raw x.add-cow
refused x.add-cow addcow rebase -u -i disk2.raw x.add-cow
[ ! -e new.add-cow ] && [ ! -e new.raw ] || fail "something was left"
addcow create -q -b base.img -F raw -i disk3.raw x3.add-cow || fail "a base has many overlays"
addcow map -U x.add-cow >/dev/null || fail "map -U"
# What was written and not flushed is no leak, and nobody can tell what is one.
nbdsh -u "$(uri sock)" -c 'h.pwrite(b"x" * 65536, 65536)'
addcow check --force-share x.add-cow >out || fail "check -U of an image that is being served: $?"
grep -q 'cannot be told' out || fail "check -U: $(cat out)"
addcow check -U --output=json x.add-cow >out
expect_equal 'null true 0' "$(jq -r '"\(.leaks) \(."leaks-unknown") \(.corruptions)"' out)" "check -U"
expect_fails 1 addcow check --lock=off -r leaks x.add-cow
grep -q 'is in use by another program' stderr || fail "check --lock=off -r: $(cat stderr)"
qemu_refused disk.raw
qemu_refused base.img
qemu-io -r -f raw -c 'read 0 512' base.img >/dev/null || fail "QEMU may read the backing file"
# Readers share the backing file; but nobody makes it an image file.
start_server sock2 addcow x2.add-cow
serve_refused base.img addcow backwards.add-cow
nbdinfo --size "$(uri sock2)" >/dev/null
stop_server "$server_pid"

# The locks go with the server, also when it is killed.
kill_daemon "$daemon"
nbdkit -U - addcow x.add-cow --run 'nbdinfo --size "$uri"' >/dev/null
qemu_writes disk.raw || fail "a lock was left behind: $(cat qemu.out)"
addcow check -q --force -r leaks x.add-cow # what QEMU wrote is under a 0 bit

# Servers with -r share, and keep writers out.
start_server sock3 -r addcow x.add-cow
reader="$server_pid"
nbdkit -r -U - addcow x.add-cow --run 'nbdinfo --size "$uri"' >/dev/null ||
    fail "a second server with -r"
addcow map x.add-cow >/dev/null || fail "map beside a server with -r"
addcow check -q x.add-cow || fail "check beside a server with -r"
addcow check -U x.add-cow | has 'No errors' || fail "check -U beside a server with -r"
expect_equal reading "$(in_use x.add-cow)" "in-use of a server with -r"
addcow info x.add-cow | has '^in use: yes, by programs that only read it$' || fail "info"
serve_refused x.add-cow addcow x.add-cow
serve_refused disk.raw addcow other.add-cow
refused x.add-cow addcow flatten x.add-cow
qemu_refused disk.raw
qemu_refused base.img
# lock=off asks nobody and stops nobody.
nbdkit -U - addcow x.add-cow lock=off --run 'nbdinfo --size "$uri"' >/dev/null ||
    fail "lock=off was refused"
stop_server "$reader"
start_server sock4 addcow x.add-cow lock=off
addcow map x.add-cow >/dev/null || fail "lock=off locked something"
stop_server "$server_pid"

# While QEMU has a file open for writing.
# while_qemu_writes FILE COMMAND...: runs the command meanwhile.
while_qemu_writes() {
    local file="$1" qemu
    shift
    mkfifo to_qemu
    qemu-io -f raw "$file" <to_qemu >qemu.out 2>&1 &
    qemu=$!
    at_exit "kill $qemu 2>/dev/null"
    exec 9>to_qemu
    printf 'write -P 7 0 512\n' >&9
    wait_until "$qemu" grep -q 'wrote 512' qemu.out || fail "QEMU ended: $(cat qemu.out)"
    "$@"
    printf 'quit\n' >&9
    exec 9>&-
    wait "$qemu"
    rm to_qemu
}
while_qemu_writes disk.raw serve_refused disk.raw addcow x.add-cow
while_qemu_writes disk.raw serve_refused disk.raw -r addcow x.add-cow
while_qemu_writes base.img serve_refused base.img addcow x.add-cow
while_qemu_writes x.add-cow serve_refused x.add-cow addcow x.add-cow
