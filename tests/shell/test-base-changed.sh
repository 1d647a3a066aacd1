#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A base that is not what it was: shorter or empty it is refused by the server
# and by every verb that reads it, of another time it is one line. How it is accepted.
# A longer one, and one with other bytes: test-swapped-base.sh. Also bases and disks that are something else than they look.

. "$(dirname "$0")/../functions.sh"
requires jq nbdcopy

random_file base.img 1M
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
expect_equal 1048576 "$(addcow info --output=json x.add-cow | jq '."backing-identity".size')" \
    "the size that is noted"
expect_equal "$(stat -c %Y base.img)" \
    "$(addcow info --output=json x.add-cow | jq '."backing-identity".modified.seconds')" \
    "the time that is noted"
addcow info x.add-cow >out
grep -q 'size when it was named: 1 MiB (1048576 bytes)' out || fail "$(cat out)"
cp -p base.img whole.img
cp x.add-cow old.add-cow

# refused PATTERN: by all that read the base, in one line each.
refused() {
    local command
    for command in "nbdkit -U - addcow x.add-cow --run true" "addcow check x.add-cow" \
        "addcow map x.add-cow" "addcow flatten x.add-cow" \
        "nbdkit -U - addcow x.add-cow backing=base.img --run true"; do
        # shellcheck disable=SC2086  # words on purpose
        expect_fails 1 $command
        expect_equal 1 "$(wc -l <stderr)" "lines of: $command: $(cat stderr)"
        grep -q -- "$1" stderr || fail "$command: no '$1' in: $(cat stderr)"
    done
    addcow info x.add-cow >/dev/null 2>stderr || fail "info needs no base"
    grep -q -- "$1" stderr || fail "info: no '$1' in: $(cat stderr)"
}
# noted PATTERN: served, with just that line in the log.
noted() {
    expect_equal "$(cat disk.sha)" "$(nbdkit -r -U - addcow x.add-cow \
        --run 'nbdcopy "$uri" - | sha256sum' 2>stderr)" "what is served"
    expect_equal 1 "$(wc -l <stderr)" "lines of the server: $(cat stderr)"
    grep -q -- "$1" stderr || fail "server: no '$1' in: $(cat stderr)"
    addcow check x.add-cow >/dev/null 2>stderr
    expect_equal 1 "$(wc -l <stderr)" "lines of check: $(cat stderr)"
    grep -q -- "$1" stderr || fail "check: no '$1' in: $(cat stderr)"
}

truncate -s 0 base.img
refused 'base.img: the backing file is empty'
cp old.add-cow x.add-cow
truncate -s 512K base.img
refused 'base.img: the backing file has 524288 bytes, but had 1048576 .* addcow rebase -u -b'
expect_equal 0 "$(addcow info --output=json x.add-cow 2>/dev/null |
    jq '[.["all-allocated"]] | map(select(.)) | length')" "nothing was flattened"

# The command that is printed does what it says, from any directory.
mkdir -p elsewhere 'with space'
cp base.img 'with space/it.img'
cp x.add-cow disk.raw 'with space'
(
    cd 'with space'
    ! nbdkit -r -U - addcow x.add-cow backing=it.img --run true 2>stderr || fail "a shorter base is served"
)
sed -n 's/.*; to accept it as it is: \(.*\))$/\1/p' 'with space/stderr' >accept.sh
[ -s accept.sh ] || fail "no command: $(cat 'with space/stderr')"
(cd elsewhere && . ../accept.sh >/dev/null 2>&1) || fail "$(cat accept.sh)"
expect_equal "$PWD/with space/it.img" \
    "$(addcow info --output=json 'with space/x.add-cow' | jq -r '.["backing-filename"]')" "the base accepted"

# Accepted as it is.
addcow rebase -u -b base.img -F raw x.add-cow >out 2>note
grep -q "^Rebased 'x.add-cow', size=1048576 backing_file=base.img backing_fmt=raw image_file=disk.raw" out ||
    fail "$(cat out)"
grep -q 'has 524288 bytes, and the backing file so far had 1048576' note || fail "$(cat note)"
nbdkit -r -U - addcow x.add-cow --run true 2>stderr
[ ! -s stderr ] || fail "an accepted base is noted: $(cat stderr)"
addcow rebase -u -q -b whole.img -F raw x.add-cow

# Of another time, and longer without a hash, as noted by versions before there was one.
sha256sum - <whole.img >disk.sha
mv whole.img base.img
addcow rebase -u -q -b base.img -F raw x.add-cow
touch -d '2001-02-03 04:05:06.789 UTC' base.img
noted 'base.img: the backing file was modified at 2001-02-03 04:05:06.789000000 UTC.*; a sample of it is the same'
printf x >>base.img
addcow create -q -b base.img -F raw -i longer.raw -s 2M longer.add-cow
printf y >>base.img
python3 - longer.add-cow <<'END'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(3840 + 28)
    file.write(bytes(72))
END
nbdkit -r -U - addcow longer.add-cow --run true 2>stderr
expect_equal 1 "$(wc -l <stderr)" "lines about a longer base: $(cat stderr)"
grep -q 'base.img: the backing file has 1048578 bytes, but had 1048577' stderr || fail "$(cat stderr)"

# An image of before has no note, and is served as before.
truncate -s 1M base.img
python3 - x.add-cow <<'END'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(36)
    file.write(bytes(8))
    file.seek(3840)
    file.write(bytes(256))
END
expect_equal null "$(addcow info --output=json x.add-cow | jq '."backing-identity"')" "no record"
truncate -s 1000000 base.img
nbdkit -r -U - addcow x.add-cow --run true 2>stderr || fail "$(cat stderr)"
[ ! -s stderr ] || fail "an old image: $(cat stderr)"

# An add-cow file as raw base or image file; other formats are noted.
random_file base2.img 200000
expect_fails 1 addcow create -b x.add-cow -F raw -i new.raw new.add-cow
grep -q 'x.add-cow: is an add-cow file' stderr || fail "$(cat stderr)"
expect_fails 1 addcow create -i x.add-cow new.add-cow
grep -q 'x.add-cow: is an add-cow file' stderr || fail "$(cat stderr)"
addcow create -q -b base2.img -F raw -i new.raw new.add-cow
expect_fails 1 "$ADDCOW_RUN" nbdkit -r -U - addcow new.add-cow backing=old.add-cow --run true
expect_fails 1 "$ADDCOW_RUN" nbdkit -U - addcow new.add-cow image=old.add-cow --run true
grep -q 'old.add-cow: is an add-cow file' stderr || fail "$(cat stderr)"
printf 'QFI\373' | dd of=base2.img conv=notrunc status=none
addcow create -b base2.img -F raw -i q.raw q.add-cow >/dev/null 2>stderr
grep -q 'base2.img: the backing file begins as a qcow2 file does, but is read as raw' stderr ||
    fail "$(cat stderr)"
expect_equal "$(sha base2.img)" "$(nbdkit -r -U - addcow q.add-cow --run 'nbdcopy "$uri" - |
    sha256sum' 2>/dev/null | cut -d' ' -f1)" "a raw base is raw whatever it holds"

# A disk smaller than its base; one that has grown.
addcow create -b base.img -F raw -i small.raw -s 64K small.add-cow >/dev/null 2>stderr
grep -q 'small.raw: the disk has 65536 bytes and its backing file 1000000' stderr ||
    fail "$(cat stderr)"
addcow create -q -i grown.raw -s 256K grown.add-cow
truncate -s 512K grown.raw
addcow check grown.add-cow >out || fail "a grown disk is called corrupt: $(cat out)"
grep -q 'the image file has grown' out || fail "$(cat out)"
addcow check -r all grown.add-cow >out
addcow check grown.add-cow >out
if grep -q grown out; then fail "not mended: $(cat out)"; fi
truncate -s 40G grown.raw
expect_fails 1 addcow check grown.add-cow
if grep -qE 'truncated|corrupt' stderr; then fail "$(cat stderr)"; fi
remedy="$(sed -n 's/.*as it is: \(truncate .*\))$/\1/p' stderr)"
[ -n "$remedy" ] || fail "no remedy: $(cat stderr)"
eval "$remedy"
addcow check grown.add-cow >out || fail "the remedy does not mend: $(cat out)"
