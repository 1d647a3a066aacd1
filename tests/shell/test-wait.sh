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
