#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# --wait: a command whose image is being served tries again until the server
# has stopped, or until the time that was given is over, or a signal comes.

. "$(dirname "$0")/../functions.sh"
requires nbdinfo

random_file base.img 300000
addcow create -q -b base.img -F raw -i disk.raw x.add-cow

# waiting COMMAND...: has it in the background, and returns when it has been
# refused and has tried again: x.add-cow is opened more often than in one run.
waiting() {
    fault open 20 4 /x.add-cow # EINTR, which changes nothing
    with_faults "$ADDCOW_RUN" addcow "$@" >out 2>err &
    waiter=$!
    wait_for fault.hits "$waiter" || fail "it did not wait: addcow $*: $(cat err)"
    no_fault
}

commands=('map' 'check' 'flatten' 'create --force --discard -i disk.raw')

# Each gives up after a second; at once, so that it is one second for all.
start_server sock addcow x.add-cow
waiters=()
for number in "${!commands[@]}"; do
    # shellcheck disable=SC2086  # words
    "$ADDCOW_RUN" addcow ${commands[number]} --wait=1 x.add-cow >/dev/null 2>"err$number" &
    waiters+=($!)
done
for number in "${!commands[@]}"; do
    ends_with 1 "${waiters[number]}" "${commands[number]} --wait=1" "err$number"
    grep -q 'is in use' "err$number" || fail "${commands[number]} --wait=1: $(cat "err$number")"
done
stop_server "$server_pid"

for command in "${commands[@]}"; do
    start_server sock addcow x.add-cow
    # shellcheck disable=SC2086  # words
    expect_fails 1 addcow $command x.add-cow
    # shellcheck disable=SC2086
    expect_fails 1 addcow $command --wait=0 x.add-cow
    grep -q 'is in use' stderr || fail "--wait=0: $(cat stderr)"
    # shellcheck disable=SC2086
    waiting $command --wait x.add-cow
    # It keeps nobody from anything meanwhile.
    nbdinfo --size "$(uri sock)" >/dev/null
    stop_server "$server_pid"
    ends_with 0 "$waiter" "$command --wait" err
    # That what disk.raw holds becomes the disk is said of create.
    if grep -v 'note:' err; then fail "words of $command --wait: $(cat err)"; fi
done
cmp base.img disk.raw

# Who waits can be stopped.
start_server sock addcow x.add-cow
waiting flatten --wait=1000000 x.add-cow
kill -TERM "$waiter"
ends_with 143 "$waiter" "who waits and is stopped" err
waiting map --wait x.add-cow
kill -TERM "$waiter"
ends_with 143 "$waiter" "who waits and is stopped" err

# A base that QEMU has open is in use as any other file, and is waited for: by who reads it
# and by who writes to it.
missing="$(for program in qemu-img qemu-io qemu-nbd; do command -v "$program" >/dev/null || echo "$program"; done)"
if [ -n "$missing" ] || built_with_sanitizer; then
    skip "the rest holds, but qemu-nbd cannot be run here"
fi
qemu-img convert -f raw -O qcow2 base.img base.qcow2
addcow create -q -b base.qcow2 -F qcow2 -i q.raw q.add-cow
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
addcow create -q -b top.qcow2 -F qcow2 -i top.raw top.add-cow
mkfifo in
for case in 'write flatten top.add-cow' 'write commit q.add-cow' 'read commit q.add-cow' \
    'write export q.add-cow new.qcow2'; do
    read -r how command image more <<<"$case"
    options=()
    reason='so it cannot be written to'
    if [ "$how" = read ]; then options=(-r); fi
    if [ "$how" = write ]; then reason='that may write to it'; fi
    rm -f opened
    qemu-io "${options[@]}" -f qcow2 base.qcow2 <in >opened &
    qemu=$!
    exec 9>in
    echo 'read 0 512' >&9
    wait_for opened "$qemu"
    # shellcheck disable=SC2086 # a word, or none
    expect_fails 1 addcow "$command" "$image" $more
    grep -q "/base.qcow2: is in use by another program,\? $reason .*; --wait waits until it is free" stderr ||
        fail "$command beside QEMU, which may $how: $(cat stderr)"
    expect_equal 1 "$(wc -l <stderr)" "lines: $(cat stderr)"
    # shellcheck disable=SC2086
    "$ADDCOW_RUN" addcow "$command" --wait=300 "$image" $more >out 2>err 9>&- &
    waiter=$!
    sleep 1
    kill -0 "$waiter" || fail "$command --wait did not wait: $(cat err)"
    exec 9>&-
    wait "$qemu"
    ends_with 0 "$waiter" "$command --wait" err
done
