#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow commit: into raw files, other images, qcow2 and servers; three images as one unit,
# killed at any moment; what is refused, and that nothing is changed then.

. "$(dirname "$0")/../functions.sh"
requires jq qemu-io nbdcopy

# read_of IMAGE: what the disk reads, by its sum.
read_of() { nbdkit -r -U - addcow "$1" --run 'nbdcopy "$uri" - | sha256sum' | cut -d' ' -f1; }
info() { addcow info --output=json "$1" 2>/dev/null | jq -r ".\"$2\""; }
write_to() { nbdkit -U - addcow "$1" --run "qemu-io -f raw $2 \"\$uri\"" >/dev/null; }
# make NAME BACKING FORMAT [OPTION...]: an overlay with data, a hole, and a part of a cluster.
make() {
    addcow create -q -b "$2" -F "$3" -i "$1.raw" "${@:4}" "$1.add-cow"
    write_to "$1.add-cow" '-c "write -P 5 100k 300k" -c "write -z -u 512k 128k" -c "write -P 6 1000k 4k"'
}
empty() {
    expect_equal "0 0" "$(info "$1" allocated-clusters) $(info "$1" partial-clusters)" "what $1 has"
    addcow check -q "$1" || fail "$1 is not sound, or leaks"
}

random_file base.img 1M
make x base.img raw
disk="$(read_of x.add-cow)"
before="$(sha base.img)$(sha x.add-cow)"
addcow commit --dry-run x.add-cow >out
grep -q 'would be written to .*base.img' out || fail "$(cat out)"
addcow commit --dry-run --output=json x.add-cow |
    jq -e '.[0].committed == false and .[0].zeroes == 131072 and .[0]."backing-size" == 1048576' >/dev/null
expect_equal "$before" "$(sha base.img)$(sha x.add-cow)" "after a dry run"
chmod 640 x.add-cow
expect_equal "Image committed." "$(addcow commit x.add-cow)" "what is said"
expect_equal 640 "$(stat -c %a x.add-cow)" "permissions"
expect_equal "$disk" "$(read_of x.add-cow)" "the disk"
expect_equal "$disk" "$(sha base.img)" "the base"
empty x.add-cow
expect_equal 0 "$(used_bytes x.raw)" "storage of the image file"
expect_equal "Image committed." "$(addcow commit x.add-cow)" "with nothing to do"

# A base that is too short grows; -d leaves the image as it is.
random_file short.img 300000
make long short.img raw -s 2M
disk="$(read_of long.add-cow)"
addcow commit -q -d long.add-cow
expect_equal 2097152 "$(stat -c %s short.img)" "size of the base"
expect_equal "$disk $disk" "$(read_of long.add-cow) $(sha short.img)" "disk and base"
[ "$(info long.add-cow allocated-clusters)" -gt 0 ] || fail "-d has emptied the image"

# One that was made longer but not synced, is another one than was noted: the record had gone before.
for n in 1 2 3; do
    rm -f grown.*
    random_file grown.img 300000
    make grown grown.img raw -s 2M
    disk="$(read_of grown.add-cow)"
    fault fsync "$n" 5 grown.img
    status=0
    with_faults "$ADDCOW_RUN" addcow commit -q grown.add-cow 2>stderr || status=$?
    no_fault
    [ "$status" -eq 0 ] || grep -q 'run the same command again to go on' stderr || fail "$(cat stderr)"
    expect_equal "$disk" "$(read_of grown.add-cow)" "the disk when fsync $n has failed"
    addcow commit -q grown.add-cow
    expect_equal "$disk $disk" "$(read_of grown.add-cow) $(sha grown.img)" "disk and base"
    # The first of them was of the file that was longer, or nothing was tried.
    [ "$n" -gt 1 ] || [ "$status" -eq 1 ] || fail "no fsync has failed"
done

# What was moved is told so that it helps here; what a killed run has left is named.
make moved base.img raw
mv moved.raw there.raw
expect_fails 1 addcow commit moved.add-cow
grep -q '(if it was moved, say addcow rebase -u -i FILE .*moved.add-cow)' stderr || fail "$(cat stderr)"
mv there.raw moved.raw
mv base.img there.img
expect_fails 1 addcow commit --dry-run moved.add-cow
grep -q '(if it was moved, say addcow rebase -u -b FILE -F raw .*moved.add-cow)' stderr || fail "$(cat stderr)"
mv there.img base.img
cp moved.add-cow copy.add-cow
expect_fails 1 addcow commit moved.add-cow copy.add-cow
grep -q 'have the same image file, .*moved.raw: one of them is a copy' stderr || fail "$(cat stderr)"
mv copy.add-cow moved.add-cow.2147483646.tmp
addcow commit moved.add-cow 2>stderr
grep -q 'note: .*/moved.add-cow.2147483646.tmp: was left by a command that was killed' stderr || fail "$(cat stderr)"
rm moved.*

# Another image, a qcow2, a server.
addcow create -q -b base.img -F raw -i lower.raw lower.add-cow
make upper lower.add-cow add-cow
disk="$(read_of upper.add-cow)"
addcow commit -q upper.add-cow
expect_equal "$disk" "$(read_of upper.add-cow)" "the disk"
expect_equal "$disk" "$(read_of lower.add-cow)" "the lower one"
empty upper.add-cow
sound lower.add-cow
start_server sock file base.img
make remote "$(uri sock)" raw
disk="$(read_of remote.add-cow)"
addcow commit -q --rate=10M remote.add-cow
expect_equal "$disk $disk" "$(read_of remote.add-cow) $(sha base.img)" "disk and served base"
empty remote.add-cow
# Two that stand on one export, by two spellings of its URI.
addcow create -q -b "nbd+unix:///?socket=$(realpath sock | sed 's,/,%2F,g')" -F raw -i far2.raw remote2.add-cow
expect_fails 1 addcow commit remote.add-cow remote2.add-cow
grep -q 'remote2.add-cow: and .*remote.add-cow both stand on nbd+unix:' stderr || fail "$(cat stderr)"
stop_server "$server_pid"
if command -v qemu-img >/dev/null && command -v qemu-nbd >/dev/null && ! built_with_sanitizer; then
    qemu-img convert -f raw -O qcow2 base.img 'a,base.qcow2'
    make q 'a,base.qcow2' qcow2
    disk="$(read_of q.add-cow)"
    # The qemu-nbd that has served it may be about to end.
    addcow commit -q --wait=60 q.add-cow
    expect_equal "$disk" "$(read_of q.add-cow)" "the disk on a qcow2"
    qemu-img convert -f qcow2 -O raw 'a,base.qcow2' q.img
    expect_equal "$disk" "$(sha q.img)" "the qcow2"
    qemu-img check -q 'a,base.qcow2'
    empty q.add-cow
    # Under a limit of file sizes, which NBD has no word for.
    qemu-img create -q -f qcow2 short.qcow2 4M
    addcow create -q -b short.qcow2 -F qcow2 -i limited.raw limited.add-cow
    write_to limited.add-cow '-c "write -P 5 0 3M"'
    disk="$(read_of limited.add-cow)"
    # The qemu-nbd of that server may be about to end.
    wait_until '' qemu-io -f qcow2 -c quit short.qcow2 2>stderr || fail "in use: $(cat stderr)"
    (ulimit -f 2048 && expect_fails 1 addcow commit limited.add-cow)
    grep -q 'short.qcow2: would get too long: no file of this process can have more than 2097152 bytes (ulimit -f)' stderr ||
        fail "$(cat stderr)"
    expect_equal "$disk" "$(read_of limited.add-cow)" "the disk after a commit that found no room"
    addcow commit -q --wait=60 limited.add-cow
    expect_equal "$disk" "$(read_of limited.add-cow)" "the disk after a commit with room"
    addcow create -q -b 'a,base.qcow2' -F qcow2 -s 2M -i larger.raw larger.add-cow
    expect_fails 1 addcow commit larger.add-cow
    grep -q 'make it larger first (qemu-img resize)' stderr || fail "$(cat stderr)"
else
    echo "no commit into a qcow2: no qemu-nbd here, or it cannot be run under a sanitizer"
fi

# What is refused.
# refuses STATUS PATTERN ARGUMENT...
refuses() {
    local status="$1" pattern="$2" before
    shift 2
    before="$(cat base.img x.add-cow x.raw | sha256sum)"
    expect_fails "$status" addcow commit "$@"
    expect_equal 1 "$(wc -l <stderr)" "lines of message for: commit $*: $(cat stderr)"
    grep -q -- "$pattern" stderr || fail "commit $*: no '$pattern' in: $(cat stderr)"
    expect_equal "$before" "$(cat base.img x.add-cow x.raw | sha256sum)" "after commit $*"
}
touch stderr stdout
# The server has written to its base, which is accepted as it is.
addcow rebase -q -u -b base.img -F raw x.add-cow
write_to x.add-cow '-c "write -P 9 0 64k"'
addcow create -q -i alone.raw -s 1M alone.add-cow
addcow create -q -b base.img -F raw -i other.raw other.add-cow
refuses 1 'has no backing file to commit to' alone.add-cow
refuses 1 'both use .*base.img' x.add-cow other.add-cow
refuses 1 'is named twice' x.add-cow ./x.add-cow
refuses 64 'required' --dry-run
refuses 64 '--rate: ' -r much x.add-cow
ln x.add-cow second.add-cow
refuses 1 'has 2 names' second.add-cow
rm second.add-cow
if command -v qemu-img >/dev/null && command -v qemu-nbd >/dev/null && ! built_with_sanitizer; then
    # What lies below a qcow2 is written to by the other.
    qemu-img create -q -f qcow2 -b base.img -F raw over.qcow2
    addcow create -q -b over.qcow2 -F qcow2 -i far.raw far.add-cow
    refuses 1 'both use .*base.img' far.add-cow x.add-cow
    # As long as it is served, or committed to, nobody writes below it, and anybody reads.
    start_server sock addcow far.add-cow
    refuses 1 'base.img: is in use by another program, so it cannot be written to' x.add-cow
    refuses 1 'base.img: is in use by another program' --dry-run x.add-cow
    addcow create -q --reuse-image -i base.img -s 1M own.add-cow --lock=off
    for verb in 'resize own.add-cow 2M' 'rebase -b x.raw -F raw own.add-cow' 'flatten own.add-cow'; do
        # shellcheck disable=SC2086 # words
        expect_fails 1 addcow $verb
        grep -q 'base.img: is in use by another program' stderr || fail "$verb: $(cat stderr)"
    done
    qemu-io -r -f qcow2 -c 'read -q 0 64k' over.qcow2
    if qemu-io -f raw -c 'write -q 0 512' base.img >out 2>&1; then fail "QEMU wrote to base.img"; fi
    stop_server "$server_pid"
    write_to far.add-cow '-c "write -P 3 0 900k"'
    "$ADDCOW_RUN" addcow commit -q --wait=60 --rate=128k far.add-cow &
    committing=$!
    for _ in $(seq 100); do
        qemu-img info over.qcow2 >/dev/null 2>&1 || break
        sleep 0.02
    done
    refuses 1 'base.img: is in use by another program' x.add-cow
    wait "$committing" || fail "the commit into over.qcow2"
    empty far.add-cow
    # QEMU bears that others write to what it reads below an overlay; its user would not.
    qemu-nbd -r -t -k "$PWD/q.sock" -f qcow2 over.qcow2 &
    reader=$!
    at_exit "kill $reader 2>/dev/null"
    wait_until "$reader" test -S q.sock
    refuses 1 'base.img: is in use by another program' x.add-cow
    refuses 1 'base.img: is in use by another program' --dry-run x.add-cow
    kill "$reader"
    ends_with 0 "$reader" "qemu-nbd"
    # What has contents of the base itself is written to with it.
    qemu-img create -q -f qcow2 -o data_file=data.img,data_file_raw=on split.qcow2 1M
    qemu-img create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 1M
    for base in split.qcow2 flat.vmdk; do
        contents=data.img
        [ "$base" = split.qcow2 ] || contents=flat-flat.vmdk
        make "on-$base" "$base" "${base#*.}"
        disk="$(read_of "on-$base.add-cow")"
        start_server sock addcow "on-$base.add-cow"
        if qemu-io -f raw -c 'write -q 0 512' "$contents" >out 2>&1; then fail "QEMU wrote to $contents"; fi
        stop_server "$server_pid"
        addcow commit --dry-run --wait=60 "on-$base.add-cow" >/dev/null
        addcow commit -q --wait=60 "on-$base.add-cow"
        expect_equal "$disk" "$(read_of "on-$base.add-cow")" "the disk on $base"
        empty "on-$base.add-cow"
    done
fi
start_server sock -r addcow other.add-cow
refuses 1 'in use' x.add-cow
stop_server "$server_pid"
start_server sock addcow x.add-cow
refuses 1 'in use' x.add-cow
stop_server "$server_pid"
addcow commit -q x.add-cow
# Who stands on that as well would read other data: it is refused from now on.
expect_fails 1 addcow map other.add-cow
grep -q 'base.img' stderr || fail "$(cat stderr)"

# Three images of one guest, by kill -9 again and again. All read as before, always.
for i in 1 2 3; do
    random_file "b$i.img" 4M
    make "m$i" "b$i.img" raw
    write_to "m$i.add-cow" '-c "write -P 7 1M 2M"'
done
sums() { for i in 1 2 3; do read_of "m$i.add-cow"; done; }
disks="$(sums)"
look_at_commit() {
    local i
    expect_equal "$disks" "$(sums)" "the disks"
    if [ "$1" = "done" ]; then
        for i in 1 2 3; do write_to "m$i.add-cow" '-c "write -P 7 1M 2M"'; done
    fi
}
kill_rounds "${COMMIT_KILLS:-25}" look_at_commit commit -q m1.add-cow m2.add-cow m3.add-cow
expect_equal "3 images committed." "$(addcow commit m1.add-cow m2.add-cow m3.add-cow)" "at last"
expect_equal "$disks" "$(sums)" "the disks in the end"
for i in 1 2 3; do
    # Killed just before it gave back the storage of the last cluster, it has left that.
    addcow check --output=json "m$i.add-cow" >out || [ $? -eq 3 ] || fail "m$i.add-cow is not sound"
    jq -e '."allocated-clusters" == 0 and (.leaks // 0) <= 1' out >/dev/null || fail "m$i: $(cat out)"
    expect_equal "$(sed -n "${i}p" <<<"$disks")" "$(sha "b$i.img")" "base $i"
done
