#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Bases that a server has, by NBD URI: over Unix sockets, TCP and TLS, with export names;
# what the tool says of them; confine=; and a server that is frozen, gone, back, or another.

. "$(dirname "$0")/../functions.sh"
if built_with_sanitizer; then
    skip "a strerror in libnbd leaves the C library's lock of locales wrong with the sanitizer preloaded, and nbdkit does not end"
fi
requires nbdcopy nbdinfo nbdsh qemu-img qemu-nbd jq

mkdir vm
random_file src.raw 1M
truncate -s 8M src.raw

refused() { # WORDS COMMAND...: fails, and says so in one line
    local words="$1"
    shift
    if "$@" >out 2>err; then fail "not refused: $*"; fi
    [ "$(wc -l <err)" -eq 1 ] || fail "not one line: $(cat err)"
    grep -q -F -- "$words" err || fail "'$words' is not in: $(cat err)"
}
served() { nbdkit -r -U - addcow "$1" --run 'nbdcopy "$uri" -'; }

# A Unix socket. Names of sockets have no working directory.
base_pid=
start_base() { # NBDKIT-ARGUMENT...
    rm -f base.sock base.pid
    command nbdkit -f -U "$PWD/base.sock" -P "$PWD/base.pid" "$@" 2>base.log &
    base_pid=$!
    at_exit "kill -9 $base_pid 2>/dev/null"
    wait_for base.pid "$base_pid"
}
stop_base() { stop_server "$base_pid"; }
kill_base() { # and sees to it that nothing else has ended it
    local status=0
    kill -9 "$base_pid"
    wait "$base_pid" 2>/dev/null || status=$?
    expect_equal 137 "$status" "exit status of a base that was killed"
}
uri="nbd+unix:///?socket=$PWD/base.sock"
start_base file src.raw
addcow create -q -b "$uri" -F raw -i u.raw vm/u.add-cow
served vm/u.add-cow | cmp - src.raw
refused "socket= is not an absolute path" \
    addcow create -q -b 'nbd+unix:///?socket=base.sock' -F raw -i v.raw vm/v.add-cow
# libnbd takes the name of a parameter escaped, too, and of two sockets the last.
escaped="nbd+unix:///?socket=/nowhere&%73ocket=$PWD/base.sock"
addcow create -q -b "$escaped" -F raw -i esc.raw vm/esc.add-cow
served vm/esc.add-cow | cmp - src.raw
refused "socket= is not an absolute path" \
    addcow create -q -b 'nbd+unix:///?%73ocket=base.sock' -F raw -i v.raw vm/v.add-cow
rm vm/esc.add-cow vm/esc.raw
refused "must be 'raw'" addcow create -q -b "$uri" -F qcow2 -i v.raw vm/v.add-cow
refused "nobody.sock" addcow create -q -b "nbd+unix:///?socket=$PWD/nobody.sock" -F raw -i v.raw vm/v.add-cow
[ ! -e vm/v.raw ] && [ ! -e vm/v.add-cow ] || fail "something was made"
# Who may read what the server has is not known: only its user.
[ "$(stat -c %a vm/u.raw)" = 600 ] || fail "vm/u.raw has $(stat -c %a vm/u.raw)"

# What is seen of it: by the tool all, by clients nothing.
addcow info --output=json vm/u.add-cow | jq -e --arg uri "$uri" \
    '."backing-filename" == $uri and ."backing-filename-format" == "raw"' >/dev/null
addcow info --backing-chain --output=json vm/u.add-cow | jq -e --arg uri "$uri" \
    'length == 2 and .[1].filename == $uri and .[1].format == "raw"' >/dev/null
addcow map --output=json vm/u.add-cow | jq -e --arg uri "$uri" \
    '.[0].depth == 1 and .[0].data and .[0].length == 1048576 and (.[1].zero)' >/dev/null
addcow check -q vm/u.add-cow
nbdkit -r -U - addcow vm/u.add-cow --run 'nbdinfo "$uri"' >seen
if grep -e "$PWD" -e base.sock seen | grep -v '^	*uri:' | grep -v '^NBD'; then fail "clients see where it is"; fi

# Writes stay here, holes are not fetched, and at the end nothing is needed of it.
nbdkit -U - addcow vm/u.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"x\" * 100, 1000)" -c "h.zero(65536, 131072)"'
cp src.raw want.raw
printf 'x%.0s' {1..100} | dd of=want.raw bs=1 seek=1000 conv=notrunc status=none
dd if=/dev/zero of=want.raw bs=64K seek=2 count=1 conv=notrunc status=none
served vm/u.add-cow | cmp - want.raw
addcow flatten -q vm/u.add-cow
stop_base
served vm/u.add-cow | cmp - want.raw
cmp vm/u.raw want.raw
[ "$(used_bytes vm/u.raw)" -le $((2 << 20)) ] || fail "not sparse: $(used_bytes vm/u.raw) bytes"

# An image that was local moves to a server, and back, and stands beneath another one.
addcow create -q -b ../src.raw -F raw -i m.raw vm/m.add-cow
start_base file src.raw
addcow rebase -q -u -b "$uri" -F raw vm/m.add-cow
addcow create -q -b m.add-cow -F add-cow -i n.raw vm/n.add-cow
served vm/n.add-cow | cmp - src.raw
addcow map --output=json vm/n.add-cow | jq -e '.[0].depth == 2' >/dev/null
addcow info --backing-chain --output=json vm/n.add-cow | jq -e 'length == 3' >/dev/null
nbdkit -r -U - addcow vm/m.add-cow backing=src.raw --run 'nbdcopy "$uri" -' | cmp - src.raw
addcow rebase -q -u -b ../src.raw -F raw vm/m.add-cow
nbdkit -r -U - addcow vm/m.add-cow backing="$uri" --run 'nbdcopy "$uri" -' | cmp - src.raw
addcow rebase -q -u -b "$uri" -F raw vm/m.add-cow

# With confine= it must be allowed; not where the user says it.
refused "allow=uri" nbdkit -U - addcow vm/m.add-cow confine=vm --run true
refused "allow=" nbdkit -U - addcow vm/m.add-cow confine=vm allow=formats --run true
nbdkit -U - addcow vm/m.add-cow confine=vm allow=uri --run true
nbdkit -U - addcow vm/m.add-cow confine=vm allow=formats,uri --run true
nbdkit -U - addcow vm/m.add-cow confine=vm backing="$uri" --run true
refused "must be 'uri'" nbdkit -U - addcow vm/m.add-cow confine=vm allow=all --run true
for bad in 0 -1 x 1.5 86401; do
    refused "timeout=" nbdkit -U - addcow vm/m.add-cow timeout="$bad" --run true
done
stop_base

# Frozen: what is not here fails after the timeout; writes, reads of them and flushes go
# on. Thawed, gone and back again: it is read. Another one: not any more.
start_qemu() { # FILE
    rm -f base.sock
    qemu-nbd -r -t -e 8 -f raw -k "$PWD/base.sock" "$1" 2>>base.log &
    base_pid=$!
    at_exit "kill -9 $base_pid 2>/dev/null"
    wait_until "$base_pid" nbdinfo --size "$uri" >/dev/null 2>&1
}
start_qemu src.raw
start_server sock addcow vm/m.add-cow timeout=5
client="nbd+unix:///?socket=$PWD/sock"
nbdsh -u "$client" -c 'h.pwrite(b"a" * 65536, 0)' -c 'h.flush()'
kill -STOP "$base_pid"
nbdsh -u "$client" -c "$(cat <<'END'
try:
    h.pread(512, 512 * 1024)
    assert False, "not frozen"
except nbd.Error as error:
    assert error.errno == "EIO", error
h.pwrite(b"b" * 65536, 65536)
assert h.pread(131072, 0) == bytearray(b"a" * 65536 + b"b" * 65536)
h.flush()
END
)"
kill -CONT "$base_pid"
read_base='
import time
want = open("src.raw", "rb").read(1 << 20)
for i in range(3000):
    try:
        got = h.pread(65536, 512 * 1024)
        break
    except nbd.Error as error:
        time.sleep(0.02)
assert got == want[512 * 1024:512 * 1024 + 65536]'
nbdsh -u "$client" -c "$read_base"
kill_base
start_qemu src.raw
nbdsh -u "$client" -c "$read_base"
grep -q "$uri.*connected again" sock.log
kill_base
truncate -s 4M other.raw
start_qemu other.raw
wait_until "$server_pid" grep -q "has 4194304 bytes now, and had 8388608" sock.log
nbdsh -u "$client" -c "$(cat <<'END'
try:
    h.pread(512, 512 * 1024)
    assert False, "another disk is read"
except nbd.Error as error:
    assert error.errno == "EIO", error
assert h.pread(131072, 0) == bytearray(b"a" * 65536 + b"b" * 65536)
END
)"
stop_server "$server_pid"
kill -9 "$base_pid"

# nbdkit --run has two processes, and the first one keeps what the other one closes: a
# server that lets in one client at a time is told all the same.
rm -f base.sock
qemu-nbd -r -t -e 1 -f raw -k "$PWD/base.sock" src.raw 2>>base.log &
base_pid=$!
at_exit "kill -9 $base_pid 2>/dev/null"
wait_until "$base_pid" nbdinfo --size "$uri" >/dev/null 2>&1
export base_pid
printf '%s' "$read_base" >read.py
nbdkit -r -U - addcow vm/m.add-cow timeout=3 --run '
    kill -STOP "$base_pid"
    ! nbdsh -u "$uri" -c "h.pread(512, 512 * 1024)" 2>/dev/null
    kill -CONT "$base_pid"
    timeout 60 nbdsh -u "$uri" -c "$(cat read.py)"'
# While it does not answer, what only looks does without it, and says so; a signal ends who waits.
kill -STOP "$base_pid"
expect_equal "addcow: note: $uri: the server does not answer; so it is left out" \
    "$(addcow check --timeout=1 vm/m.add-cow 2>&1 >/dev/null)" "check without the server"
"$ADDCOW_RUN" addcow flatten --timeout=600 vm/m.add-cow 2>err &
flatten=$!
at_exit "kill -9 $flatten 2>/dev/null"
sleep 0.5
kill "$flatten"
ends_with 143 "$flatten" "flatten that waits for a server"
has 'interrupted' <err || fail "$(cat err)"
kill -9 "$base_pid"
# Cut off in the middle of a read: it comes once the server is back. In the middle of a
# copy-up: what was copied is kept, and the next run goes on.
random_file big.raw 24M
slow_base() { start_base --filter=delay file big.raw rdelay="$1"; }
slow_base 1
addcow create -q -b "$uri" -F raw -i b.raw vm/b.add-cow
start_server sock addcow vm/b.add-cow
nbdsh -u "$client" -c 'got = h.pread(4096, 1 << 20)' \
    -c 'assert got == open("big.raw", "rb").read()[1 << 20:(1 << 20) + 4096]' &
reader=$!
sleep 0.5
kill_base
slow_base 0
wait "$reader" || fail "a read that was cut off"
stop_server "$server_pid"
kill_base
slow_base 200ms
addcow flatten --timeout=5 vm/b.add-cow 2>err &
flatten=$!
at_exit "kill $flatten 2>/dev/null"
has_begun() { [ "$(used_bytes vm/b.raw)" -gt 0 ]; }
wait_until "$flatten" has_begun
kill_base
if wait "$flatten"; then fail "flatten without its base"; fi
grep -q 'run it again to go on' err || fail "$(cat err)"
slow_base 0
addcow flatten -q vm/b.add-cow
cmp vm/b.raw big.raw
stop_base

# TCP on the loopback, with an export name; in the background, where the server that
# starts and the one that serves are two processes.
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
command nbdkit -f -i 127.0.0.1 -p "$port" -P "$PWD/tcp.pid" --filter=exportname file src.raw \
    exportname=disk exportname-strict=true 2>tcp.log &
tcp=$!
at_exit "kill -9 $tcp 2>/dev/null"
wait_for tcp.pid "$tcp"
addcow create -q -b "nbd://127.0.0.1:$port/disk" -F raw -i t.raw vm/t.add-cow
start_daemon sock addcow vm/t.add-cow
nbdcopy "$client" - | cmp - src.raw
kill_daemon "$server_pid"
refused "127.0.0.1:$port/other" \
    addcow create -q -b "nbd://127.0.0.1:$port/other" -F raw -i x.raw vm/x.add-cow
kill "$tcp"

# TLS, where this libnbd and this nbdkit have it.
if command -v psktool >/dev/null && command nbdkit --dump-config | grep -q '^tls=yes'; then
    psktool -q -u alice -p keys.psk 2>/dev/null || psktool -u alice -p keys.psk >/dev/null
    rm -f base.sock
    start_base --tls=require --tls-psk=keys.psk file src.raw
    addcow create -q -b "nbds+unix://alice@/?socket=$PWD/base.sock&tls-psk-file=$PWD/keys.psk" \
        -F raw -i s.raw vm/s.add-cow
    start_daemon sock addcow vm/s.add-cow
    nbdcopy "$client" - | cmp - src.raw
    kill "$server_pid"
    refused "base.sock" addcow create -q -b "$uri" -F raw -i x.raw vm/x.add-cow
else
    echo "TLS is not tried: psktool (gnutls-bin) is not installed, or nbdkit has no TLS"
fi

# A client that goes in the middle of a fetch: what it wanted is kept for the next. The
# system's nbdkit ends itself then if it is older.
major_minor="$(command nbdkit --version | sed 's/^nbdkit \([0-9]*\)\.\([0-9]*\).*/\1 \2/')"
if [ "${major_minor% *}" -eq 1 ] && [ "${major_minor#* }" -lt 34 ]; then
    echo "no client that hangs up: nbdkit before 1.34 ends itself (this is $(command nbdkit --version))"
    exit 0
fi
kill_base
slow_base 1
addcow create -q -b "$uri" -F raw -i h.raw vm/h.add-cow
start_server sock addcow vm/h.add-cow copy-on-read=on
nbdsh -u "$client" -c 'h.aio_pread(nbd.Buffer(4096), 1 << 20)' -c 'import os; os._exit(0)'
kept() { [ "$(used_bytes vm/h.raw)" -ge 1048576 ]; }
wait_until "$server_pid" kept
kill_base
nbdsh -u "$client" \
    -c 'assert h.pread(1 << 20, 1 << 20) == open("big.raw", "rb").read()[1 << 20:2 << 20]'
stop_server "$server_pid"
