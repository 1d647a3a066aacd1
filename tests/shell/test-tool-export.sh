#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow export: a qcow2 of what the image file has, on the same base; there and back by
# import; what is refused; killed at any moment.

. "$(dirname "$0")/../functions.sh"
requires jq qemu-img qemu-io qemu-nbd
built_with_sanitizer && skip "qemu-nbd cannot be run under a sanitizer"

write_to() { nbdkit -U - addcow "$1" --run "qemu-io -f raw $2 \"\$uri\"" >/dev/null; }
# layer QCOW2: what it has itself.
layer() {
    qemu-img map -f qcow2 --output=json "$1" |
        jq -c 'map(select(.depth == 0 and .present) | {start, length, zero})'
}

mkdir here there
random_file base.img 2M
addcow create -q -b ../base.img -F raw -i x.raw here/x.add-cow
write_to here/x.add-cow '-c "write -P 5 64k 128k" -c "write -z -u 512k 64k" -c "write -P 6 1984k 64k"'
before="$(cat here/x.add-cow here/x.raw base.img | sha256sum)"
addcow export here/x.add-cow there/x.qcow2 >out
grep -q "^Exported 'here/x.add-cow' as 'there/x.qcow2', fmt=qcow2 size=2097152 .*192 KiB of data and 64 KiB" out ||
    fail "$(cat out)"
expect_equal "$before" "$(cat here/x.add-cow here/x.raw base.img | sha256sum)" "the image"
qemu-img check -q -f qcow2 there/x.qcow2
expect_equal "../base.img raw" "$(qemu-img info --output=json there/x.qcow2 |
    jq -r '"\(."backing-filename") \(."backing-filename-format")"')" "the base"
addcow compare -q here/x.add-cow -F qcow2 there/x.qcow2 || fail "the qcow2 reads another disk"
expect_equal '[{"start":65536,"length":131072,"zero":false},{"start":524288,"length":65536,"zero":true},{"start":2031616,"length":65536,"zero":false}]' \
    "$(layer there/x.qcow2)" "what the qcow2 has"

# There and back: the same extents and the same bytes.
addcow import -q -i back.raw there/x.qcow2 back.add-cow
addcow export -q back.add-cow back.qcow2
expect_equal "$(layer there/x.qcow2)" "$(layer back.qcow2)" "what is there after both ways"
qemu-img compare -q -f qcow2 -F qcow2 there/x.qcow2 back.qcow2 || fail "they differ"

# Parts of clusters, by clusters of 4 KiB.
write_to here/x.add-cow '-c "write -P 7 1000k 4k" -c "write -z -u 1100k 8k"'
addcow export -q --cluster-size=4k here/x.add-cow small.qcow2
addcow compare -q here/x.add-cow -F qcow2 small.qcow2 || fail "clusters of 4k read otherwise"
layer small.qcow2 | jq -e 'contains([{start: 1024000, length: 4096, zero: false}])' >/dev/null ||
    fail "$(layer small.qcow2)"
addcow export -q here/x.add-cow large.qcow2
addcow compare -q here/x.add-cow -F qcow2 large.qcow2 || fail "clusters of 64k read otherwise"

# A disk that ends inside a sector, before its base does; one that is larger than its base.
addcow create -q -b base.img -F raw -s 1000001 -i odd.raw odd.add-cow 2>/dev/null
addcow export --output=json odd.add-cow odd.qcow2 2>stderr |
    jq -e '."virtual-size" == 1000448 and ."backing-filename" == "base.img"' >/dev/null
grep -q 'note: odd.qcow2: the disk gets 447 bytes at its end, which are zero' stderr || fail "$(cat stderr)"
addcow compare -q odd.add-cow -F qcow2 odd.qcow2 || fail "the end is not zero"
nbdkit -U - addcow odd.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"x\" * 101, 999900)"'
addcow export -q --force odd.add-cow odd.qcow2
addcow compare -q odd.add-cow -F qcow2 odd.qcow2 || fail "the end with data is not the same"
addcow create -q -b base.img -F raw -s 3M -i long.raw long.add-cow
write_to long.add-cow '-c "write -P 7 2560k 4k"'
addcow export -q long.add-cow long.qcow2
addcow compare -q long.add-cow -F qcow2 long.qcow2 || fail "past the base's end it is not the same"

# Without a base, and on a qcow2; names.
addcow create -q -i alone.raw -s 1M alone.add-cow
write_to alone.add-cow '-c "write -P 9 300k 4k"'
addcow export -q alone.add-cow alone.qcow2
addcow compare -q alone.add-cow -F qcow2 alone.qcow2 || fail "alone.qcow2 is not the same"
[ "$(used_bytes alone.qcow2)" -le 600000 ] || fail "alone.qcow2 is not sparse"
qemu-img convert -f raw -O qcow2 base.img './b:a,s e.qcow2'
addcow create -q -b 'b:a,s e.qcow2' -F qcow2 -i names.raw names.add-cow
write_to names.add-cow '-c "write -P 9 300k 4k"'
for name in 'a b,c=d%20é.qcow2' "$(printf 'new\nline')" '-x' 'q:r'; do
    addcow export -q -- names.add-cow "./$name"
    addcow compare -q names.add-cow -F qcow2 "$scratch/$name" || fail "'$name' is not the same"
done
chmod 600 alone.raw
addcow export -q --force alone.add-cow alone.qcow2
expect_equal 600 "$(stat -c %a alone.qcow2)" "who may not read the image file may not read its copy"

# What is refused, and that nothing is changed then.
# refuses STATUS PATTERN ARGUMENT...
everything() { find . -type f ! -name std\* -print0 | sort -z | xargs -0 sha256sum; }
refuses() {
    local status="$1" pattern="$2" files
    files="$(everything)"
    shift 2
    expect_fails "$status" addcow export "$@"
    expect_equal 1 "$(wc -l <stderr)" "lines of message for: export $*: $(cat stderr)"
    grep -q -- "$pattern" stderr || fail "export $*: no '$pattern' in: $(cat stderr)"
    expect_equal "$files" "$(everything)" "files after export $*"
}
refuses 64 'FILE.qcow2 is required' alone.add-cow
refuses 64 'must be a power of two, 512 to 2M' --cluster-size=3k alone.add-cow n.qcow2
refuses 1 'already exists (--force replaces a qcow2)' alone.add-cow odd.qcow2
refuses 1 'is not a qcow2, so it is not overwritten' --force alone.add-cow base.img
refuses 1 'is a part of the image' --force alone.add-cow alone.raw
ln -s nowhere.qcow2 dangling.qcow2
refuses 1 'dangling.qcow2: is a symbolic link that leads to no file' --force alone.add-cow dangling.qcow2
# Over a link: that stays, and what it leads to stands on the same base, by either name.
mkdir linked
qemu-img create -q -f qcow2 linked/real.qcow2 1M
ln -s linked/real.qcow2 linked.qcow2
addcow export -q --force names.add-cow linked.qcow2
expect_equal "linked/real.qcow2 $scratch/b:a,s e.qcow2" "$(readlink linked.qcow2) $(qemu-img info --output=json linked/real.qcow2 |
    jq -r '."backing-filename"')" "the link and the base"
for name in linked.qcow2 linked/real.qcow2; do
    addcow compare -q names.add-cow -F qcow2 $name || fail "over a link another disk was made"
done
# On a base that --backing names by a link: QEMU starts from there what that names.
mkdir one two
random_file one/base.img 1M
random_file two/base.img 1M
qemu-img create -q -f qcow2 -F raw -b base.img two/real.qcow2
ln -s ../two/real.qcow2 one/link.qcow2
addcow create -q -b one/link.qcow2 -F qcow2 -i bylink.raw bylink.add-cow
addcow export -q --backing=one/link.qcow2 bylink.add-cow bylink.qcow2
qemu-img compare -q -f qcow2 -F raw bylink.qcow2 one/base.img || fail "on another base than the image"
refuses 1 'is a part of the image' --force names.add-cow './b:a,s e.qcow2'
refuses 1 'No such file' alone.add-cow nowhere/n.qcow2
ln -s gone.qcow2 link.qcow2
refuses 1 'already exists' alone.add-cow link.qcow2
refuses 1 'is a symbolic link that leads to no file' --force alone.add-cow link.qcow2
addcow create -q -b alone.add-cow -F add-cow -i upper.raw upper.add-cow
refuses 1 'is an add-cow image, and QEMU reads none' upper.add-cow upper.qcow2
start_server sock addcow alone.add-cow
refuses 1 'in use' alone.add-cow n.qcow2
stop_server "$server_pid"
coproc writer { qemu-io -f qcow2 odd.qcow2; }
# It answers when it has the file open; qemu-img, to ask, would be in its way.
echo length >&"${writer[1]}"
read -r <&"${writer[0]}"
refuses 1 'in use' --force odd.add-cow odd.qcow2
echo quit >&"${writer[1]}"
wait

# A limit of file sizes, which QEMU inherits and NBD has no word for.
random_file full.raw 4M
addcow create -q -i full.raw full.add-cow 2>/dev/null
for limit in 64 512 2000 4096; do
    files="$(everything)"
    (ulimit -f "$limit" && expect_fails 1 addcow export full.add-cow full.qcow2)
    expect_equal 1 "$(wc -l <stderr)" "lines of message with ulimit -f $limit: $(cat stderr)"
    grep -q "full.qcow2: .*no file of this process can have more than $((limit * 1024)) bytes (ulimit -f)" stderr ||
        fail "ulimit -f $limit: $(cat stderr)"
    expect_equal "$files" "$(everything)" "files after an export with ulimit -f $limit"
done

# A base whose name is not UTF-8: QEMU stands on the same file.
odd=$'b\xffd.img'
if cp base.img "$odd" 2>stderr; then
    addcow create -q -b "$odd" -F raw -i odd-name.raw odd-name.add-cow
    write_to odd-name.add-cow '-c "write -P 9 300k 4k"'
    addcow export -q odd-name.add-cow odd-name.qcow2
    qemu-img convert -f qcow2 -O raw odd-name.qcow2 odd-name.img
    addcow compare -q odd-name.add-cow odd-name.img || fail "odd-name.qcow2 is not the same"
else
    echo "no base whose name is not UTF-8: $(cat stderr)"
fi

# By kill -9 at any moment: the old qcow2 is there, or the new one.
addcow create -q -b base.img -F raw -s 8M -i k.raw k.add-cow
addcow export -q k.add-cow k.qcow2
write_to k.add-cow '-c "write -P 6 64k 7M"'
old="$(sha k.qcow2)"
cp k.qcow2 old.qcow2
image="$(cat k.add-cow k.raw base.img | sha256sum)"
look_at_export() {
    if [ "$(sha k.qcow2)" != "$old" ]; then
        addcow compare -q k.add-cow -F qcow2 k.qcow2 || fail "k.qcow2 is not whole"
        cp old.qcow2 k.qcow2
    elif [ "$1" = "done" ]; then
        fail "it says that it is done"
    fi
    expect_equal "$image" "$(cat k.add-cow k.raw base.img | sha256sum)" "the image after a kill"
}
kill_rounds "${EXPORT_KILLS:-25}" look_at_export export -q --force k.add-cow k.qcow2
rm -f k.qcow2.*.tmp
echo part >k.qcow2.2147483646.tmp
addcow export --force k.add-cow k.qcow2 >out 2>stderr
grep -q 'note: .*/k.qcow2.2147483646.tmp: was left by a command that was killed' stderr || fail "$(cat stderr)"
rm k.qcow2.2147483646.tmp
addcow compare -q k.add-cow -F qcow2 k.qcow2 || fail "k.qcow2 is not the same in the end"
expect_equal "" "$(find . -name '*.tmp')" "what is left behind"

# A qemu-img that hangs is ended by --timeout, which is named, and by a signal at once; and one
# that looks at a base.
hanging_program qemu-img create
expect_fails 1 env PATH="$PWD/hanging:$PATH" "$ADDCOW_RUN" addcow export --timeout=1 k.add-cow h.qcow2
grep -q 'qemu-img: does not end in 1 s (--timeout=SECONDS gives it more)$' stderr || fail "$(cat stderr)"
hanging_program qemu-img create
ended_by_signal export k.add-cow h.qcow2
expect_equal "" "$(find . -name 'h.qcow2*')" "what is left behind"
hanging_program qemu-img info
ended_by_signal compare k.add-cow -F qcow2 k.qcow2

# What has all clusters stands on nothing any more, whatever its header names; and the base that
# it had is not what is exported to.
mkdir flat
(
    cd flat
    random_file base.img 1M
    qemu-img convert -f raw -O qcow2 base.img base.qcow2
    addcow create -q -b base.qcow2 -F qcow2 -i x.raw x.add-cow
    addcow flatten -q x.add-cow
    mv base.qcow2 away.qcow2
    addcow export -q x.add-cow out.qcow2
    expect_equal null "$(qemu-img info --output=json out.qcow2 | jq -r '."backing-filename"')" "no backing file"
    addcow compare -q x.add-cow -F qcow2 out.qcow2
    addcow export -q --lock=off x.add-cow unlocked.qcow2
    addcow compare -q x.add-cow -F qcow2 unlocked.qcow2
)
