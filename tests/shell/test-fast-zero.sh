#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A fast zero on a file system that cannot zero without writing: the client is
# told ENOTSUP and nothing has changed. That is an answer that it asked for, so
# the server's log has no error. Any other zero is done all the same.

. "$(dirname "$0")/../functions.sh"
requires nbdsh
[ -w /dev/shm ] || skip "no /dev/shm to write to"
directory="$(mktemp -d /dev/shm/addcow-test.XXXXXX)"
at_exit "rm -rf '$directory'"
truncate -s 64K "$directory/probe"
if fallocate --zero-range --keep-size -l 4096 "$directory/probe" 2>/dev/null; then
    skip "/dev/shm can zero a range without writing it"
fi

random_file "$directory/base.img" 1M
addcow create -q -b base.img -F raw -i disk.raw "$directory/x.add-cow"
start_server sock addcow "$directory/x.add-cow"
nbdsh -u "$(uri sock)" -c '
before = h.pread(1048576, 0)
try:
    h.zero(100000, 1000, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
    raise SystemExit("the fast zero succeeded")
except nbd.Error as error:
    assert error.errno == "ENOTSUP", error.errno
assert h.pread(1048576, 0) == before
h.zero(100000, 1000, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(1048576, 0) == before[:1000] + bytearray(100000) + before[101000:]'
stop_server "$server_pid"
if grep 'error: ' sock.log; then fail "errors in the log of the server"; fi
