#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow commit --dry-run: refuses what the commit would, in the same words, and opens no
# file for writing.

. "$(dirname "$0")/../functions.sh"
requires python3 qemu-io nbdcopy

chmod 755 .
mkdir vm
random_file vm/base.img 1M
addcow create -q -b base.img -F raw -i x.raw vm/x.add-cow
write_to() { nbdkit -U - addcow "$1" --run "qemu-io -f raw $2 \"\$uri\"" >/dev/null; }
write_to vm/x.add-cow '-c "write -P 5 100k 300k"'
addcow create -q -b x.add-cow -F add-cow -i upper.raw vm/upper.add-cow
write_to vm/upper.add-cow '-c "write -P 6 200k 300k"'
images=(vm/x.add-cow vm/upper.add-cow)
if command -v qemu-img >/dev/null && command -v qemu-nbd >/dev/null && ! built_with_sanitizer; then
    cp vm/base.img vm/below.img
    qemu-img create -q -f qcow2 -b below.img -F raw vm/base.qcow2
    addcow create -q -b base.qcow2 -F qcow2 -i q.raw vm/q.add-cow
    write_to vm/q.add-cow '-c "write -P 5 100k 300k"'
    images+=(vm/q.add-cow)
else
    echo "not into a qcow2: no qemu-nbd here, or it cannot be run under a sanitizer"
fi
everything() { find vm -printf '%p %s %T@ %C@\n' -type f -exec sha256sum {} + | sort; }

# changes COMMAND...: what the kernel tells of files in vm that are opened for writing, written
# to, made, renamed, or get other times or rights.
changes() {
    python3 - "$@" <<'END_OF_PYTHON'
import ctypes
import os
import struct
import subprocess
import sys

MODIFY, ATTRIB, CLOSE_WRITE, MOVED, CREATE, DELETE = 2, 4, 8, 0xC0, 0x100, 0x200
libc = ctypes.CDLL(None, use_errno=True)
watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
mask = MODIFY | ATTRIB | CLOSE_WRITE | MOVED | CREATE | DELETE
if libc.inotify_add_watch(watch, b"vm", mask) < 0:
    sys.exit(f"inotify: {os.strerror(ctypes.get_errno())}")
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
try:
    events = os.read(watch, 65536)
except BlockingIOError:
    events = b""
while events:
    _, kind, _, length = struct.unpack_from("iIII", events)
    print(f"{events[16:16 + length].rstrip(bytes(1)).decode()} {kind:#x}")
    events = events[16 + length:]
END_OF_PYTHON
}
for image in "${images[@]}"; do
    before="$(everything)"
    expect_equal "" "$(changes "$ADDCOW_RUN" addcow commit --dry-run "$image")" "changes by a dry run of $image"
    expect_equal "$before" "$(everything)" "what is there after a dry run of $image"
done
changes "$ADDCOW_RUN" addcow commit -q -d vm/upper.add-cow >out
grep -q '^x.raw 0x8' out || fail "a commit is not seen: $(cat out)"

# both PATTERN IMAGE: refused with and without --dry-run in the same line, and nothing is changed.
runs_as=()
both() {
    local pattern="$1" image="$2" before
    before="$(everything)"
    expect_fails 1 "${runs_as[@]}" "$ADDCOW_RUN" addcow commit "$image"
    mv stderr wanted
    expect_equal "$before" "$(everything)" "what is there after a refused commit of $image"
    expect_fails 1 "${runs_as[@]}" "$ADDCOW_RUN" addcow commit --dry-run "$image"
    expect_equal "$(cat wanted)" "$(cat stderr)" "words of the dry run"
    expect_equal 1 "$(wc -l <stderr)" "lines: $(cat stderr)"
    grep -q -- "$pattern" stderr || fail "no '$pattern' in: $(cat stderr)"
}

# Root may all, so it is another user then.
stranger=65534
user="$(id -u)"
if [ "$user" -eq 0 ]; then
    command -v setpriv >/dev/null || skip "setpriv is not installed, and root may write everywhere"
    runs_as=(setpriv --reuid="$stranger" --regid="$stranger" --clear-groups)
    "${runs_as[@]}" "$ADDCOW_RUN" addcow --version >/dev/null || skip "the build tree is closed to others"
    chown -R $stranger:$stranger vm
fi
for file in base.img x.raw x.add-cow; do
    chmod 444 "vm/$file"
    both "$file: Permission denied" vm/x.add-cow
    chmod 644 "vm/$file"
done
chmod 444 vm/x.raw
both "x.raw: Permission denied" vm/upper.add-cow
chmod 644 vm/x.raw
if [ "${#images[@]}" -gt 2 ]; then
    chmod 444 vm/base.qcow2
    both "base.qcow2: Permission denied" vm/q.add-cow
    chmod 644 vm/base.qcow2
    # Somebody reads the qcow2.
    mkfifo in
    qemu-io -r -f qcow2 vm/base.qcow2 <in >reads &
    reader=$!
    exec 9>in
    echo 'read 0 512' >&9
    wait_for reads "$reader"
    both 'base.qcow2: is in use by another program' vm/q.add-cow
    exec 9>&-
    wait "$reader"
fi
chmod 555 vm
both "x.add-cow: cannot be replaced by a new file in its directory: Permission denied" vm/x.add-cow
chmod 755 vm
if [ "$user" -eq 0 ]; then
    chmod 777 vm
    chmod 666 vm/*
    chown 0 vm/x.add-cow
    both "x.add-cow: belongs to another user or group" vm/x.add-cow
    chown 0 vm
    chmod 1777 vm
    both "x.add-cow: cannot be replaced by a new file in its directory: Operation not permitted" vm/x.add-cow
    chown -R $stranger:$stranger vm
    chmod 755 vm
fi
start_server sock -r addcow vm/x.add-cow
both "x.add-cow: is in use" vm/x.add-cow
both "x.add-cow: is in use" vm/upper.add-cow
stop_server "$server_pid"

# On a file system that is mounted read only.
if can_mount; then
    read_only() {
        unshare -m bash -e -c 'mount --bind vm vm; mount -o remount,bind,ro vm; exec "$@"' bash "$@"
    }
    runs_as=(read_only)
    for image in "${images[@]}"; do both "Read-only file system" "$image"; done
    runs_as=()
else
    echo "not on a read-only file system: nothing can be mounted here"
fi

# And what a dry run says yes to can be done.
for image in vm/upper.add-cow "${images[@]}"; do
    "${runs_as[@]}" "$ADDCOW_RUN" addcow commit --dry-run "$image" >/dev/null
    "${runs_as[@]}" "$ADDCOW_RUN" addcow commit -q "$image"
done
