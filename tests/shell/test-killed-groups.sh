#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# No qemu-nbd is left by an export, an import, a commit or a server that starts, when a
# signal comes to all of its process group: kill -9, as of a shell's job, or Ctrl-C.
# KILLED_GROUPS: rounds for each signal and command.

. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io qemu-nbd
built_with_sanitizer && skip "qemu-nbd cannot be run under a sanitizer"
command -v setsid >/dev/null || skip "setsid is not installed: qemu-nbd stays in the group then"

random_file base.img 4M
qemu-img convert -f raw -O qcow2 base.img base.qcow2
addcow create -q -b base.img -F raw -i x.raw x.add-cow
nbdkit -U - addcow x.add-cow --run 'qemu-io -f raw -c "write -P 5 64k 3M" "$uri"' >/dev/null
addcow create -q -b base.qcow2 -F qcow2 -i q.raw q.add-cow
nbdkit -U - addcow q.add-cow --run 'qemu-io -f raw -c "write -P 6 64k 3M" "$uri"' >/dev/null
qemu-img create -q -f qcow2 -b base.img -F raw top.qcow2
qemu-io -f qcow2 -c 'write -P 7 64k 3M' top.qcow2 >/dev/null

# The processes that are, or become, a qemu-nbd of a file of ours, and those that watch one.
left() {
    local process
    for process in /proc/[0-9]*; do
        tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -q "qemu-nbd .*$scratch/" || continue
        case "$(sed -n 's/^State:\s*//p' "$process/status" 2>/dev/null)" in
        Z* | '') ;;
        *) echo "${process#/proc/}" ;;
        esac
    done
}
none_left() { [ -z "$(left)" ]; }

# signalled SIGNAL COMMAND...: at moments of the first 100 ms, to the process group that the
# shell makes for it. How many came in time is printed.
signalled() {
    local signal="$1" n pid status process came=0
    shift
    for n in $(seq "${KILLED_GROUPS:-5}"); do
        rm -f new.* q.add-cow.*.tmp sock
        set -m
        "$ADDCOW_RUN" "$@" >out 2>err &
        pid=$!
        set +m
        sleep "0.$(printf '%03d' $((n * 13 % 100 + 1)))"
        status=0
        kill "-$signal" -- "-$pid" 2>/dev/null || status=$?
        if [ "$status" -eq 0 ]; then came=$((came + 1)); fi
        wait "$pid" 2>/dev/null || status=$?
        # 1: it had ended before, and well.
        case "$status" in 0 | 1 | 130 | 137) ;; *) fail "exit status $status of $*: $(cat err)" ;; esac
        if ! wait_until '' none_left; then
            for process in $(left); do tr '\0' ' ' <"/proc/$process/cmdline"; done >&2
            fail "round $n: $signal to the group of '$*' leaves a qemu-nbd"
        fi
    done
    echo "$came signals: $signal: $*"
    [ "$came" -gt 0 ] || fail "no signal came in time: $*"
}

for signal in KILL INT; do
    signalled "$signal" addcow export -q x.add-cow new.qcow2
    signalled "$signal" addcow import -q -i new.raw top.qcow2 new.add-cow
    signalled "$signal" addcow commit -q q.add-cow
    signalled "$signal" nbdkit -f -U "$scratch/sock" addcow q.add-cow
done
rm -f new.* q.add-cow.*.tmp
addcow check -q q.add-cow || [ $? -eq 3 ] || fail "q.add-cow is not sound"
qemu-img check -q base.qcow2
