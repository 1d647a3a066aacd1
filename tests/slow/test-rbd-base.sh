#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A base on a distributed store: Ceph, of one node on files. A snapshot of an RBD image
# is served by qemu-nbd, and two images stand on its URI, as those of two hosts would. What
# they read and keep; and the store's daemon killed while they are served, and back again.

# shellcheck source=tests/functions.sh
source "$(dirname "$0")/../functions.sh"
requires ceph ceph-mon ceph-mgr ceph-osd monmaptool rbd qemu-nbd nbdcopy nbdinfo nbdsh python3
[ "$(id -u)" -eq 0 ] || skip "Ceph's daemons are started as root only"

# start NAME COMMAND...: a daemon of the store, its process id in ${pids[NAME]}.
declare -A pids
start() {
    local name="$1"
    shift
    "$@" >"$name.out" 2>&1 &
    pids[$name]=$!
    at_exit "kill -9 ${pids[$name]} 2>/dev/null; wait ${pids[$name]} 2>/dev/null"
}
up() { timeout 20 ceph osd stat 2>/dev/null | has ' 1 up'; }

port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
fsid="$(cat /proc/sys/kernel/random/uuid)"
mkdir mon mgr osd crash
export CEPH_CONF="$PWD/ceph.conf"
cat >ceph.conf <<END
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$port/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
run dir = $PWD
admin socket = $PWD/\$name.asok
pid file = $PWD/\$name.pid
log file = $PWD/\$name.log
mon data = $PWD/mon
mgr data = $PWD/mgr
osd data = $PWD/osd
crash dir = $PWD/crash
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
osd objectstore = bluestore
bluestore block size = 2147483648
osd memory target = 939524096
END
monmaptool --create --addv a "[v2:127.0.0.1:$port]" --fsid "$fsid" monmap >monmap.log
ceph-mon --mkfs -i a --monmap monmap >mon.out 2>&1
start mon ceph-mon -f -i a
timeout 60 ceph -s >status || { cat mon.out >&2; fail "no monitor of Ceph"; }
start mgr ceph-mgr -f -i x
uuid="$(cat /proc/sys/kernel/random/uuid)"
timeout 60 ceph osd new "$uuid" >osd.id
ceph-osd -i 0 --mkfs --osd-uuid "$uuid" >osd.out 2>&1
start osd ceph-osd -f -i 0
wait_until "${pids[osd]}" up || { cat osd.out >&2; fail "no store of Ceph"; }
timeout 60 ceph osd pool create rbd 8 2>pool.log
timeout 60 rbd pool init rbd
echo "$(ceph --version | cut -d ' ' -f 1-3) is there"

# The base is a snapshot, so that it cannot change.
random_file src.raw 8M
truncate -s 64M src.raw
dd if=src.raw of=src.raw bs=1M count=2 seek=40 conv=notrunc status=none
timeout 100 rbd import --no-progress src.raw rbd/base
timeout 60 rbd snap create --no-progress rbd/base@golden
timeout 60 rbd snap protect rbd/base@golden
start nbd qemu-nbd -r -t -e 8 -f raw -k "$PWD/base.sock" "rbd:rbd/base@golden:conf=$CEPH_CONF"
uri="nbd+unix:///?socket=$PWD/base.sock"
wait_until "${pids[nbd]}" nbdinfo --size "$uri" >/dev/null 2>&1 || {
    cat nbd.out >&2
    has 'Unknown protocol\|driver' <nbd.out && skip "qemu-nbd reads no RBD: qemu-block-extra is not installed"
    fail "no server of the base"
}

for host in a b; do
    mkdir $host
    addcow create -q -b "$uri" -F raw -i disk.raw $host/x.add-cow
    nbdkit -r -U - addcow $host/x.add-cow --run 'nbdcopy "$uri" -' | cmp - src.raw
done
# The holes of the store's objects are those of the disk.
nbdkit -r -U - addcow a/x.add-cow --run 'nbdinfo --map --totals "$uri"' >ours
nbdinfo --map --totals "$uri" >theirs
diff theirs ours
cat ours

# Each host has its own writes, and the store has none.
for host in a b; do
    cp src.raw $host/want.raw
    printf "$host%.0s" {1..100000} >$host/written
    nbdkit -U - addcow $host/x.add-cow --run \
        'nbdsh -u "$uri" -c "h.pwrite(open(\"'$host'/written\", \"rb\").read(), 70000)" -c "h.flush()"'
    dd if=$host/written of=$host/want.raw bs=1000 seek=70 conv=notrunc status=none
done
for host in a b; do
    nbdkit -r -U - addcow $host/x.add-cow --run 'nbdcopy "$uri" -' | cmp - $host/want.raw
    addcow check -q $host/x.add-cow
    [ "$(used_bytes $host/disk.raw)" -le 262144 ] || fail "more than what was written: $(used_bytes $host/disk.raw)"
done

# The store is gone: what is here is read and written, the rest fails after the timeout,
# and is there again with the store. The servers are not started again.
start_server sock addcow a/x.add-cow timeout=2
kill -9 "${pids[osd]}"
ends_with 137 "${pids[osd]}" "the store's daemon"
client '
want = open("a/want.raw", "rb").read()
assert h.pread(100000, 70000) == want[70000:170000]
h.pwrite(b"c" * K, 20 << 20)
h.flush()
refused(lambda: h.pread(K, 41 << 20))'
start osd ceph-osd -f -i 0
wait_until "${pids[osd]}" up || { cat osd.out >&2; fail "the store does not come back"; }
client '
import time
want = open("a/want.raw", "rb").read()
for i in range(600):
    try:
        got = h.pread(K, 41 << 20)
        break
    except nbd.Error:
        time.sleep(0.1)
assert got == want[41 << 20:(41 << 20) + K]
assert h.pread(K, 20 << 20) == b"c" * K'
stop_server "$server_pid"

# And without it at all.
addcow flatten -q b/x.add-cow
kill "${pids[nbd]}"
ends_with 0 "${pids[nbd]}" "qemu-nbd" nbd.out
nbdkit -r -U - addcow b/x.add-cow --run 'nbdcopy "$uri" -' | cmp - b/want.raw
timeout 100 rbd export --no-progress rbd/base@golden - | cmp - src.raw
