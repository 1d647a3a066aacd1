# SPDX-License-Identifier: LGPL-2.1-or-later
# Shared by every shell test: source it first. Gives a scratch directory that is
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

# built_with_sanitizer: ./run preloads its run-time into nbdkit then. What takes away
# something that it needs itself has another way then, or says that it is not tried.
built_with_sanitizer() { grep -q "^ *sanitizer='[^']" "$ADDCOW_RUN"; }

# can_mount: root, and mount name spaces of our own.
can_mount() { [ "$(id -u)" -eq 0 ] && unshare -m true 2>/dev/null; }

# without_proc COMMAND...: with nothing in /proc; wants can_mount. A sanitizer gets its
# options from there, and looks for leaks there at the end.
without_proc() {
    local options=
    if built_with_sanitizer; then options="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0"; fi
    unshare -m bash -e -c '
        mount -t tmpfs none /proc
        if [ -n "$1" ]; then
            mkdir /proc/self
            printf "ASAN_OPTIONS=%s\0" "$1" >/proc/self/environ
        fi
        shift
        exec "$@"' bash "$options" "$@"
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

# wait_until PID COMMAND...: until COMMAND succeeds; fails after a few minutes, or
# when process PID has ended (which may be empty).
wait_until() {
    local pid="$1" waited=0
    shift
    until "$@"; do
        if [ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null; then return 1; fi
        waited=$((waited + 1))
        [ "$waited" -lt 6000 ] || return 1
        sleep 0.02
    done
}

# wait_for FILE [PID]: until FILE is there and not empty.
wait_for() { wait_until "${2:-}" test -s "$1"; }

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
# is its parent now, in a container, may never ask for its status. As long as one of its
# threads is left, in a write say, its files are open and locked.
kill_daemon() {
    kill -KILL "$1"
    wait_until '' is_gone "$1" || fail "process $1 does not end"
}
is_gone() {
    ! kill -0 "$1" 2>/dev/null ||
        { has '^State:.Z' "/proc/$1/status" 2>/dev/null && [ ! -e "$(other_thread "$1")" ]; }
}
other_thread() { find "/proc/$1/task" -mindepth 1 -maxdepth 1 ! -name "$1" 2>/dev/null | head -n 1; }

# ends_with STATUS PID WHAT [LOG]: waits for a child of ours, which ends with that
# status (137: killed by SIGKILL; 143: by SIGTERM). If not, LOG is shown.
ends_with() {
    local status=0
    wait "$2" 2>/dev/null || status=$?
    [ "$status" -eq "$1" ] || [ -z "${4:-}" ] || cat "$4" >&2
    expect_equal "$1" "$status" "exit status of $3"
}

# kill_rounds COUNT CHECK ARGUMENT...: runs `addcow ARGUMENT...` COUNT times, each with SIGKILL at
# another moment. After each the function CHECK is called, with "killed", or "done" where it came to
# its good end before. The moments spread over a time that grows with each that is killed and shrinks
# with each that is not, so that on any machine about half of them are. One at least must be killed.
kill_rounds() {
    local count="$1" check="$2" within=60 round moment status kills=0
    shift 2
    for round in $(seq "$count"); do
        status=0
        moment=$((round * 37 % 100 * within / 100 + 1))
        timeout --foreground -s KILL "$((moment / 1000)).$(printf '%03d' $((moment % 1000)))" \
            "$ADDCOW_RUN" addcow "$@" 2>stderr || status=$?
        case "$status" in
        137)
            kills=$((kills + 1))
            within=$((within + within / 10))
            "$check" killed
            ;;
        # 124: it came to its end just when its time was over.
        0 | 124)
            within=$((within - within / 10))
            "$check" "done"
            ;;
        *) fail "exit status $status in round $round: $(cat stderr)" ;;
        esac
        [ "$within" -ge 10 ] || within=10
    done
    echo "$kills kills, at last within $within ms"
    [ "$kills" -gt 0 ] || fail "no round was killed"
}

# new_image: x.add-cow with disk.raw over base.img, a copy of ./noise.
new_image() {
    rm -f base.img disk.raw x.add-cow
    cp noise base.img
    addcow create -q -b base.img -F raw -i disk.raw x.add-cow
}

# client STATEMENT...: in Python, of the server at ./sock, with h, with what is below,
# and with what client_knows was given.
client_python=
client_knows() { client_python="$1"; }
client() {
    local statement arguments=()
    for statement in "$@"; do arguments+=(-c "$statement"); done
    nbdsh --base-allocation -u "$(uri sock)" -c '
K = 65536
fua = nbd.CMD_FLAG_FUA
def refused(request, want="EIO"):
    try:
        request()
    except nbd.Error as error:
        assert error.errno == want, error.errno
    else:
        raise SystemExit("not refused")
' -c "$client_python" "${arguments[@]}"
}

# logged COUNT PATTERN: so many lines of the log of the server at ./sock have it.
logged() { expect_equal "$1" "$(grep -c -- "$2" sock.log)" "lines with '$2' in the log: $(cat sock.log)"; }

# sound ADD-COW-FILE: but for leaks.
sound() { addcow check -q "$1" || [ $? -eq 3 ] || fail "not sound: $1"; }

# in_image ADD-COW-FILE [OPTION...]: what the image file has, in bytes, as a JSON array of
# [offset, length]. In the map it has depth 0.
in_image() {
    addcow map --output=json "$@" | jq -c '
        reduce (.[] | select(.depth == 0 and .present)) as $x ([];
            if length > 0 and (.[-1] | .[0] + .[1]) == $x.start
            then .[-1][1] += $x.length else . + [[$x.start, $x.length]] end)'
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

# hanging_program NAME WORD: makes hanging/NAME, which hangs if its first word is WORD, and is the
# program of that name if not. Its process id is in the file "hung" then.
hanging_program() {
    local real
    real="$(command -v "$1")"
    mkdir -p hanging
    rm -f hung
    printf '#!/bin/sh\n[ "$1" != %s ] || { echo $$ >%s; exec sleep 1000; }\nexec %s "$@"\n' \
        "$2" "'$PWD/hung'" "'$real'" >"hanging/$1"
    chmod +x "hanging/$1"
}

# ended_by_signal ARGUMENT...: `addcow ARGUMENT...` with the program that hangs is ended by SIGTERM
# at once, and that program with it.
ended_by_signal() {
    local pid begun
    PATH="$PWD/hanging:$PATH" "$ADDCOW_RUN" addcow "$@" 2>stderr &
    pid=$!
    wait_for hung "$pid" || fail "$1: nothing hangs: $(cat stderr)"
    begun="$SECONDS"
    kill -TERM "$pid"
    ends_with 143 "$pid" "$1 of a program that hangs" stderr
    [ $((SECONDS - begun)) -lt 30 ] || fail "$1: $((SECONDS - begun)) s from the signal to its end"
    is_gone "$(cat hung)" || fail "$1: what it has started runs on"
}
