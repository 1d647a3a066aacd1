#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow import: what a qcow2 overlay holds, on the same base, whatever the names are; what
# is refused and what --force leaves out; killed at any moment.

. "$(dirname "$0")/../functions.sh"
requires jq qemu-img qemu-io qemu-nbd
built_with_sanitizer && skip "qemu-nbd cannot be run under a sanitizer"

# same X QCOW2: both read the same, and X is sound.
same() {
    addcow compare -q "$1" -F qcow2 "$2" || fail "$1 and $2 differ"
    addcow check -q "$1" || fail "$1 is not sound"
}
# has X: what its image file has, in clusters of 64 KiB: start+length of data and of zeroes.
has() {
    addcow map --output=json "$1" |
        jq -r '.[] | select(.depth == 0 and .present) |
            "\(.start / 65536)+\(.length / 65536)\(if .zero then "z" else "" end)"' | xargs
}
# overlay FILE BASE [OPTION...]: 2 MiB of a qcow2 with data, zeroes, and data past the base.
overlay() {
    qemu-img create -q -f qcow2 -b "$2" -F raw "${@:3}" "$1" 2M
    qemu-io -f qcow2 -c 'write -P 5 100k 10k' -c 'write -z 512k 64k' -c 'write -P 4 1500k 64k' \
        "$1" >/dev/null
}

mkdir qcow2 here
random_file base.img 1000000
overlay qcow2/o.qcow2 ../base.img
before="$(sha qcow2/o.qcow2)$(sha base.img)"
addcow import -i disk.raw qcow2/o.qcow2 here/x.add-cow >out
grep -q "^Imported 'qcow2/o.qcow2' as 'here/x.add-cow', size=2097152" out || fail "$(cat out)"
same here/x.add-cow qcow2/o.qcow2
expect_equal "1+1 8+1z 23+2" "$(has here/x.add-cow)" "what the image file has"
expect_equal "$before" "$(sha qcow2/o.qcow2)$(sha base.img)" "the qcow2 and its base"
[ "$(used_bytes here/disk.raw)" -le 300000 ] || fail "the image file is not sparse"
info() { addcow info --output=json "$1" | jq -r ".\"$2\""; }
expect_equal "../base.img raw" \
    "$(info here/x.add-cow backing-filename) $(info here/x.add-cow backing-filename-format)" "base"

# From here, the same name; an absolute one; a base of another format; none at all.
overlay o.qcow2 "$scratch/base.img"
addcow import -q -i abs.raw o.qcow2 here/abs.add-cow
expect_equal "$scratch/base.img" "$(info here/abs.add-cow backing-filename)" "an absolute name"
same here/abs.add-cow o.qcow2
qemu-img convert -f raw -O qcow2 base.img base.qcow2
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 two.qcow2
qemu-io -f qcow2 -c 'write -P 9 300k 4k' two.qcow2 >/dev/null
addcow import -q --cluster-size=4k -i two.raw two.qcow2 two.add-cow
same two.add-cow two.qcow2
expect_equal "qcow2" "$(info two.add-cow backing-filename-format)" "format of the base"
qemu-img create -q -f qcow2 alone.qcow2 1000001
qemu-io -f qcow2 -c 'write -P 9 300k 4k' alone.qcow2 >/dev/null
addcow import --output=json -i alone.raw alone.qcow2 alone.add-cow |
    jq -e '."virtual-size" == 1000448 and .data == 65536 and ."left-out" == []' >/dev/null
same alone.add-cow alone.qcow2

# Clusters of the qcow2 that are smaller than any of ours; and larger ones.
overlay small.qcow2 base.img -o cluster_size=512
qemu-io -f qcow2 -c 'write -P 8 999936 512' -c 'write -z 20k 1k' small.qcow2 >/dev/null
for options in "" --subclusters=off --cluster-size=2M "--cluster-size=4k"; do
    # shellcheck disable=SC2086 # words
    addcow import -q $options -i "small$options.raw" small.qcow2 "small$options.add-cow"
    same "small$options.add-cow" small.qcow2
done
overlay large.qcow2 base.img -o cluster_size=2M,extended_l2=on
addcow import -q -i large.raw large.qcow2 large.add-cow
same large.add-cow large.qcow2

# By a link: what it stands on is found from there, as QEMU finds it.
mkdir one two
random_file one/base.img 1000000
random_file two/base.img 1000000
overlay two/real.qcow2 base.img
ln -s ../two/real.qcow2 one/link.qcow2
addcow import -q -i link.raw one/link.qcow2 link.add-cow
expect_equal one/base.img "$(info link.add-cow backing-filename)" "the base of a link"
same link.add-cow one/link.qcow2
qemu-img convert -O raw one/link.qcow2 by-qemu.raw
addcow compare -q link.add-cow by-qemu.raw 2>/dev/null || fail "QEMU reads another disk"

# Odd names.
for name in 'a b,c=d%20é' "$(printf 'new\nline')" '-x' 'q:r'; do
    overlay "./$name.qcow2" "./base.img"
    addcow import -q -i "./$name.raw" -- "./$name.qcow2" "./$name.add-cow"
    same "./$name.add-cow" "$scratch/$name.qcow2"
done
cp base.img 'ba:se,1.img'
overlay odd.qcow2 './ba:se,1.img'
addcow import -q -i odd.raw odd.qcow2 here/odd.add-cow
same here/odd.add-cow odd.qcow2

# What is refused, and that nothing is made then.
# refuses STATUS PATTERN ARGUMENT...
refuses() {
    local status="$1" pattern="$2" files
    files="$(find . -type f ! -name std\* | sort)"
    shift 2
    expect_fails "$status" addcow import "$@"
    expect_equal 1 "$(wc -l <stderr)" "lines of message for: import $*: $(cat stderr)"
    grep -q -- "$pattern" stderr || fail "import $*: no '$pattern' in: $(cat stderr)"
    expect_equal "$files" "$(find . -type f ! -name std\* | sort)" "files after import $*"
}
refuses 64 '-i IMAGE is required' o.qcow2 n.add-cow
refuses 64 'X.add-cow is required' -i n.raw o.qcow2
refuses 64 'needs --force' --discard -i n.raw o.qcow2 n.add-cow
refuses 1 'already exists (--force replaces' -i n.raw o.qcow2 alone.add-cow
refuses 1 'has data in .*would be lost' --force -i n.raw o.qcow2 two.add-cow
refuses 1 'is not an add-cow file' --force -i n.raw o.qcow2 two.qcow2
refuses 1 'already exists, and a new image file is made here' -i alone.raw o.qcow2 n.add-cow
refuses 1 'already exists, and a new image file is made here' -i o.qcow2 o.qcow2 n.add-cow
refuses 1 'No such file' -i n.raw nothing.qcow2 n.add-cow
refuses 1 'not in qcow2 format' -i n.raw base.img n.add-cow
refuses 1 "is raw, not qcow2 (leave out -F" -F qcow2 -i n.raw o.qcow2 n.add-cow
refuses 1 'has no backing file, so' -F raw -i n.raw alone.qcow2 n.add-cow
addcow import -q --force --discard -i two2.raw two.qcow2 two.add-cow
same two.add-cow two.qcow2

# Over a link: that stays, and what it leads to is on the base of the qcow2.
mkdir -p deep/er
addcow create -q -b ../../base.img -F raw -i old.raw deep/er/real.add-cow
ln -s deep/er/real.add-cow linked.add-cow
refuses 1 'already exists (--force replaces' -i new.raw qcow2/o.qcow2 linked.add-cow
# A file that another relative name would lead to.
mkdir -p deep/qcow2 && random_file deep/base.img 1000000
addcow import -q --force -i new.raw qcow2/o.qcow2 linked.add-cow
expect_equal deep/er/real.add-cow "$(readlink linked.add-cow)" "the link"
expect_equal ../../base.img "$(info deep/er/real.add-cow backing-filename)" "the base from where the file is"
if [ ! -e deep/er/new.raw ] || [ -e new.raw ]; then fail "the image file is not beside the add-cow file"; fi
same linked.add-cow qcow2/o.qcow2
ln -s nowhere.add-cow dangling.add-cow
refuses 1 'is a symbolic link that leads to no file' --force -i d.raw o.qcow2 dangling.add-cow
expect_equal "" "$(find . -name '*.tmp')" "what is left behind"

# No format is guessed: not even where the qcow2's own tools would.
qemu-img create -q -f qcow2 -b base.img -F raw noformat.qcow2
python3 - noformat.qcow2 <<'END'
import struct
import sys
# Takes the header extension with the format (0xe2792aca) out of the qcow2.
with open(sys.argv[1], "r+b") as file:
    data = bytearray(file.read(4096))
    at = data.index(struct.pack(">I", 0xe2792aca))
    data[at:at + 4] = b"\x12\x34\x56\x78"
    file.seek(0)
    file.write(data)
END
refuses 1 "without saying its format.*-F FORMAT.*qemu-img rebase -u -F" -i n.raw noformat.qcow2 n.add-cow
addcow import -q -F raw -i n.raw noformat.qcow2 n.add-cow
addcow compare -q n.add-cow base.img 2>/dev/null || fail "n.add-cow is another disk than its base"
expect_equal "raw" "$(info n.add-cow backing-filename-format)" "the format that was given"

# A base that is not there; one that is no file.
overlay lost.qcow2 base.img
qemu-img rebase -u -f qcow2 -b gone.img -F raw lost.qcow2
refuses 1 'stands on .*/gone.img, which cannot be opened: No such file' -i m.raw lost.qcow2 m.add-cow
qemu-img rebase -u -f qcow2 -b 'json:{"driver":"raw","file":{"driver":"file","filename":"base.img"}}' -F raw lost.qcow2
refuses 1 'which is no file, nor an NBD URI' -i m.raw lost.qcow2 m.add-cow

# A name that qemu-img cannot tell; another file has the one that it prints.
odd=$'b\xffd.img'
if cp base.img "$odd" 2>stderr; then
    qemu-img create -q -f qcow2 -b "$odd" -F raw odd-base.qcow2
    refuses 1 'whose real name is not UTF-8' -i ob.raw odd-base.qcow2 ob.add-cow
    random_file $'b\xef\xbf\xbdd.img' 1000000
    refuses 1 'whose real name is not UTF-8' --force -i ob.raw odd-base.qcow2 ob.add-cow
    qemu-img create -q -f qcow2 -b odd-base.qcow2 -F qcow2 top.qcow2
    expect_fails 1 addcow create -b top.qcow2 -F qcow2 -i ob.raw ob.add-cow
    grep -q 'odd-base.qcow2: names .*whose real name is not UTF-8' stderr || fail "$(cat stderr)"
    [ ! -e ob.raw ] || fail "ob.raw was made"
else
    echo "no base whose name is not UTF-8: $(cat stderr)"
fi

# What would be lost is said first.
cp o.qcow2 extras.qcow2
qemu-img snapshot -c one extras.qcow2
qemu-img bitmap --add extras.qcow2 marks
refuses 1 'has 1 internal snapshot, 1 bitmap, which an add-cow image cannot have (--force' -i e.raw extras.qcow2 e.add-cow
addcow import --force -i e.raw extras.qcow2 e.add-cow >out 2>stderr
grep -q 'note: extras.qcow2: left out: 1 bitmap' stderr || fail "$(cat stderr)"
same e.add-cow extras.qcow2
qemu-img convert -c -f raw -O qcow2 base.img packed.qcow2
refuses 1 'packed.qcow2: has [1-9][0-9]* bytes of the disk compressed, which take their whole size.*--force copies' -i p.raw packed.qcow2 p.add-cow
addcow import --force --output=json -i p.raw packed.qcow2 p.add-cow >json 2>stderr
jq -e '."left-out" == [] and .uncompressed > 0' json >/dev/null || fail "$(cat json)"
grep -q 'note: packed.qcow2: [1-9][0-9]* bytes that are compressed there take their whole size' stderr || fail "$(cat stderr)"
! grep -q 'left out' stderr || fail "nothing is left out: $(cat stderr)"
same p.add-cow packed.qcow2
qemu-img create -q -f qcow2 -o data_file=data.raw,data_file_raw=on split.qcow2 1M
qemu-io -f qcow2 -c 'write -P 9 300k 4k' split.qcow2 >/dev/null
refuses 1 'data in another file' -i s.raw split.qcow2 s.add-cow
addcow import -q --force -i s.raw split.qcow2 s.add-cow
same s.add-cow split.qcow2
if qemu-img create -q -f qcow2 --object secret,id=s,data=abc \
    -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 secret.qcow2 1M; then
    refuses 1 'is encrypted, and cannot be read here' --force -i s2.raw secret.qcow2 s2.add-cow
else
    echo "no encrypted qcow2: this qemu-img cannot make one"
fi

# One that is being written to; --wait waits for its end.
coproc writer { qemu-io -f qcow2 o.qcow2; }
# It answers when it has the file open; qemu-img, to ask, would be in its way.
echo length >&"${writer[1]}"
read -r <&"${writer[0]}"
refuses 1 'is in use by another program that may write to it' -i u.raw o.qcow2 u.add-cow
addcow import -q --wait=60 -i u.raw o.qcow2 u.add-cow &
waiting=$!
sleep 0.5
echo quit >&"${writer[1]}"
wait "$waiting" || fail "it did not wait"
same u.add-cow o.qcow2

# A qemu-img that hangs is ended by --timeout, which is named, and by a signal at once, and so is
# one that maps an image, which may take as long as it likes.
hanging_program qemu-img info
expect_fails 1 env PATH="$PWD/hanging:$PATH" "$ADDCOW_RUN" addcow import --timeout=1 -i h.raw o.qcow2 h.add-cow
grep -q 'o.qcow2: qemu-img: does not end in 1 s (--timeout=SECONDS gives it more)$' stderr || fail "$(cat stderr)"
hanging_program qemu-img info
ended_by_signal import -i h.raw o.qcow2 h.add-cow
hanging_program qemu-img map
ended_by_signal import --timeout=1 -i h.raw o.qcow2 h.add-cow
expect_equal "" "$(find . -name 'h.*')" "what is left behind"

# By kill -9 at any moment: X is there, whole, or not at all; run again.
random_file big.img 8M
qemu-img create -q -f qcow2 -b big.img -F raw big.qcow2
qemu-io -f qcow2 -c 'write -P 6 64k 7M' big.qcow2 >/dev/null
look_at_import() {
    if [ -e k.add-cow ]; then
        same k.add-cow big.qcow2
    elif [ "$1" = "done" ]; then
        fail "it says that it is done"
    elif [ -e k.raw ]; then
        cmp -n 7340032 -i 65536:0 k.raw <(head -c 7340032 /dev/zero | tr '\0' '\6') ||
            fail "k.raw is not whole"
    fi
    rm -f k.add-cow k.raw
}
kill_rounds "${IMPORT_KILLS:-25}" look_at_import import -q -i k.raw big.qcow2 k.add-cow
# What they have left is said, and so is what only one of them can have left: no process has
# such a number.
rm -f k.raw.*.tmp k.add-cow.*.tmp
echo part >k.raw.2147483646.tmp
echo mine >k.raw.tmp
echo mine >"k.raw.$$.tmp"
addcow import -i k.raw big.qcow2 k.add-cow >out 2>stderr
expect_equal 1 "$(grep -c 'was left by a command that was killed' stderr)" "notes: $(cat stderr)"
grep -q 'note: .*/k.raw.2147483646.tmp: was left by a command that was killed' stderr || fail "$(cat stderr)"
expect_equal part "$(cat k.raw.2147483646.tmp)" "what nobody has removed"
rm -f k.raw.2147483646.tmp k.raw.tmp "k.raw.$$.tmp"
same k.add-cow big.qcow2
expect_equal "" "$(find . -name '*.tmp')" "what is left behind"

# A block device is no file that somebody could remove.
truncate -s 1M device.img
if device="$(losetup -f --show device.img 2>stderr)"; then
    at_exit "losetup -d '$device'"
    expect_fails 1 addcow import -i "$device" o.qcow2 device.add-cow
    grep -q "$device: is a block device, and a new image file is made here (give the name of a file with -i)" stderr ||
        fail "$(cat stderr)"
else
    echo "no block device: $(cat stderr)"
fi

# Who may not read the qcow2 may not read what it held.
mkdir rights
(cd rights && random_file base.img 1M && chmod 644 base.img && umask 022 &&
    overlay o.qcow2 base.img && chmod 600 o.qcow2 &&
    addcow import -q -i o.raw o.qcow2 o.add-cow &&
    expect_equal 600 "$(stat -c %a o.raw)" "rights of what came from a private overlay" &&
    qemu-img create -q -f qcow2 alone.qcow2 1M && chmod 640 alone.qcow2 &&
    addcow import -q -i alone.raw alone.qcow2 alone.add-cow &&
    expect_equal 640 "$(stat -c %a alone.raw)" "rights of what came from one without a base")
