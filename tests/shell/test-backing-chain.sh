#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Images that stand on images, through the real programs: what they read and where it
# comes from, as qemu-img says it of the same chain in its format; locks, confine=, what
# stands on itself; hundreds of them; and what is left once the topmost is flattened.

. "$(dirname "$0")/../functions.sh"
requires jq nbdsh nbdcopy nbdinfo qemu-img qemu-io

# base.img <- a <- b <- c, a with clusters of 64 KiB, b of 4 KiB, c of 2 MiB. Each is
# written to before the next one is made; and so is a chain of qcow2 files.
change() { # ADD-COW-FILE STATEMENT: in Python, with h
    statement="$2" nbdkit -U - addcow "$1" --run 'nbdsh -u "$uri" -c "$statement"'
}
write() { # NAME OFFSET LENGTH: in KiB, the letter NAME
    change "$1.add-cow" "h.pwrite(b'$1' * ($3 * 1024), $2 * 1024)"
    qemu-io -f qcow2 -c "write -q -P $(printf '%d' "'$1") ${2}k ${3}k" "$1.qcow2"
}
zero() { # NAME OFFSET LENGTH
    change "$1.add-cow" "h.zero($3 * 1024, $2 * 1024)"
    qemu-io -f qcow2 -c "write -q -z ${2}k ${3}k" "$1.qcow2"
}
layer() { # NAME BACKING FORMAT CLUSTER-SIZE SIZE
    addcow create -q -b "$2.${3/raw/img}" -F "$3" -i "$1.raw" --cluster-size="$4" -s "$5" "$1.add-cow"
    local format="${3/add-cow/qcow2}"
    qemu-img create -q -f qcow2 -o cluster_size=4k -b "$2.${format/raw/img}" -F "$format" "$1.qcow2" "$5"
}
mkdir vm
cd vm
random_file base.img 512K
truncate -s 1M base.img
layer a base raw 64k 1M
write a 0 128
layer b a add-cow 4k 1280K
write b 64 8
zero b 256 64
layer c b add-cow 2M 1536K
write c 768 64
zero c 448 64

# What it reads, and its map.
nbdkit -r -U - addcow c.add-cow --run 'nbdcopy "$uri" -' >disk
qemu-img convert -O raw c.qcow2 want.raw
cmp disk want.raw
nbdkit -r -U - addcow c.add-cow --run 'qemu-img compare -f raw -F qcow2 "$uri" c.qcow2' >/dev/null
rm want.raw
addcow map --output=json c.add-cow | jq -c '.[] | {start,length,depth,zero,data}' >map
qemu-img map --output=json c.qcow2 | jq -c '.[] | {start,length,depth,zero,data}' >qemu
cat >want <<'END'
{"start":0,"length":65536,"depth":2,"zero":false,"data":true}
{"start":65536,"length":8192,"depth":1,"zero":false,"data":true}
{"start":73728,"length":57344,"depth":2,"zero":false,"data":true}
{"start":131072,"length":131072,"depth":3,"zero":false,"data":true}
{"start":262144,"length":65536,"depth":1,"zero":true,"data":false}
{"start":327680,"length":131072,"depth":3,"zero":false,"data":true}
{"start":458752,"length":65536,"depth":0,"zero":true,"data":false}
{"start":524288,"length":262144,"depth":3,"zero":true,"data":false}
{"start":786432,"length":65536,"depth":0,"zero":false,"data":true}
{"start":851968,"length":196608,"depth":3,"zero":true,"data":false}
{"start":1048576,"length":262144,"depth":1,"zero":true,"data":false}
{"start":1310720,"length":262144,"depth":0,"zero":true,"data":false}
END
diff -u want map
diff -u qemu map || fail "the two differ"
addcow map c.add-cow >human
expect_equal "0x10000 0x2000 0x10000 $PWD/b.raw" "$(grep ^0x10000 human | xargs)" "a line of the map"
nbdkit -r -U - addcow c.add-cow --run 'nbdinfo --map "$uri"' | awk '{ print $1, $2, $3 }' >extents
cat >want <<'END'
0 262144 0
262144 65536 3
327680 131072 0
458752 327680 3
786432 65536 0
851968 720896 3
END
diff -u want extents
nbdkit -U - addcow c.add-cow layer=top --run 'nbdinfo --map "$uri"' | awk '{ print $1, $2, $3 }' >extents
cat >want <<'END'
0 458752 1
458752 65536 3
524288 262144 1
786432 65536 0
851968 720896 1
END
diff -u want extents

# The chain, as qemu-img shows one.
addcow info --backing-chain --output=json c.add-cow >info
qemu-img info --backing-chain --output=json c.qcow2 >qemu
keys='map([."virtual-size", ."backing-filename", ."backing-filename-format"])'
expect_equal "$(jq -c "$keys" qemu | sed 's/qcow2/add-cow/g')" "$(jq -c "$keys" info)" "keys of info"
expect_equal '["add-cow","add-cow","add-cow","raw"]' "$(jq -c 'map(.format)' info)" "formats"
expect_equal "[\"c.add-cow\",\"$PWD/b.add-cow\",\"$PWD/a.add-cow\",\"$PWD/base.img\"]" \
    "$(jq -c 'map(.filename)' info)" "names"
addcow info --backing-chain c.add-cow >human
expect_equal 4 "$(grep -c '^image: ' human)" "images in: $(cat human)"
expect_equal "$(addcow info b.add-cow | sed 1d)" \
    "$(sed -n '/^image: .*b.add-cow$/,/^$/p' human | sed '1d;$d')" "the second"
for image in a b c; do
    addcow check -q "$image.add-cow" || fail "not sound: $image"
done

# A base has no writer while somebody stands on it, and nobody stands on one that has.
start_server sock addcow c.add-cow
in_use() { # COMMAND...
    expect_fails 1 "$@"
    expect_equal 1 "$(wc -l <stderr)" "lines of: $*: $(cat stderr)"
    grep -q 'is in use by another program' stderr || fail "$*: $(cat stderr)"
}
for base in a b; do
    in_use nbdkit -U - addcow "$base.add-cow" --run true
    in_use addcow flatten "$base.add-cow"
    in_use addcow check -r leaks "$base.add-cow"
    in_use addcow rebase -u -b base.img -F raw "$base.add-cow"
    nbdkit -r -U - addcow "$base.add-cow" --run true || fail "readers may share $base"
done
addcow create -q -b b.add-cow -F add-cow -i d.raw d.add-cow
start_server sock3 addcow d.add-cow
nbdsh -u "$(uri sock3)" -c 'h.pwrite(b"d" * 65536, 0)' -c 'h.flush()'
client 'assert h.pread(65536, 0) == b"a" * 65536'
stop_server "$server_pid"
# What is lost of a base is an error, never zeroes; the rest is served.
cp -p a.raw whole
truncate -s 4096 a.raw
client 'refused(lambda: h.pread(512, 8192))' 'assert h.pread(4096, 0) == b"a" * 4096' \
    'refused(lambda: h.pwrite(b"x", 8192))' 'assert h.pread(8192, 65536) == b"b" * 8192' \
    'h.pwrite(b"c" * 65536, 768 * 1024)' 'h.flush()'
grep -q "a.raw: ends at byte .* or earlier, .*truncated" sock.log || fail "$(cat sock.log)"
cp -p whole a.raw
stop_server "$(cat sock.pid)"
start_server sock addcow b.add-cow
in_use nbdkit -U - addcow c.add-cow --run true
in_use addcow map c.add-cow
in_use addcow create -b b.add-cow -F add-cow -i e.raw e.add-cow
addcow map -U c.add-cow >/dev/null 2>&1 || fail "map -U"
stop_server "$server_pid"
rm d.* whole

# What stands on itself: as rebase refuses to make it, and made by another program.
stands() { # FIRST COMMAND...
    expect_fails 1 "${@:2}"
    expect_equal 1 "$(wc -l <stderr)" "lines of: ${*:2}: $(cat stderr)"
    grep -q "$1: stands on itself: $1 -> " stderr || fail "${*:2}: $(cat stderr)"
}
ln -s c.add-cow soft
ln c.add-cow hard
for name in c.add-cow soft hard ./c.add-cow "$PWD/soft"; do
    stands "$PWD/a.add-cow" addcow rebase -u -b "$name" -F add-cow a.add-cow
done
# By names that lead elsewhere later.
cp -p a.add-cow a.whole
addcow create -q -b base.img -F raw -i other.raw -s 1M other.add-cow
ln -s other.add-cow lower
addcow rebase -q -u -b lower -F add-cow a.add-cow
ln -sfn c.add-cow lower
c="$PWD/c.add-cow"
for lock in on off; do
    stands "$c" nbdkit -U - addcow c.add-cow "lock=$lock" --run true
    stands "$c" addcow map "--lock=$lock" c.add-cow
    stands "$c" addcow flatten "--lock=$lock" c.add-cow
    stands "$c" addcow create "--lock=$lock" -b c.add-cow -F add-cow -i e.raw e.add-cow
done
stands "$c" addcow info --backing-chain c.add-cow
addcow info c.add-cow 2>note >/dev/null || fail "info needs no base"
grep -q "stands on itself" note || fail "$(cat note)"
expect_fails 2 addcow check c.add-cow
grep -q "stands on itself: $c -> $PWD/b.add-cow -> $PWD/a.add-cow -> $PWD/lower" stdout stderr ||
    fail "no chain in: $(cat stdout stderr)"
mv a.whole a.add-cow
[ ! -e e.raw ] || fail "create left its image file"
# By the options: the base's image file, which would be written to; the image itself.
expect_fails 1 nbdkit -U - addcow c.add-cow image=a.raw --run true
grep -q 'stands on itself' stderr || fail "$(cat stderr)"
stands "$PWD/b.add-cow" nbdkit -U - addcow b.add-cow backing=c.add-cow --run true
expect_fails 1 nbdkit -U - addcow c.add-cow backing=base.img --run true
grep -q 'base.img: not an add-cow file' stderr || fail "$(cat stderr)"
nbdkit -r -U - addcow c.add-cow backing=hard --run true 2>stderr && fail "a base that is the image itself"

# What is missing further down is mended there, not by an option for the topmost.
mv a.raw moved.raw
expect_fails 1 nbdkit -U - addcow c.add-cow --run true
grep -q "say addcow rebase -u -i FILE $PWD/a.add-cow)" stderr || fail "$(cat stderr)"
mv moved.raw a.raw

# Each file must be beneath the folder, whoever names it.
mkdir sub ../outside
mv base.img sub/base.img
ln -s sub/base.img base.img
both() { # THEN: plugin and tool
    "$1" nbdkit -r -U - addcow c.add-cow "confine=$PWD" --run true
    "$1" addcow map "--confine=$PWD" c.add-cow
    "$1" addcow check "--confine=$PWD" c.add-cow
    "$1" addcow info --backing-chain "--confine=$PWD" c.add-cow
}
allowed() { "$@" >/dev/null 2>stderr || fail "$*: $(cat stderr)"; }
refused() {
    expect_fails 1 "$@"
    grep -q "$PWD/a.add-cow: names the file 'base.img', which is not beneath $PWD" stderr ||
        fail "$*: $(cat stderr)"
}
both allowed
mv sub/base.img ../outside
ln -sfn ../outside/base.img base.img
nbdkit -r -U - addcow c.add-cow --run true
both refused
mv ../outside/base.img .

# A base is only read, also by root.
sums() { for file in base.img a.* b.*; do echo "$(sha "$file") $(stat -c %y "$file") $file"; done; }
sums >before
if can_mount; then
    mkdir ro
    addcow create -q -b ro/c.add-cow -F add-cow -i top.raw top.add-cow 2>/dev/null && fail "no such base"
    statement="h.pwrite(b't' * 512, 512)" unshare -m bash -e -c '
        mount --bind . ro
        mount -o remount,bind,ro ro
        "$ADDCOW_RUN" addcow create -q -b ro/c.add-cow -F add-cow -i top.raw top.add-cow
        "$ADDCOW_RUN" nbdkit -U - addcow top.add-cow --run "nbdsh -u \"\$uri\" -c \"\$statement\""
        "$ADDCOW_RUN" addcow check -q top.add-cow
        "$ADDCOW_RUN" nbdkit -r -U - addcow top.add-cow --run "nbdcopy \"\$uri\" top.img"'
    expect_equal t "$(dd if=top.img bs=1 skip=600 count=1 status=none)" "what was written"
    cmp -n 512 top.img disk && cmp -i 1024 top.img disk || fail "a base that is read only"
fi

# Flattened, it stands alone.
nbdkit -r -U - addcow c.add-cow --run 'nbdcopy "$uri" -' >disk
sums >after
diff -u before after
addcow flatten c.add-cow >/dev/null
rm a.* b.* base.img
cmp disk <(nbdkit -r -U - addcow c.add-cow --run 'nbdcopy "$uri" -')
cmp disk c.raw
addcow check -q c.add-cow
expect_equal 1 "$(addcow info --backing-chain --output=json c.add-cow | jq length)" "links"
expect_equal 0 "$(addcow map --output=json c.add-cow | jq 'map(.depth) | max')" "depth"

# Four hundred. All but the lowest have the same bytes: each names ./below/x.add-cow.
mkdir ../deep ../deep/0
cd ../deep
random_file base.img 300000
addcow create -q -b ../base.img -F raw -i disk.raw 0/x.add-cow
mkdir 1
ln -s ../0 1/below
addcow create -q -b below/x.add-cow -F add-cow -i disk.raw 1/x.add-cow
for ((i = 2; i <= 401; i++)); do
    mkdir "$i"
    ln -s "../$((i - 1))" "$i/below"
    cp --sparse=always 1/x.add-cow 1/disk.raw "$i"
done
printf end | dd of=400/disk.raw bs=1 conv=notrunc status=none # under a 0 bit
touch -r 0/x.add-cow ./*/x.add-cow ./*/disk.raw
serve_deep() { nbdkit -r -U - addcow 399/x.add-cow --run 'nbdcopy "$uri" - && nbdinfo --map "$uri" >extents'; }
cmp base.img <(ulimit -n 1024 && serve_deep)
expect_equal '0 300000 0' "$(awk '{ print $1, $2, $3 }' extents)" "extents of 400 images"
nbdkit -U - addcow 401/x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"x\", 299999)"'
cmp -n 299999 base.img <(nbdkit -r -U - addcow 401/x.add-cow --run 'nbdcopy "$uri" -')
expect_equal 402 "$(addcow info --backing-chain --output=json 400/x.add-cow | jq length)" "links"
(
    ulimit -n 500
    expect_fails 1 nbdkit -r -U - addcow 399/x.add-cow --run true
    expect_equal 1 "$(wc -l <stderr)" "lines about open files: $(cat stderr)"
    grep -q 'Too many open files; each of the images .* (raise the limit: ulimit -n; or flatten some)' stderr ||
        fail "$(cat stderr)"
)
