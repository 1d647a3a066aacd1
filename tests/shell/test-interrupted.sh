#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# SIGINT and SIGTERM before the N-th system call on an image's files, for N = 1,
# 2, 3 ... until there is none. flatten and check -r keep what they have done, say
# how far they are and that they can be run again, and exit with 130 or 143;
# create leaves nothing behind. A second signal ends them at once. With
# ADDCOW_SWEEP_STEP=S every S-th N only.

. "$(dirname "$0")/../functions.sh"
requires nbdcopy jq

# 24 MiB, more than is copied between two looks. 3 MiB of leaks.
mkdir img
truncate -s 24M img/base.img
for at in 0 7 15 16 23; do
    head -c 300K /dev/urandom | dd of=img/base.img bs=1M seek="$at" conv=notrunc status=none
done
addcow create -q -b base.img -F raw -i disk.raw img/x.add-cow
nbdkit -U - addcow img/x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"z\" * 99999, 20000005)"'
random_file leak 1M
for at in 2 10 12; do dd if=leak of=img/disk.raw bs=1M seek="$at" conv=notrunc status=none; done
nbdkit -r -U - addcow img/x.add-cow --run 'nbdcopy "$uri" img.want'

step="${ADDCOW_SWEEP_STEP:-1}"
allocated() { addcow info --output=json vm/x.add-cow | jq '."allocated-clusters"'; }
leaks() { addcow check --output=json vm/x.add-cow 2>/dev/null | jq .leaks; }

# stops SIGNAL VERB... : once with the signal before each call.
stops() {
    local signal="$1" at status stopped=0
    shift
    for ((at = 1; ; at += step)); do
        rm -rf vm
        cp -a img vm
        fault any "$at" "-$signal" /vm
        status=0
        with_faults addcow "$@" "$scratch/vm/x.add-cow" >stdout 2>stderr || status=$?
        no_fault
        [ -s fault.hits ] || break
        if [ "$status" -ne 0 ]; then
            expect_equal $((128 + signal)) "$status" "exit status ($*, $at: $(cat stderr))"
            expect_equal 1 "$(wc -l <stderr)" "lines of message ($*, $at: $(cat stderr))"
            grep -q 'x.add-cow: interrupted: .*kept.*run it again' stderr || fail "$*, $at: $(cat stderr)"
            stopped=$((stopped + 1))
            echo "$(allocated) $(leaks) $(cat stderr)" >>how_far
            nbdkit -r -U - addcow vm/x.add-cow --run 'nbdcopy "$uri" -' | cmp -s - img.want ||
                fail "the disk changed ($*, $at: $(cat fault.hits))"
            addcow "$@" "$scratch/vm/x.add-cow" >/dev/null || fail "run again: $*, $at"
        fi
        addcow check -q vm/x.add-cow || fail "not sound ($*, $at)"
    done
    expect_equal 0 "$status" "exit status without a signal"
    [ "$stopped" -gt 10 ] || fail "$* was hardly ever stopped: $stopped times"
    echo "$*: $((at - step)) calls, stopped $stopped times"
}

rm -rf vm
cp -a img vm
had="$(allocated)"
: >how_far
stops 2 flatten
# What it says is what is there: some runs had copied nothing, others 16 MiB.
grep -q "^$had .* 0 B of 24 MiB are copied" how_far || fail "$(cat how_far)"
grep -q "^2[0-9][0-9] .* 16 MiB of 24 MiB are copied" how_far || fail "$(cat how_far)"
stops 15 flatten -p

: >how_far
stops 2 check -r leaks
grep -q '48 leaked clusters were given back' how_far || grep -q '16 leaked' how_far ||
    fail "no run had given anything back: $(cat how_far)"
while read -r _ left text; do
    given="$(sed -E 's/.*: ([0-9]+) leaked.*/\1/' <<<"$text")"
    expect_equal 48 $((left + given)) "leaks, together with: $text"
done <how_far

# create: nothing is left behind, or all is there.
mkdir none
cp img/base.img none
for signal in 2 15; do
    for options in '-b base.img -F raw' '-s 24M'; do
        for ((at = 1; ; at += step)); do
            rm -rf vm
            cp -a none vm
            fault any "$at" "-$signal" /vm
            status=0
            # shellcheck disable=SC2086  # words
            with_faults addcow create $options -i disk.raw "$scratch/vm/x.add-cow" >stdout 2>stderr || status=$?
            no_fault
            [ -s fault.hits ] || break
            if [ "$status" -eq 0 ]; then
                addcow check -q vm/x.add-cow || fail "create $options, $at: exit status 0"
            else
                expect_equal $((128 + signal)) "$status" "exit status of create ($at: $(cat stderr))"
                expect_equal "$(ls none)" "$(ls vm)" "what create leaves behind ($at)"
                grep -q 'interrupted: nothing was made' stderr || fail "$(cat stderr)"
            fi
        done
        [ "$at" -gt 10 ] || fail "hardly a call was tried: $at"
        echo "create $options: $((at - step)) calls"
    done
done

# A second signal ends it at once, as one does that nobody catches.
rm -rf vm
cp -a img vm
fault any '10+' -15 /vm
status=0
with_faults addcow flatten "$scratch/vm/x.add-cow" 2>stderr || status=$?
no_fault
expect_equal 143 "$status" "exit status after two signals"
if grep -q addcow: stderr; then fail "words after two signals: $(cat stderr)"; fi
nbdkit -r -U - addcow vm/x.add-cow --run 'nbdcopy "$uri" -' | cmp - img.want
