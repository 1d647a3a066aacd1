#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The real tool with the N-th system call on its files failing, for N = 1, 2, 3
# ... until none fails, in each verb. It does what it does without faults, or
# exits with status 1 and one line on standard error. The image stays sound, is
# read as before, and the verb does its work when it is run again. With
# ADDCOW_SWEEP_STEP=S every S-th N only.

. "$(dirname "$0")/../functions.sh"
requires nbdcopy

# An image with leaks in img, and one whose bitmap is to be repaired in bits.
mkdir img
random_file img/base.img 700000
random_file img/disk.raw 1000000
addcow create -q --reuse-image -b base.img -F raw -i disk.raw img/x.add-cow
nbdkit -U - addcow img/x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"z\" * 99999, 200005)"'
cp -a --sparse=always img bits
printf '\007' | dd of=bits/x.add-cow bs=1 seek=28 conv=notrunc status=none
nbdkit -r -U - addcow img/x.add-cow --run 'nbdcopy "$uri" img.want'
cp bits/disk.raw bits.want

# Of the bytes that are there. A failed ftruncate may leave a second bitmap that is used
# no more: where all is allocated as it was, else as a hole at the end.
sum_of_files() {
    local file
    for file in vm/*; do
        case "$file" in
        *.add-cow)
            if [ $(($(od -An -tu1 -j28 -N1 "$file") & 4)) -ne 0 ]; then
                head -c $((4096 + 65536)) "$file"
            else
                od -Ad -tx1 "$file" | sed '$d'
            fi
            ;;
        *) cat "$file" ;;
        esac
    done | sha256sum
}

run=0 step="${ADDCOW_SWEEP_STEP:-1}"
# sweep FROM CALL ERRNO AT-SUFFIX VERB [OPTION...]: in a copy of FROM.
sweep() {
    local from="$1" call="$2" error="$3" suffix="$4" what="${*:2}" at status
    shift 4
    restore() { rm -rf vm; cp -a "$from" vm; }
    restore
    status=0
    addcow "$@" "$scratch/vm/x.add-cow" >want.stdout 2>want.stderr || status=$?
    local want_status=$status want_files
    want_files="$(sum_of_files)"
    cp vm/x.add-cow want.add-cow
    for ((at = 1; ; at += step)); do
        restore
        fault "$call" "$at$suffix" "$error" /vm
        status=0
        with_faults addcow "$@" "$scratch/vm/x.add-cow" >stdout 2>stderr || status=$?
        no_fault
        run=$((run + 1))
        if [ "$status" -eq "$want_status" ] && cmp -s stdout want.stdout; then
            # Where a base cannot be read, its hash is all that is missing.
            if has 'no sample of the backing file is noted' stderr; then
                cmp -s -n 72 -i 3868:0 vm/x.add-cow /dev/zero || fail "a hash is noted ($what, $at)"
                dd if=want.add-cow of=vm/x.add-cow bs=1 skip=3868 seek=3868 count=72 conv=notrunc status=none
            fi
            expect_equal "$want_files" "$(sum_of_files)" "files after success ($what, $at)"
        else
            expect_equal 1 "$status" "exit status ($what, $at: $(cat fault.hits stderr))"
            expect_equal 1 "$(wc -l <stderr)" "lines of message ($what, $at: $(cat fault.hits stderr))"
            [ "$error" -ne 0 ] && [ "$error" -ne 4 ] || fail "noticed: $what, $at: $(cat fault.hits stderr)"
            if [ "$from" != none ]; then
                nbdkit -r -U - addcow vm/x.add-cow --run 'nbdcopy "$uri" -' | cmp -s - "$from.want" ||
                    fail "the disk changed ($what, $at: $(cat fault.hits))"
                status=0
                addcow "$@" "$scratch/vm/x.add-cow" >/dev/null 2>stderr || status=$?
                expect_equal "$want_status" "$status" "run again ($what, $at: $(cat stderr))"
                expect_equal "$want_files" "$(sum_of_files)" "files after another run ($what, $at)"
            else
                expect_equal "$(ls none)" "$(ls vm)" "what is left behind ($what, $at: $(cat fault.hits))"
            fi
        fi
        [ -s fault.hits ] || break
        [ "$at" -lt 2000 ] || fail "the sweep does not end: $what"
    done
    [ "$at" -gt 10 ] || [ "$call" != any ] || fail "hardly a call was tried ($at): $what"
    echo "$what: $((at - step)) calls"
}

# EIO once; ENOSPC for ever; transfers cut short; a signal in each call that one
# may interrupt.
for verb in info map check "check -r leaks" flatten; do
    # shellcheck disable=SC2086  # words
    sweep img any 5 '' $verb
done
sweep bits any 5 '' check -r all
mkdir none
cp img/base.img none
create=(create -b base.img -F raw -i disk.raw)
sweep none any 5 '' "${create[@]}"
# Not "any": were removing to fail too, what was made could not be removed.
for call in open ftruncate pwrite fsync; do sweep none "$call" 28 + "${create[@]}"; done
sweep img any 28 + flatten
for call in pread pwrite; do sweep img "$call" 0 + flatten; done
sweep none pwrite 0 + "${create[@]}"
for call in open pread pwrite fallocate sync_file_range fdatasync; do sweep img "$call" 4 '' flatten; done
for call in open pwrite ftruncate fsync; do sweep none "$call" 4 '' "${create[@]}"; done
echo "$run runs"
