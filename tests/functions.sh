# SPDX-License-Identifier: LGPL-2.1-or-later
# Shared by every shell test: source it first. Gives a scratch folder that is
# removed at exit ($scratch, also the working directory), servers that are
# stopped at exit also when the test fails, and skips that print their reason.
#
# Environment, set by the Makefile (or by hand): ADDCOW_RUN, the path of the
# build tree's ./run; srcdir, the top of the source tree.
# shellcheck shell=bash

set -e -u -o pipefail

# What is started in the background, or by Python, ignores some signals, and so would all
# that a test starts.
if [ -z "${ADDCOW_TEST_SIGNALS:-}" ]; then
    export ADDCOW_TEST_SIGNALS=default
    exec env --default-signal=INT,QUIT,PIPE bash "$0" "$@"
fi

: "${srcdir:=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}"
srcdir="$(cd "$srcdir" && pwd)"
: "${ADDCOW_RUN:=$srcdir/run}"
: "${ADDCOW_BUILDDIR:=$(dirname "$ADDCOW_RUN")}"
export srcdir ADDCOW_RUN
# nbdsh needs the python3 that python3-libnbd was built for.
PATH="/usr/bin:$PATH"
# Programs like qemu-img change their words with the language.
export LC_ALL=C

scratch="$(mktemp -d "${TMPDIR:-/tmp}/addcow-test.XXXXXX")"
cleanup_commands=()

# at_exit COMMAND: run COMMAND (a shell string) at exit, last one first.
at_exit() { cleanup_commands=("$1" ${cleanup_commands[@]+"${cleanup_commands[@]}"}); }

run_cleanup() {
    local status=$? command
    set +e
    for command in ${cleanup_commands[@]+"${cleanup_commands[@]}"}; do
        eval "$command"
    done
    cd / && rm -rf "$scratch"
    exit "$status"
}
trap run_cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
cd "$scratch"

fail() { echo "FAIL: $*" >&2; exit 1; }
skip() { echo "SKIP: $*"; exit 77; }

# requires PROGRAM...: skip, saying which one is missing.
requires() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || skip "$program is not installed"
    done
}

addcow() { "$ADDCOW_RUN" addcow "$@"; }
nbdkit() { "$ADDCOW_RUN" nbdkit "$@"; }

# Failing system calls, see tests/fault/fault_shim.c:
#   with_faults addcow ...               runs the tool with the shim
#   with_faults start_server ...         the same for a server
#   fault CALL AT ERRNO PART; no_fault   from now on; until now
# Which ones have failed is in fault.hits.
with_faults() {
    local shim="$ADDCOW_BUILDDIR/tests/fault/.libs/fault-shim.so"
    [ -e "$shim" ] || fail "$shim is not built"
    # ASan wants to be first in LD_PRELOAD, and is where it matters (./run).
    LD_PRELOAD="$shim${LD_PRELOAD:+:$LD_PRELOAD}" ADDCOW_FAULT="$scratch/fault" \
        ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0" "$@"
}
fault() { rm -f "$scratch/fault.hits"; echo "$*" >"$scratch/fault.new"; mv "$scratch/fault.new" "$scratch/fault"; }
no_fault() { rm -f "$scratch/fault"; }

# start_server SOCKET NBDKIT-ARGUMENT...: a server that is stopped at exit.
# Its process id is left in $server_pid, its messages in SOCKET.log.
server_pid=
start_server() {
    local socket="$1"
    shift
    rm -f "$socket" "$socket.pid"
    "$ADDCOW_RUN" nbdkit -f -U "$socket" -P "$socket.pid" "$@" 2>"$socket.log" &
    server_pid=$!
    at_exit "kill $server_pid 2>/dev/null; wait $server_pid 2>/dev/null"
    wait_for "$socket.pid" "$server_pid" || { cat "$socket.log" >&2; fail "no server: nbdkit $*"; }
}

# wait_for FILE [PID]: until FILE is there and not empty; fails after a
# minute, or when process PID has ended.
wait_for() {
    local waited=0
    until [ -s "$1" ]; do
        if [ -n "${2:-}" ] && ! kill -0 "$2" 2>/dev/null; then return 1; fi
        waited=$((waited + 1))
        [ "$waited" -lt 600 ] || return 1
        sleep 0.1
    done
}

# stop_server PID: a clean stop (SIGTERM); waits until everything is written.
stop_server() {
    local status=0
    kill -TERM "$1"
    wait "$1" || status=$?
    [ "$status" -eq 0 ] || fail "the server stopped with exit status $status"
}

# start_daemon SOCKET NBDKIT-ARGUMENT...: as start_server, but nbdkit forks into
# the background. It does so before it writes its process id.
start_daemon() {
    local socket="$1"
    shift
    rm -f "$socket" "$socket.pid"
    nbdkit -U "$scratch/$socket" -P "$scratch/$socket.pid" "$@"
    wait_for "$socket.pid" || fail "no process id: nbdkit $*"
    server_pid="$(cat "$socket.pid")"
    at_exit "kill -9 $server_pid 2>/dev/null"
}

# kill_daemon PID: SIGKILL, and waits until it is gone. It is no child of ours; who
# is its parent now, in a container, may never ask for its status.
kill_daemon() {
    kill -KILL "$1"
    while kill -0 "$1" 2>/dev/null && ! has '^State:.Z' "/proc/$1/status"; do sleep 0.1; done
}

# uri SOCKET: the NBD URI of a server's socket.
uri() { echo "nbd+unix:///?socket=$(realpath "$1")"; }

# COMMAND | has PATTERN: grep -q that reads to the end, so that COMMAND is not
# killed by SIGPIPE, which pipefail would take for a failure.
has() { grep "$@" >/dev/null; }

# expect_equal EXPECTED ACTUAL WHAT
expect_equal() {
    [ "$1" = "$2" ] || fail "$3: expected '$1', got '$2'"
}

# expect_fails STATUS COMMAND...: the command must fail with just that status;
# its standard error is left in ./stderr.
expect_fails() {
    local want="$1" status=0
    shift
    "$@" 2>stderr >stdout || status=$?
    [ "$status" -eq "$want" ] || { cat stderr >&2; fail "exit status $status, expected $want: $*"; }
}

# random_file NAME SIZE: SIZE bytes (or like 10M) of noise.
random_file() { head -c "$2" /dev/urandom >"$1"; }

# sparse_backing NAME: 1 MiB of which 256-512 KiB is noise, the rest holes.
sparse_backing() {
    truncate -s 1M "$1"
    head -c 256K /dev/urandom | dd of="$1" bs=64K seek=4 conv=notrunc status=none
}

# used_bytes FILE: the storage that it takes.
used_bytes() { echo $(($(stat -c %b "$1") * 512)); }

# sha FILE
sha() { sha256sum "$1" | cut -d' ' -f1; }
