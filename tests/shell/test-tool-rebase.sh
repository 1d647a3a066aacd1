#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow rebase: with -u, an image whose files were moved or copied is what it was; without,
# the disk reads the same on another base; what cannot be right is refused; usage. A kill at any
# moment leaves the old header or the new one.

. "$(dirname "$0")/../functions.sh"
requires jq nbdcopy qemu-io

served() { nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" - | sha256sum'; }
info() { addcow info --output=json x.add-cow 2>/dev/null | jq -r ".\"$1\""; }

random_file base.img 1M
addcow create -q -b base.img -F raw -i disk.raw -s 2M x.add-cow
nbdkit -U - addcow x.add-cow --run 'qemu-io -f raw -c "write -P 5 100k 300k" "$uri"' >/dev/null
disk="$(served)"
chmod 640 x.add-cow

mkdir bases
mv base.img bases/golden.img
addcow rebase -u -b bases/golden.img -F raw x.add-cow >/dev/null
expect_equal bases/golden.img "$(info backing-filename)" "the new name"
expect_equal "$disk" "$(served)" "the disk with a base that was moved"
mv disk.raw moved.raw
addcow rebase -u -i moved.raw x.add-cow >out
grep -q 'image_file=moved.raw' out || fail "$(cat out)"
expect_equal "$disk" "$(served)" "the disk with an image file that was moved"
expect_equal 640 "$(stat -c %a x.add-cow)" "permissions"
addcow check x.add-cow >/dev/null
mv moved.raw disk.raw
mv bases/golden.img base.img
addcow rebase -u -q -b base.img -F raw -i disk.raw x.add-cow >out
[ ! -s out ] || fail "-q prints: $(cat out)"
expect_equal "$disk" "$(served)" "both at once"

# refuses STATUS PATTERN ARGUMENT...: and changes nothing.
refuses() {
    local status="$1" pattern="$2" before
    shift 2
    before="$(sha x.add-cow)$(ls -A)"
    expect_fails "$status" addcow rebase "$@" x.add-cow
    expect_equal 1 "$(wc -l <stderr)" "lines of message for: rebase $*: $(cat stderr)"
    grep -q -- "$pattern" stderr || fail "rebase $*: no '$pattern' in: $(cat stderr)"
    expect_equal "$before" "$(sha x.add-cow)$(ls -A)" "after rebase $*"
}
touch stdout stderr
truncate -s 1M short.raw
truncate -s 0 empty.img
refuses 64 'it needs -u' -i disk.raw
refuses 64 '-F FORMAT needs the name' -b '' -F raw
refuses 1 'still needs its backing file base.img' -u -b ''
refuses 64 'is required' -u
refuses 64 '-b needs -F' -u -b base.img
refuses 64 '-F FORMAT needs -b' -u -F raw -i disk.raw
refuses 1 "backing format 'luks'" -u -b base.img -F luks
refuses 1 'none.img: not found' -u -b none.img -F raw
refuses 1 'empty.img: the backing file is empty' -u -b empty.img -F raw
refuses 1 'different files' -u -b disk.raw -F raw
refuses 1 'short.raw: has 1048576 bytes, but the image file so far' -u -i short.raw
refuses 1 'none.raw: not found' -u -i none.raw
# The other name would keep the old file, and spoil the image file.
ln x.add-cow second.add-cow
cp base.img same.img
for how in '' -u; do
    # shellcheck disable=SC2086 # none or one
    refuses 1 'x.add-cow: has 2 names (hard links)' $how -b same.img -F raw
done
refuses 1 'x.add-cow: has 2 names (hard links)' -b ''
expect_fails 1 addcow upgrade x.add-cow
grep -q 'x.add-cow: has 2 names (hard links)' stderr || fail "$(cat stderr)"
[ x.add-cow -ef second.add-cow ] || fail "it has one name only"
# In place: both are the same disk after it.
addcow resize -q x.add-cow +64k
[ x.add-cow -ef second.add-cow ] || fail "resize made another file"
addcow resize -q --shrink x.add-cow 2M
rm second.add-cow same.img
# Another disk's, which the next write would destroy.
addcow create -q -b base.img -F raw -i vm02.raw -s 2M vm02.add-cow
nbdkit -U - addcow vm02.add-cow --run 'qemu-io -f raw -c "write -P 6 1536k 64k" "$uri"' >/dev/null
refuses 1 'vm02.raw: holds data in 1 cluster where nothing is allocated: perhaps another' -u -i vm02.raw

# Without -u the disk stays what it is, whatever the new base holds.
random_file new.img 1500000
dd if=base.img of=new.img bs=64k count=8 conv=notrunc status=none
mv base.img away.img
refuses 1 'if it was moved, say addcow rebase -u -b FILE -F raw .*x.add-cow' -b new.img -F raw
mv away.img base.img
# The names of newer QEMU. The disk stays, so nothing is said of what the other base holds.
addcow rebase -b new.img -B raw x.add-cow 2>stderr
if grep -q 'does not hold\|what is missing' stderr; then fail "$(cat stderr)"; fi
expect_equal new.img "$(info backing-filename)" "the new name"
addcow rebase --backing-unsafe -b base.img -B raw x.add-cow 2>stderr
grep -q 'has 1048576 bytes, and the backing file so far had 1500000' stderr || fail "$(cat stderr)"
addcow rebase -u -q -b new.img -F raw x.add-cow
expect_equal "$disk" "$(served)" "the disk"
mv base.img away.img
expect_equal "$disk" "$(served)" "the disk on another base"
addcow check -q x.add-cow
addcow rebase -q -b '' x.add-cow
mv new.img gone.img
expect_equal "null" "$(info backing-filename)" "no name"
expect_equal "$disk" "$(served)" "the disk on no base"
mv away.img base.img
addcow rebase -q -b base.img -F raw x.add-cow
expect_equal "$disk" "$(served)" "the disk on a base again"

# By kill -9, again and again: its header is one of the two.
ln base.img copy.img
look_at_names() {
    case "$1 $(info backing-filename)" in
    "done copy.img" | "killed copy.img" | "killed base.img") ;;
    *) fail "after it was $1 the base is '$(info backing-filename)'" ;;
    esac
    addcow rebase -u -q -b base.img -F raw x.add-cow
}
kill_rounds 25 look_at_names rebase -u -q -b copy.img -F raw x.add-cow
expect_equal "$disk" "$(served)" "the disk after kills"

# The same of its data, most of which has to be copied; what was killed goes on where it was.
random_file base.img 24M
random_file new.img 24M
rm x.add-cow disk.raw
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
nbdkit -U - addcow x.add-cow --run 'qemu-io -f raw -c "write -P 5 1000k 9M" "$uri"' >/dev/null
disk="$(served)"
cp x.add-cow before.add-cow
cp --sparse=always disk.raw before.raw
look_at_data() {
    expect_equal "$disk" "$(served)" "the disk"
    [ "$1" = killed ] || expect_equal new.img "$(info backing-filename)" "the name when it is done"
    [ "$(info backing-filename)" = base.img ] || {
        cp before.add-cow x.add-cow
        cp --sparse=always before.raw disk.raw
    }
}
kill_rounds "${REBASE_KILLS:-25}" look_at_data rebase -q -b new.img -F raw x.add-cow
addcow rebase -q -b new.img -F raw x.add-cow
rm base.img
expect_equal "$disk" "$(served)" "the disk on the new base after kills"
