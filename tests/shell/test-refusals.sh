#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What cannot be served is refused before the server forks: one line that
# names the file, exit status 1, and nothing is written.

. "$(dirname "$0")/../functions.sh"

random_file base.img 200000
addcow create -q -b base.img -F raw -i disk.raw good.add-cow

# patch OFFSET BYTES: a copy of the good one, x.add-cow, with other bytes.
patch() {
    cp good.add-cow x.add-cow
    printf '%b' "$2" | dd of=x.add-cow bs=1 seek="$1" conv=notrunc status=none
}

# refused PATTERN [ARGUMENT...]: x.add-cow must be.
refused() {
    local pattern="$1" before
    shift
    before="$(cat ./*.add-cow ./*.img ./*.raw | sha256sum)"
    expect_fails 1 nbdkit -U - addcow x.add-cow "$@" --run 'echo served'
    [ ! -s stdout ] || fail "served, though: $pattern"
    expect_equal 1 "$(wc -l <stderr)" "lines of message ($(cat stderr))"
    grep -qE -- "$pattern" stderr || fail "no '$pattern' in: $(cat stderr)"
    expect_equal "$before" "$(cat ./*.add-cow ./*.img ./*.raw | sha256sum)" \
        "a refused image was written to ($pattern)"
}

patch 0 'X'; refused 'x.add-cow: not an add-cow file: magic is'
patch 8 '\002'; refused 'x.add-cow: version is 2, must be 1'
patch 12 '\117'; refused 'x.add-cow: backing file name offset is 79, must be 80 to 4094'
patch 12 '\000'; refused 'x.add-cow: backing file name size is 8, must be 0'
patch 16 '\000'; refused 'x.add-cow: backing file name size is 0, must be 1 to 4015'
patch 16 '\377\377\377\377'; refused 'backing file name size is 4294967295, must be'
patch 20 '\377\017'; refused 'x.add-cow: image file name offset is 4095, must be 80 to 4094'
patch 20 '\376\017'; refused 'image file name: offset 4094 \+ size 8 is 4102, must be at most 4096'
patch 20 '\121'; refused 'x.add-cow: backing file name .* and image file name .* overlap'
patch 24 '\000'; refused 'x.add-cow: image file name size is 0, must be 1 to 4015'
patch 28 '\002'; refused 'x.add-cow: features is 0x2, must have bit 0 \(BACKING_FILE\) set'
patch 28 '\001'; refused 'x.add-cow: features is 0x1, must have bit 1 \(IMAGE_FILE\) set'
patch 28 '\013'; refused 'x.add-cow: features is 0xb, has unknown bit 3'
patch 35 '\200'; refused 'x.add-cow: features is 0x8000000000000003, has unknown bit 63'
patch 44 '\002'; refused 'x.add-cow: header pages size is 2, must be 1'
patch 48 '\000\000\000'; refused 'x.add-cow: backing file format is empty'
patch 48 'luks'; refused "x.add-cow: backing file format is 'luks', must be raw, add-cow or one that QEMU reads"
patch 63 'x'; refused "x.add-cow: backing file format is '72 61 77 .* 78', must be printable"
patch 64 'qed'; refused "x.add-cow: image file format is 'qed', must be 'raw'"
patch 64 '\000\000\000'; refused "x.add-cow: image file format is empty, must be 'raw'"
patch 84 '\000'; refused 'x.add-cow: backing file name holds a NUL byte at position 4'

# What is ignored: optional features, bytes past the names.
patch 36 '\377\377\377\377'; nbdkit -U - addcow x.add-cow --run true
patch 4000 'leftover'; nbdkit -U - addcow x.add-cow --run true

# Sizes.
cp good.add-cow x.add-cow
truncate -s 4095 x.add-cow; refused 'x.add-cow: truncated: 4095 bytes'
truncate -s 7 x.add-cow; refused 'x.add-cow: not an add-cow file: magic is'
truncate -s 0 x.add-cow; refused 'x.add-cow: not an add-cow file: it is empty'
cp good.add-cow x.add-cow
truncate -s 4096 x.add-cow; refused 'x.add-cow: truncated: 4096 bytes, must be at least 4097'
truncate -s 4097 x.add-cow; nbdkit -U - addcow x.add-cow --run true

# Other files.
cp good.add-cow x.add-cow
refused 'disk.raw: is both the backing file and the image file' backing=disk.raw
ln disk.raw other-name.raw
refused 'is both the backing file and the image file' backing=other-name.raw
rm other-name.raw
refused 'x.add-cow: is both the image file and the add-cow file' image=x.add-cow
refused 'x.add-cow: is both the backing file and the add-cow file' backing=x.add-cow
refused 'nowhere.raw: No such file or directory' image=nowhere.raw
refused 'nowhere.img: No such file or directory' backing=nowhere.img
: >empty.raw
refused 'empty.raw: the image file is empty' image=empty.raw
mkfifo fifo
refused 'fifo: not a regular file or a block device' image=fifo
refused 'fifo: not a regular file or a block device' backing=fifo
refused 'Is a directory' image=.
rm fifo

# Parameters.
refused "layer=: is '', must be 'all' or 'top'" layer=
for value in '' x -1 +1 1.5 5s ' 5' 86401 4294967296; do
    refused "^nbdkit: error: sync-interval=: is '.*', must be whole seconds, 0 \(off\) to 86400$" sync-interval="$value"
done
refused "copy-on-read=: is 'maybe', must be 'on' or 'off'" copy-on-read=maybe
for value in '' x 0 2k 100k 64M 1.3M -4k '64 k'; do
    refused "^nbdkit: error: fetch-size=: is '.*', must be a power of two from 4k to 32M, as 256k$" fetch-size="$value"
done
refused "fill=: is 'some', must be 'off', 'touched' or 'all'" fill=some
for value in '' fast 0M -1 1.5; do
    refused "^nbdkit: error: fill-rate=: is '.*', must be bytes a second, as 50M, or 0 for no limit$" fill-rate="$value"
done
refused "fill-delay=: is '1h', must be whole seconds, 0 \(off\) to 86400" fill-delay=1h
refused "fill-exit=: there is no fill to wait for" fill-exit=on
refused "parameter 'fill-colour': unknown" fill=all fill-colour=red
refused "parameter 'colour': unknown" colour=red
refused 'image=: the file name is empty' image=
# Which of two would be meant nobody knows.
once=(file=x.add-cow image=disk.raw backing=base.img layer=all readonly=off lock=on confine=.
    identity=check reflink=on subclusters=on sync-interval=1 timeout=9 allow=uri copy-on-read=off
    fetch-size=64k control=ctl fill=off fill-rate=1M fill-delay=1 fill-exit=off)
for parameter in "${once[@]}"; do
    expect_fails 1 nbdkit -U - addcow "$parameter" "$parameter" --run true
    grep -qx "nbdkit: error: ${parameter%%=*}=: given twice" stderr || fail "$parameter: $(cat stderr)"
done
expect_equal "$(nbdkit addcow --dump-plugin | sed -n 's/^addcow_parameters=//p' | tr ' ' '\n' | sort | xargs)" \
    "$(printf '%s\n' "${once[@]%%=*}" | sort | xargs)" "the parameters that were given twice"
expect_fails 1 nbdkit -U - addcow --run true
grep -q 'file=: missing' stderr
rm x.add-cow
expect_fails 1 nbdkit -U - addcow x.add-cow --run true
grep -q 'x.add-cow: No such file or directory' stderr
