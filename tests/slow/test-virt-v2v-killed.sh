#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A migration from a remote store that is killed in the middle and begun again: virt-v2v
# reads a guest from an addcow whose base is on an NBD server; while it copies, it is killed
# with SIGKILL and with it all that it started, and addcow; and both run again. The second
# run must give the guest, the base must have seen no write, and what is served not change.
# What both runs read of the base is counted there, and printed.
#
# ADDCOW_OPTIONS are more options of the plugin, words with blanks between
# them (copy-on-read=on, where a build has that).

# shellcheck source=tests/functions.sh
source "$(dirname "$0")/../functions.sh"
requires virt-v2v guestfish nbdcopy e2fsck python3 setsid
# shellcheck source=tests/slow/guest.sh
source "$srcdir/tests/slow/guest.sh"
take_guest
read -r -a options <<<"${ADDCOW_OPTIONS:-}"

# The store: a server that logs each request. The copy is slowed down
# a little, so that there is a middle of it to be killed in.
command nbdkit -f -r -U "$PWD/base.sock" -P base.pid --filter=log --filter=delay \
    file "$base" rdelay=2ms logfile="$PWD/base.log" logappend=true 2>base.err &
base_pid=$!
at_exit "kill $base_pid 2>/dev/null; wait $base_pid 2>/dev/null"
wait_for base.pid "$base_pid" || { cat base.err >&2; fail "no server of the base"; }

# bytes_read LOG: what was asked for, and all different bytes of it.
bytes_read() {
    python3 - "$1" <<'END'
import re, sys
asked, pieces = 0, set()
for offset, count in re.findall(r" Read id=\d+ offset=0x([0-9a-f]+) count=0x([0-9a-f]+)",
                                open(sys.argv[1]).read()):
    offset, count = int(offset, 16), int(count, 16)
    asked += count
    pieces.update(range(offset // 4096, (offset + count + 4095) // 4096))
print(f"{asked >> 20} MiB, {len(pieces) * 4096 >> 20} MiB of them different")
END
}

addcow create -b "nbd+unix:///?socket=$PWD/base.sock" -F raw -i disk.raw x.add-cow
start_server s.sock addcow file=x.add-cow
guestfish <<END
add-drive "" format:raw protocol:nbd server:unix:$PWD/s.sock
run
mount /dev/sda1 /
write /etc/hostname "addcow-migrated\n"
umount-all
shutdown
END
nbdcopy "$(uri s.sock)" before.raw
stop_server "$server_pid"

serve() {
    start_tcp_server --filter=log addcow file=x.add-cow logfile=requests.log logappend=true \
        "${options[@]}"
    guest_xml "name='localhost' port='$port'"
}
serve

echo "the first run"
mkdir out
: >base.log
# In a group of its own, so that it ends with all that it started.
setsid virt-v2v -i libvirtxml guest.xml -o local -os out >v2v.log 2>&1 &
v2v=$!
at_exit "kill -9 -- -$v2v 2>/dev/null"
copying() { [ -e out/migrated-sda ] && [ "$(used_bytes out/migrated-sda)" -ge $((64 * MiB)) ]; }
until copying; do # the conversion before that takes minutes, without KVM
    kill -0 "$v2v" 2>/dev/null || { cat v2v.log >&2; fail "virt-v2v did not begin to copy"; }
    sleep 0.02
done
kill -9 -- "-$v2v"
ends_with 137 "$v2v" "virt-v2v" v2v.log
[ ! -e out/migrated.xml ] || fail "it was done before it was killed"
grep '^\[' v2v.log
echo "killed with $(($(used_bytes out/migrated-sda) / MiB)) MiB copied; of the base were read: $(bytes_read base.log)"
rm -rf out v2v
mkdir out v2v
# The server goes down as well, as with its host. (Before 1.34 nbdkit aborts by itself where
# a client goes with requests in flight.)
kill -9 "$server_pid" 2>/dev/null || echo "the server has ended already"
status=0
wait "$server_pid" 2>/dev/null || status=$?
[[ "$status" =~ ^(137|134)$ ]] || fail "exit status of the server: $status"
addcow check x.add-cow || [ $? -eq 3 ]
serve

echo "the second run"
: >base.log
virt-v2v -i libvirtxml guest.xml -o local -os out >v2v.log 2>&1 || {
    cat v2v.log >&2
    fail "virt-v2v failed"
}
grep '^\[' v2v.log
echo "of the base were read: $(bytes_read base.log)"

stop_server "$server_pid"
grep -q ' Read ' requests.log || fail "virt-v2v did not read from the server"
if grep -E ' (Write|Trim|Zero) ' requests.log; then fail "virt-v2v wrote to the server"; fi
if grep -E ' (Write|Trim|Zero) ' base.log; then fail "somebody wrote to the base"; fi
nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" -' | cmp - before.raw ||
    fail "what is served has changed"
addcow check x.add-cow
expect_equal "$base_sum" "$(sha256sum <"$base")" "the hash of the base"

[ -s out/migrated.xml ] || fail "virt-v2v wrote no metadata"
e2fsck -fn "out/migrated-sda?offset=$partition" || fail "the output's file system is not clean"
expect_equal addcow-migrated "$(guestfish --ro --format=raw -a out/migrated-sda -i cat /etc/hostname | xargs)" \
    "the name of the guest that was copied"
