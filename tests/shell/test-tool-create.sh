#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow create: what it makes, what it takes, what it refuses; and it leaves
# nothing behind when it fails.

. "$(dirname "$0")/../functions.sh"
requires jq nbdcopy

info() { addcow info --output=json "$1" | jq -r ".\"$2\""; }

# fails STATUS PATTERN ARGUMENT...: create must fail, and change nothing.
fails() {
    local status="$1" pattern="$2" before
    shift 2
    before="$(find . -path ./stderr -o -path ./stdout -o -type f -printf '%p %s %T@\n' | sort)"
    expect_fails "$status" addcow create "$@"
    expect_equal 1 "$(wc -l <stderr)" "lines of message for: create $* ($(cat stderr))"
    grep -qE -- "$pattern" stderr || fail "no '$pattern' in: $(cat stderr)"
    expect_equal "$before" \
        "$(find . -path ./stderr -o -path ./stdout -o -type f -printf '%p %s %T@\n' | sort)" \
        "files after: create $*"
}
touch stdout stderr

mkdir vm
random_file vm/base.img 100001

# The image file is made sparse, as large as the backing file.
addcow create -b base.img -F raw -i disk.raw vm/x.add-cow >out
grep -q "^Formatting 'vm/x.add-cow', fmt=add-cow size=100001 .*backing_file=base.img" out ||
    fail "$(cat out)"
expect_equal 100001 "$(stat -c %s vm/disk.raw)" "size of the image file"
expect_equal 0 "$(used_bytes vm/disk.raw)" "storage of the image file"
expect_equal $((4096 + 65536)) "$(stat -c %s vm/x.add-cow)" "size of the add-cow file"
expect_equal base.img "$(info vm/x.add-cow backing-filename)" "name as given"
expect_equal disk.raw "$(info vm/x.add-cow image-filename)" "name as given"
expect_equal "$PWD/vm/base.img" "$(info vm/x.add-cow full-backing-filename)" "resolved name"
nbdkit -r -U - addcow vm/x.add-cow --run 'nbdcopy "$uri" got.img'
cmp got.img vm/base.img
rm -f got.img

# Nothing is overwritten without --force.
fails 1 'vm/x.add-cow.*--force' -b base.img -F raw -i other.raw vm/x.add-cow
fails 64 '--discard needs --force' --discard -b base.img -F raw -i other.raw vm/x.add-cow
addcow create -q --force -b base.img -F raw -i disk.raw -s 100001 vm/x.add-cow
fails 1 'disk.raw|image file' -b base.img -F raw -i disk.raw --force vm/disk.raw
fails 1 'base.img|backing file' -b base.img -F raw -i disk.raw --force vm/base.img

# Sizes as qemu-img reads them.
for size in 1:1 511:511 64k:65536 64K:65536 1.5M:1572864 3G:3221225472 1T:1099511627776; do
    addcow create -q -i "size-$size.raw" -s "${size%:*}" "size-$size.add-cow"
    expect_equal "${size#*:}" "$(info "size-$size.add-cow" virtual-size)" "-s ${size%:*}"
done
rm size-*
for size in 0 -1 '' 1X 12abc 9223372036854775808 99999999999999999999 9E 1e3; do
    fails 64 "size '$size'" -i new.raw -s "$size" new.add-cow
done

# An image file that is there is taken as it is.
random_file there.raw 70000
kept="$(sha there.raw)"
addcow create -q -i there.raw there.add-cow
expect_equal "$kept" "$(sha there.raw)" "an existing image file"
expect_equal true "$(info there.add-cow all-allocated)" "without a backing file"
expect_equal "$kept" "$(nbdkit -r -U - addcow there.add-cow --run 'nbdcopy "$uri" - | sha256sum' |
    cut -d' ' -f1)" "existing bytes stay visible"
fails 1 'there.raw.*70000' -i there.raw -s 70001 there2.add-cow
# What it holds becomes the disk: that is said.
cp there.raw disk.raw
addcow create -i disk.raw disk.add-cow 2>note >/dev/null
grep -q 'disk.raw: already existed, what it holds becomes the disk' note || fail "$(cat note)"
# With a backing file it may be another disk's. Told to, its old bytes do not show.
cp there.raw old.raw
cp there.raw base2.img
fails 1 'old.raw.*holds data.*--reuse-image' -b base2.img -F raw -i old.raw old.add-cow
addcow create --reuse-image -b base2.img -F raw -i old.raw old.add-cow 2>note >/dev/null
grep -q old.raw note || fail "no note about the old bytes in old.raw"

# The format is never guessed, and no other than raw and add-cow is served.
fails 64 -- '-F' -b vm/base.img -i new.raw new.add-cow
fails 64 -- '-b' -F raw -i new.raw -s 1M new.add-cow
fails 1 "qcow2" -b vm/base.img -F qcow2 -i new.raw new.add-cow

# Names start from the add-cow file's directory.
fails 1 'base.img' -b vm/base.img -F raw -i new.raw vm/new.add-cow
fails 1 'nowhere' -b nowhere.img -F raw -i new.raw new.add-cow
fails 1 'nodirectory' -i new.raw -s 1M nodirectory/new.add-cow
fails 1 'nodirectory' -i nodirectory/new.raw -s 1M new.add-cow
fails 1 size -i new.raw new.add-cow
# A name that was meant from the working directory: how to write it.
mkdir sub
fails 1 "for $PWD/sub/new.raw say -i new.raw" -i sub/new.raw -s 1M sub/new.add-cow
fails 1 "for $PWD/vm/base.img say -b base.img" -b vm/base.img -F raw -i new.raw vm/new.add-cow
# A link that leads nowhere is not "File exists".
ln -s nowhere dangling
fails 1 'dangling: is a symbolic link that leads to no file' -i dangling -s 1M new.add-cow
fails 1 'dangling: is a symbolic link that leads to no file' --force -i new.raw -s 1M dangling
fails 1 'dangling: already exists' -i new.raw -s 1M dangling
rm dangling
addcow create -q -b "$PWD/vm/base.img" -F raw -i "$PWD/absolute.raw" absolute.add-cow
expect_equal "$PWD/vm/base.img" "$(info absolute.add-cow backing-filename)" "absolute name"

# Three different files, by whatever name.
ln -s vm/base.img link.img
fails 1 'different' -b link.img -F raw -i vm/base.img new.add-cow
fails 1 '' -i new.add-cow -s 1M new.add-cow

# Names that do not fit into the header, and odd ones that do.
long="$(printf 'd%.0s' $(seq 200))"
mkdir -p "$long/$long"
fails 1 'bytes' -i "$(for _ in $(seq 20); do printf './%s/../' "$long"; done)x.raw" -s 1M new.add-cow
addcow create -q -i 'a name with  spaces, "quotes" and ünï.raw' -s 1M -- '-odd name.add-cow'
addcow check ./'-odd name.add-cow'
# The longest name that the file system allows.
longest="$(printf 'n%.0s' $(seq "$(getconf NAME_MAX .)"))"
addcow create -q -i longest.raw -s 1M "$longest"
fails 1 'data in 16 clusters, which would be lost' -i longest.raw --force "$longest"
addcow create -q -i longest.raw --force --discard "$longest"
addcow check "$longest"
fails 1 'name' -i longest.raw "${longest}n"

# A full disk: nothing is left.
if can_mount; then
    mkdir full
    unshare -m bash -e -c "
        mount -t tmpfs -o size=64k none full
        head -c 60K /dev/zero >full/filler
        if '$ADDCOW_RUN' addcow create -i disk.raw -s 1000G full/x.add-cow 2>stderr; then exit 1; fi
        test \"\$(ls full)\" = filler
        grep -q 'full/x.add-cow: .*No space' stderr
    " || fail "create on a full file system: $(cat stderr)"
else
    echo "not tried: a full file system (needs root)"
fi
