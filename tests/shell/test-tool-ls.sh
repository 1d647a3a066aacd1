#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow ls: which images are below a folder, what stands on what, and what is said of what is
# broken, in a circle, or cannot be read.

. "$(dirname "$0")/../functions.sh"
requires jq

names() { jq -r '.[].filename' | sort | xargs; }
# overlays_of FILE: by the end of its name, with --bases.
overlays_of() {
    addcow ls --bases --output=json vm 2>/dev/null |
        jq -r ".[] | select(.filename | endswith(\"$1\")) | .overlays | sort | .[]" | xargs
}

mkdir -p vm/deep/er elsewhere
random_file base.img 1M
addcow create -q -b ../base.img -F raw -i lower.raw vm/lower.add-cow
addcow create -q -b ../lower.add-cow -F add-cow -i upper.raw vm/deep/upper.add-cow
addcow create -q -b "$scratch/base.img" -F raw -i other.raw vm/deep/er/other-name
addcow create -q -i alone.raw -s 2M vm/alone.add-cow
addcow create -q -b ../vm/alone.add-cow -F add-cow -i e.raw elsewhere/e.add-cow
ln -s ../elsewhere vm/link
ln -s lower.add-cow vm/link.add-cow
mkfifo vm/fifo
before="$(find vm -type f -print0 | sort -z | xargs -0 sha256sum)"

addcow ls --output=json vm >json
expect_equal "vm/alone.add-cow vm/deep/er/other-name vm/deep/upper.add-cow vm/lower.add-cow" \
    "$(names <json)" "what is found"
jq -e '.[] | select(.filename == "vm/alone.add-cow") |
    ."virtual-size" == 2097152 and ."in-use" == "no" and (has("overlays") | not)' json >/dev/null ||
    fail "$(cat json)"
addcow ls vm >out
grep -q '^1 MiB .* no .* vm/deep/upper.add-cow on .*lower.add-cow (add-cow)$' out || fail "$(cat out)"
expect_equal 5 "$(wc -l <out)" "lines of the table"
expect_equal "alone.add-cow lower.add-cow" \
    "$(cd vm && addcow ls --output=json | names | tr ' ' '\n' | grep -v / | xargs)" "of the working directory"
expect_equal "[]" "$(mkdir empty && addcow ls --output=json empty)" "an empty folder"

# Two names of one base are one base.
expect_equal "vm/deep/er/other-name vm/lower.add-cow" "$(overlays_of base.img)" "on base.img"
expect_equal "vm/deep/upper.add-cow" "$(overlays_of vm/lower.add-cow)" "on lower.add-cow"
expect_equal "" "$(overlays_of upper.add-cow)" "on upper.add-cow"
addcow ls --bases vm >out
sed -n '/Nothing below vm needs these; overlays elsewhere are not seen:/,$p' out >free
expect_equal "vm/alone.add-cow vm/deep/er/other-name vm/deep/upper.add-cow" \
    "$(tail -n +2 free | sort | xargs)" "what is free"
grep -q '^ \{8\}vm/deep/upper.add-cow: 1 MiB' out || fail "no tree: $(cat out)"
# What stands below the folder on an image outside of it is seen, and that is no image of it.
addcow ls --bases --output=json elsewhere |
    jq -e '.[] | select(.filename | endswith("alone.add-cow")) |
        .below == false and .overlays == ["elsewhere/e.add-cow"]' >/dev/null
expect_equal "$before" "$(find vm -type f -print0 | sort -z | xargs -0 sha256sum)" "what ls leaves"

# An image file can be a base by itself, and be that of two add-cow files: such an image is not
# free. free_in DIR: in JSON, and for people.
free_in() {
    local in_json
    addcow ls --bases "$1" >out
    addcow ls --bases --output=json "$1" >json
    in_json="$(jq -r '.[] | select(.free) | .filename' json | sort | xargs)"
    expect_equal "$in_json" "$(sed '1,/needs these; overlays/d' out | sort | xargs)" "free for people"
    expect_equal "" "$(jq -r '.[] | select(.free and (.overlays != [] or has("image-shared-with"))) | .filename' json)" \
        "free, and needed"
    echo "$in_json"
}
mkdir images
addcow create -q -b ../base.img -F raw -i a.raw images/a.add-cow
addcow flatten -q images/a.add-cow
ln -s a.raw images/link.raw
addcow create -q -b link.raw -F raw -i b.raw images/b.add-cow
expect_equal images/b.add-cow "$(free_in images)" "free beside an image file that is a base"
jq -e '.[] | select(.filename == "images/a.add-cow") | .free == false and
    .overlays == ["images/b.add-cow"] and ."image-overlays" == .overlays' json >/dev/null || fail "$(cat json)"
grep -q '^    images/a.add-cow: its image file .*/images/a.raw is what images/b.add-cow stands on$' out || fail "$(cat out)"
grep -q '/images/link.raw (raw), the image file of images/a.add-cow$' out || fail "$(cat out)"
cp images/b.add-cow images/copy
expect_equal "" "$(free_in images)" "free of two with one image file"
jq -e '.[] | select(.filename == "images/copy") | .free == false and .overlays == [] and
    ."image-shared-with" == ["images/b.add-cow"]' json >/dev/null || fail "$(cat json)"
grep -q '^    images/copy: its image file .*/images/b.raw is also that of images/b.add-cow$' out || fail "$(cat out)"
rm images/copy
# Another part of the disk is in its base.
addcow create -q -b ../base.img -F raw -i part.raw images/part.add-cow
addcow rebase -q -u -b part.raw -F raw images/b.add-cow
expect_equal "images/a.add-cow images/b.add-cow" "$(free_in images)" "free after a rebase"
grep -q 'images/part.raw is what images/b.add-cow stands on, and has a part of the disk only$' out || fail "$(cat out)"

# Bases that are leaves: a URI, which nobody asks, and another format.
addcow create -q -b base.img -F raw -i u.raw elsewhere/u.add-cow 2>/dev/null ||
    addcow create -q -b ../base.img -F raw -i u.raw elsewhere/u.add-cow
start_server sock -r file base.img
addcow rebase -q -u -b "$(uri sock)" -F raw elsewhere/u.add-cow
# Another spelling of the same.
cp elsewhere/u.add-cow elsewhere/v.add-cow
addcow rebase -q -u -b "nbd+unix:///?socket=$(realpath sock | sed 's,/,%2F,g')" -F raw elsewhere/v.add-cow
stop_server "$server_pid"
addcow ls --bases --output=json elsewhere |
    jq -e '.[] | select(.filename | startswith("nbd+unix:")) |
        .overlays == ["elsewhere/u.add-cow", "elsewhere/v.add-cow"]' >/dev/null ||
    fail "two spellings of a URI: $(addcow ls --bases elsewhere)"

# A second name of a file is not hidden; in another directory, from which other names start, it
# is another image, which lacks its files.
ln vm/lower.add-cow vm/second.add-cow
addcow ls vm >out
grep -q ' vm/lower.add-cow = vm/second.add-cow on ' out || fail "$(cat out)"
addcow ls --bases vm | has ' vm/lower.add-cow = vm/second.add-cow: 1 MiB' ||
    fail "not in the tree: $(addcow ls --bases vm)"
addcow ls --output=json vm | jq -e '.[] | select(.filename == "vm/lower.add-cow") |
    ."other-filenames" == ["vm/second.add-cow"]' >/dev/null || fail "not in JSON"
mv vm/second.add-cow vm/deep/second.add-cow
expect_fails 1 addcow ls vm
grep -q '^1 MiB .* vm/lower.add-cow on ' stdout || fail "$(cat stdout)"
grep -q '^? .* vm/deep/second.add-cow$' stdout || fail "$(cat stdout)"
rm vm/deep/second.add-cow
addcow ls --output=json vm | jq -e 'all(has("other-filenames") | not)' >/dev/null

# A name that is not UTF-8 can be told from others.
odd=$'elsewhere/w\xff.add-cow'
if cp elsewhere/e.add-cow "$odd" 2>stderr; then
    addcow ls --bases --output=json elsewhere |
        jq -j '.[] | select(.filename | endswith("alone.add-cow")) | ."overlays-base64"[1]' | base64 -d >name
    printf '%s' "$odd" | cmp - name || fail "overlays-base64 has not the name"
    rm "$odd"
else
    echo "no name that is not UTF-8: $(cat stderr)"
fi
addcow ls --bases --output=json elsewhere | jq -e 'all(has("overlays-base64") | not)' >/dev/null

# In use.
start_server sock addcow vm/alone.add-cow
expect_equal writing "$(addcow ls --output=json vm |
    jq -r '.[] | select(.filename == "vm/alone.add-cow")."in-use"')" "use by a server"
stop_server "$server_pid"

# What cannot be looked at is said, the rest is printed, and nothing is called free.
# complains PATTERN ARGUMENT...
complains() {
    local pattern="$1"
    shift
    expect_fails 1 addcow ls "$@"
    grep -q -- "$pattern" stderr || fail "ls $*: no '$pattern' in: $(cat stderr)"
}
touch stdout stderr
mv base.img gone.img
complains 'base.img: No such file' --bases vm
addcow ls vm >/dev/null || fail "without --bases a base is not looked for"
mv gone.img base.img
head -c 100 vm/alone.add-cow >vm/broken.add-cow
complains 'vm/broken.add-cow' vm
grep -q '^? .* vm/broken.add-cow$' stdout || fail "$(cat stdout)"
grep -q 'vm/lower.add-cow' stdout || fail "the rest is not printed"
complains 'vm/broken.add-cow' --bases vm
grep -q 'nothing is said to be free' stdout || fail "$(cat stdout)"
# Nor in JSON: what is not known may stand on it.
expect_fails 1 addcow ls --bases --output=json vm
jq -e '[.[] | select(.overlays == [] or .free)] == []' stdout >/dev/null || fail "free: $(cat stdout)"
jq -e '.[] | select(.filename == "vm/alone.add-cow") | has("overlays") and .overlays == null' stdout >/dev/null ||
    fail "$(cat stdout)"
expect_fails 1 addcow ls --output=json vm
jq -e '.[] | select(.filename == "vm/broken.add-cow").error | length > 0' stdout >/dev/null ||
    fail "no error in JSON: $(cat stdout)"
rm vm/broken.add-cow
# What a killed command has left half made is no image, and who is at work has one.
cp vm/alone.add-cow vm/alone.add-cow.2147483646.tmp
cp vm/alone.add-cow "vm/alone.add-cow.$$.tmp"
listed="$(addcow ls --output=json vm 2>stderr | names)"
expect_equal "vm/alone.add-cow vm/deep/er/other-name vm/deep/upper.add-cow vm/lower.add-cow" "$listed" \
    "what is found beside what is left"
grep -q 'note: vm/alone.add-cow.2147483646.tmp: was left by a command that was killed' stderr || fail "$(cat stderr)"
expect_equal 1 "$(wc -l <stderr)" "notes: $(cat stderr)"
rm vm/alone.add-cow.*.tmp
# The remedy is a command of this program.
mv vm/alone.raw moved.raw
expect_fails 1 addcow ls vm
grep -q 'alone.raw: not found, .* (if it was moved, say addcow rebase -u -i FILE .*vm/alone.add-cow)' stderr || fail "$(cat stderr)"
mv moved.raw vm/alone.raw
complains 'No such file' nothing
complains "addcow: '': is not the name of a directory" ''
expect_fails 64 addcow ls . .
grep -qF "'.' was not expected, one directory is enough" stderr || fail "$(cat stderr)"
if [ "$(id -u)" -ne 0 ]; then
    mkdir vm/closed && chmod 0 vm/closed
    complains 'vm/closed: Permission denied' vm
    chmod 700 vm/closed && rmdir vm/closed
else
    echo "no unreadable folder: root reads all"
fi

# Two images that stand on each other, as nobody but an editor of headers can make them.
mkdir circle
addcow create -q -b ../base.img -F raw -i a.raw circle/a.add-cow
addcow create -q -b a.add-cow -F add-cow -i b.raw circle/b.add-cow
addcow create -q -b b.add-cow -F add-cow -i c.raw circle/c.add-cow
mv circle/c.add-cow circle/a.add-cow
complains 'stands on itself' --bases circle
grep -q 'nothing is said to be free' stdout || fail "$(cat stdout)"
