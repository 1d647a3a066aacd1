#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow resize: what is new reads as zeroes and what was cut off stays away, as in a qcow2
# that qemu-img resizes; what is refused; killed and stopped at any moment the disk has the
# old size or the new one.

. "$(dirname "$0")/../functions.sh"
requires nbdsh nbdcopy python3

MiB=$((1024 * 1024))
size_of() { stat -c %s disk.raw; }
contents() { nbdkit -r -U - addcow "${1:-x.add-cow}" --run 'nbdcopy "$uri" -'; }
# refused STATUS TEXT ARGUMENT...: one line with the text, and no byte is another one.
refused() {
    local before
    before="$(sha x.add-cow) $(sha disk.raw)"
    expect_fails "$1" addcow resize "${@:3}"
    expect_equal 1 "$(wc -l <stderr)" "lines of message: $(cat stderr)"
    has -F -- "$2" <stderr || fail "resize ${*:3}: $(cat stderr)"
    expect_equal "$before" "$(sha x.add-cow) $(sha disk.raw)" "files after resize ${*:3}"
}

random_file base.img 8M
addcow create -q -b base.img -F raw -i disk.raw -s 3000001 x.add-cow
nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"w\" * 5000, 100000)" -c "h.pwrite(b\"e\" * 200000, 2800001)"'
contents >want
expect_equal "Image resized." "$(addcow resize x.add-cow 5M)" "what it says"
truncate -s 5M want
contents | cmp - want
addcow check -q x.add-cow
# A sign, a suffix, and options before and after.
addcow resize -q x.add-cow +1M
expect_equal $((6 * MiB)) "$(size_of)" "+1M"
expect_equal "" "$(addcow resize -q --shrink x.add-cow -512k)" "words of -q"
expect_equal $((6 * MiB - 512 * 1024)) "$(size_of)" "-512k"
addcow resize -q x.add-cow --shrink -4M
expect_equal $((2 * MiB - 512 * 1024)) "$(size_of)" "-4M"
addcow resize -q -p -- x.add-cow +5.5M
truncate -s $((2 * MiB - 512 * 1024)) want
truncate -s 7M want
contents | cmp - want
addcow check -q x.add-cow
for size in 7M +0 -0; do
    has 'has 7340032 bytes already' <<<"$(addcow resize x.add-cow "$size")" || fail "the size that it has: $size"
done
# What is new has no storage; a terabyte is there at once.
cp --sparse=always disk.raw large.raw
cp --sparse=always x.add-cow large.add-cow
addcow rebase -q -u -i large.raw large.add-cow
timeout 60 "$ADDCOW_RUN" addcow resize -q large.add-cow 1T
[ "$(used_bytes large.raw)" -le $((9 * MiB)) ] || fail "a hole takes storage: $(used_bytes large.raw)"
addcow resize -q --shrink large.add-cow 7M
contents large.add-cow | cmp - want


# Refused, with a reason, and before a byte is changed.
refused 1 "has 7340032 bytes, of which the last 6291456 would be lost, 524288 of them data (to cut them off: --shrink)" x.add-cow 1M
refused 1 "cannot lose 7340032: one must be left" --shrink x.add-cow -7M
refused 64 "must be 1 byte to" x.add-cow 0
refused 64 "must be a number of bytes" x.add-cow ++1
refused 64 "must be a number of bytes" x.add-cow -- --1
refused 64 "'--preallocation=full' is not an option" --preallocation=full x.add-cow 8M
refused 64 "SIZE" x.add-cow
refused 1 "it would have more than" x.add-cow +9223372036854775807
refused 1 "nosuch" --backing=nosuch x.add-cow 8M
start_server sock addcow x.add-cow
refused 1 "in use" x.add-cow 8M
stop_server "$server_pid"
(ulimit -f 8192 && refused 1 "limit of file sizes (ulimit -f)" x.add-cow +100M)
# As large as no file of ext4 may be; where the file system has such files, it is done.
if truncate -s 64T sparse.img 2>/dev/null; then
    echo "SKIP of a part: the file system takes a file of 64 TiB"
    addcow resize -q x.add-cow 64T
    addcow resize -q --shrink x.add-cow 7M
else
    refused 1 'cannot have 70368744177664 bytes: its file system' x.add-cow 64T
fi
rm -f sparse.img
contents | cmp - want

# The same as qemu-img does with a qcow2, request for request: contents and exit statuses.
if command -v qemu-img >/dev/null && command -v qemu-io >/dev/null; then
    python3 - "$ADDCOW_RUN" <<'END_OF_PYTHON'
import os, random, subprocess, sys
seed = int(os.environ.get("ADDCOW_SEED", random.randrange(1 << 32)))
print("seed:", seed)
chance = random.Random(seed)
run = sys.argv[1]
def ran(*words):
    return subprocess.run(words, capture_output=True, text=True)
def must(*words):
    done = ran(*words)
    assert done.returncode == 0, (words, done)
    return done.stdout
def nbd(what):
    must(run, "nbdkit", "-U", "-", "addcow", "q.add-cow", "--run", what)
shrunk, refused = 0, 0
for form in [], ["--cluster-size=4k"], ["--cluster-size=2M"], ["--subclusters=off"]:
    for name in "q.add-cow", "q.raw", "q.qcow2":
        if os.path.exists(name):
            os.remove(name)
    size = 512 * chance.randrange(1, 20000)
    must(run, "addcow", "create", "-q", *form, "-b", "base.img", "-F", "raw", "-i", "q.raw", "-s", str(size), "q.add-cow")
    must("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.img", "-F", "raw", "q.qcow2", str(size))
    for step in range(12):
        if chance.randrange(2):
            offset = 512 * chance.randrange(size // 512)
            length = 512 * chance.randrange(1, min((size - offset) // 512, 100) + 1)
            write = f"write -P {chance.randrange(1, 256)} {offset} {length}"
            must("qemu-io", "-f", "qcow2", "-c", write, "q.qcow2")
            nbd(f"qemu-io -f raw -c '{write}' \"$uri\"")
        change = 512 * chance.randrange(1, 12000)
        word = chance.choice([f"+{change}", f"-{change}", str(change)])
        new = size + int(word) if word[0] in "+-" else change
        options = [["--shrink"], []][chance.randrange(4) == 0]
        theirs = ran("qemu-img", "resize", "-f", "qcow2", *options, "q.qcow2", word)
        ours = ran(run, "addcow", "resize", *options, "q.add-cow", word)
        assert ours.returncode == theirs.returncode, (word, options, size, ours, theirs)
        if ours.returncode == 0:
            shrunk += new < size
            size = new
        else:
            refused += 1
        assert os.path.getsize("q.raw") == size, (word, size)
        nbd("qemu-img compare -f raw -F qcow2 \"$uri\" q.qcow2 >&2")
        must(run, "addcow", "check", "-q", "q.add-cow")
assert shrunk and refused, (shrunk, refused)
END_OF_PYTHON
else
    echo "SKIP of a part: qemu-img or qemu-io is not installed"
fi

# Killed, or stopped, before each system call on the files: a grown disk, a cut one, and one
# of which the subcluster bitmap moves.
make_case() {
    rm -rf img && mkdir img
    case "$1" in
    grow) size=3000001 new=7M ;;
    cut) size=7M new=3000001 ;;
    far) size=2000M new=2100M ;;
    esac
    cp --sparse=always base.img img/base.img
    addcow create -q -b base.img -F raw -i disk.raw -s "$size" img/x.add-cow
    nbdkit -U - addcow img/x.add-cow --run \
        'nbdsh -u "$uri" -c "for at in range(10000, 2900000, 150000): h.pwrite(b\"w\" * 5000, at)" -c "h.pwrite(b\"e\", h.get_size() - 1)"'
    nbdkit -r -U - addcow img/x.add-cow --run 'nbdcopy "$uri" old.img'
    cp --sparse=always old.img new.img
    truncate -s "$new" new.img
    cp -a --sparse=always img resized
    addcow resize -q --shrink resized/x.add-cow "$new"
    addcow compare -q resized/x.add-cow new.img
    rm -rf resized
}
with_faults true
for case in grow cut far; do
    make_case "$case"
    for signal in 9 15; do
        was_old=0 was_new=0 step="${ADDCOW_SWEEP_STEP:-2}"
        # What is copied up, and SIGTERM, are the same all over.
        case "$case,$signal" in
        far,9) step=$((step * 11)) ;;
        far,15) step=$((step * 40)) ;;
        *,15) step=$((step * 7)) ;;
        esac
        for ((at = 1; ; at += step)); do
            rm -rf vm
            cp -a --sparse=always img vm
            fault any "$at" "-$signal" /vm
            status=0
            with_faults addcow resize -q --shrink "$scratch/vm/x.add-cow" "$new" 2>stderr || status=$?
            no_fault
            [ -s fault.hits ] || break
            if [ "$(stat -c %s vm/disk.raw)" -eq "$(stat -c %s old.img)" ]; then
                is=old was_old=$((was_old + 1))
            else
                is=new was_new=$((was_new + 1))
            fi
            if [ "$status" -ne 0 ]; then
                expect_equal $((128 + signal)) "$status" "exit status ($case, $at: $(cat stderr))"
            else
                expect_equal new "$is" "the size after success ($case, $at)"
            fi
            addcow compare -q vm/x.add-cow "$is.img" || fail "the disk is neither ($case, $signal, $at)"
            sound vm/x.add-cow
            addcow resize -q --shrink vm/x.add-cow "$new" || fail "run again ($case, $at)"
            addcow compare -q vm/x.add-cow new.img || fail "run again, another disk ($case, $at)"
            expect_equal "$(stat -c %s new.img)" "$(stat -c %s vm/disk.raw)" "size, run again"
            addcow check vm/x.add-cow >checked || [ $? -eq 3 ] || fail "$(cat checked)"
            if has -i 'past the end' <checked; then fail "bits are left: $(cat checked)"; fi
        done
        expect_equal 0 "$status" "exit status without a signal"
        [ "$was_old" -gt 0 ] && { [ "$was_new" -gt 0 ] || [ "$case,$signal" != cut,9 ]; } || fail "$case: $was_old times old, $was_new times new"
        echo "$case, signal $signal: $((at - step)) calls, $was_old times the old size, $was_new times the new"
    done
done
