#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A client learns nothing of the host. The export's description has base names
# only, with control characters escaped, and no error that travels has a path:
# nbdkit 1.42 and later send the text of the last one when they refuse
# something in the handshake. All bytes that a client gets are looked at.

. "$(dirname "$0")/../functions.sh"
requires nbdinfo nbdsh

mkdir secret
odd=$'b\e[31m\n.img'
head -c 300000 /dev/zero | tr '\0' a >secret/base.img
addcow create -q -b base.img -F raw -i base.raw "secret/$odd"
addcow create -q -b "$odd" -F add-cow -i disk.raw secret/x.add-cow
want='add-cow x.add-cow, image disk.raw, backing b\x1b[31m\x0a.img'

# wire SOCKET: a socket beside the server's, all of whose bytes for clients are
# kept in "wire".
cat >relay.py <<'END'
import socket, sys, threading
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
record = open("wire", "ab", buffering=0)
def copy(a, b, keep):
    while data := a.recv(65536):
        if keep: record.write(data)
        try: b.sendall(data)
        except OSError: pass
    try: b.shutdown(socket.SHUT_WR)
    except OSError: pass
open(sys.argv[1] + ".ready", "w").write("ready")
while True:
    client = listener.accept()[0]
    server = socket.socket(socket.AF_UNIX)
    server.connect(sys.argv[2])
    threading.Thread(target=copy, args=(client, server, False), daemon=True).start()
    threading.Thread(target=copy, args=(server, client, True), daemon=True).start()
END
wire() {
    /usr/bin/python3 relay.py relay "$1" &
    at_exit "kill $! 2>/dev/null"
    wait_for relay.ready $!
}
nothing_of_the_host() {
    [ -s wire ] || fail "nothing was recorded ($1)"
    if grep -aqE 'secret|/|'"$(basename "$scratch")" wire; then
        fail "a client is told of the host ($1): $(grep -aoE '[ -~]*(secret|/)[ -~]*' wire)"
    fi
}

with_faults start_server sock addcow secret/x.add-cow
wire sock
# No thread for the background flush, so the connection is refused. It is the
# second thread of two, and no connection has started it before.
if built_with_sanitizer; then
    echo "not tried: a thread that cannot be started; AddressSanitizer's nbdkit does not end after that"
else
    fault pthread_create 2 11 thread
    if nbdsh -c "h.connect_uri('$(uri relay)')" >out 2>&1; then fail "opened without a background flush"; fi
    no_fault
    grep -q 'start a thread: .*secret/x.add-cow: Resource temporarily unavailable' sock.log ||
        fail "the log does not say why: $(cat sock.log)"
    if grep -qE 'secret' out; then fail "told of the host: $(cat out)"; fi
    nothing_of_the_host "failing open"
fi

expect_equal "$want" "$(nbdsh -c 'h.set_full_info(True)' -c "h.connect_uri('$(uri relay)')" \
    -c 'print(h.get_export_description())')" "description"
nothing_of_the_host "description"

# Requests that fail, one of each kind.
cat >requests.py <<'END'
h.set_strict_mode(0)
h.add_meta_context("base:allocation")
h.connect_uri(uri)
calls = [lambda: h.pread(512, 0), lambda: h.pread(512, 1 << 40), lambda: h.pwrite(b"x" * 512, 0),
         lambda: h.zero(512, 0), lambda: h.trim(512, 0), lambda: h.cache(512, 0), lambda: h.flush(),
         lambda: h.block_status(65536, 0, lambda *a: 0)]
failed = 0
for call in calls:
    try:
        call()
    except nbd.Error as error:
        failed += 1
        assert "secret" not in str(error), error
assert failed >= 5, failed
END
fault any '1+' 5 /secret/
nbdsh -c "uri = '$(uri relay)'" -c "$(cat requests.py)" || fail "requests that fail"
no_fault
grep -q 'secret' sock.log || fail "the log names no file: $(cat sock.log)"
nothing_of_the_host "failing requests"
nbdinfo "$(uri relay)" >out # read only from here on
nothing_of_the_host "after a failed sync"
