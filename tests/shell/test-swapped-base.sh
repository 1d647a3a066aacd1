#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A base that was exchanged for another one is refused by the server and by every verb
# that reads it, and the message says how it is accepted, for once or for good. What was
# only touched, or written anew by flatten, is served with a line.

. "$(dirname "$0")/../functions.sh"
requires jq nbdcopy nbdsh

# disk IMAGE [PARAMETER...]: the sum of what a client reads; the log is in stderr.
disk() {
    # shellcheck disable=SC2016  # nbdkit's variable
    nbdkit -r -U - addcow "$@" --run 'nbdcopy "$uri" - | sha256sum' 2>stderr | cut -d ' ' -f 1
}
# refused PATTERN [OPTION]: by all that read the base of x.add-cow, in a line each.
refused() {
    local command
    for command in "nbdkit -U - addcow x.add-cow ${2:+${2#--}} --run true" "addcow check ${2:-} x.add-cow" \
        "addcow map ${2:-} x.add-cow" "addcow flatten ${2:-} x.add-cow"; do
        # shellcheck disable=SC2086  # words on purpose
        expect_fails 1 $command
        expect_equal 1 "$(wc -l <stderr)" "lines of: $command: $(cat stderr)"
        grep -q -- "$1" stderr || fail "$command: no '$1' in: $(cat stderr)"
    done
    # shellcheck disable=SC2086
    addcow info ${2:-} x.add-cow >/dev/null 2>stderr || fail "info refuses: $(cat stderr)"
    grep -q -- "$1" stderr || fail "info: no '$1' in: $(cat stderr)"
}
# silent IMAGE: served without a word.
silent() {
    expect_equal "$sum" "$(disk "$1")" "what $1 reads"
    [ ! -s stderr ] || fail "$1: $(cat stderr)"
}
# noted IMAGE PATTERN: served, with just that line.
noted() {
    expect_equal "$sum" "$(disk "$1")" "what $1 reads"
    expect_equal 1 "$(wc -l <stderr)" "lines: $(cat stderr)"
    grep -q -- "$2" stderr || fail "no '$2' in: $(cat stderr)"
}

# The sample is not all of it.
random_file base.img 5M
cp -p base.img same.img
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
sum="$(sha base.img)"
silent x.add-cow

# What info shows is the hash of what docs/format.md says, where xxhsum can be asked.
if command -v xxhsum >/dev/null; then
    python3 - base.img >sample <<'END'
import sys
data = open(sys.argv[1], "rb").read()
size, edge = len(data), 1 << 20
step = (size - 2 * edge) // 17
at = [(0, edge)] + [(1 << p, 4096) for p in range(20, 31) if (1 << p) + 4096 <= size - edge]
at += [((edge + n * step) // 4096 * 4096, 4096) for n in range(1, 17)] + [(size - edge, edge)]
sys.stdout.buffer.write(b"".join(data[start:start + length] for start, length in at))
END
    expect_equal "$(xxhsum -H2 - <sample | cut -d ' ' -f 1)" \
        "$(addcow info --output=json x.add-cow | jq -r '."backing-identity".sample.hash')" "the hash"
fi
expect_equal '["xxh3-128",1048576]' "$(addcow info --output=json x.add-cow |
    jq -c '."backing-identity".sample | [.algorithm, ."edge-size"]')" "the sample that is noted"
addcow info x.add-cow >out
grep -qE 'sample when it was named: XXH3-128 [0-9a-f]{32} \(the first and the last 1 MiB' out || fail "$(cat out)"

# Another one with its size and time.
random_file other.img 5M
touch -r base.img other.img
mv other.img base.img
refused "base.img: the backing file does not hold what it held when $PWD/x.add-cow noted it.* (to do without this check once: .*identity=ignore; to accept it as it is: addcow rebase -u -b base.img -F raw $PWD/x.add-cow)"
cp -p base.img given.img
refused "given.img: the backing file does not hold what it held .*rebase -u -b $PWD/given.img" --backing=given.img
touch -d '2001-02-03 04:05:06.789 UTC' base.img
refused 'base.img: the backing file was modified at 2001-02-03 .*, and does not hold what it held then: it is another one'
# For once.
expect_equal "$(sha base.img)" "$(disk x.add-cow identity=ignore)" "what is served all the same"
expect_equal 1 "$(wc -l <stderr)" "lines of identity=ignore: $(cat stderr)"
grep -q 'x.add-cow: what it stands on is not compared with what was noted of that (identity=ignore)' stderr ||
    fail "$(cat stderr)"
for verb in info map check; do
    addcow "$verb" --identity=ignore x.add-cow >/dev/null 2>stderr || fail "$verb: $(cat stderr)"
    expect_equal 1 "$(grep -c 'is not compared with .*(--identity=ignore)' stderr)" "$verb: $(cat stderr)"
done
expect_fails 1 "$ADDCOW_RUN" nbdkit -U - addcow x.add-cow identity=perhaps --run true
grep -q "identity=: is 'perhaps', must be 'check' or 'ignore'" stderr || fail "$(cat stderr)"
expect_fails 64 addcow map --identity=perhaps x.add-cow
refused 'does not hold what it held'
# For good.
addcow rebase -u -b base.img -F raw x.add-cow >out 2>stderr
grep -q 'base.img: does not hold what the backing file held that was noted so far' stderr || fail "$(cat stderr)"
sum="$(sha base.img)"
silent x.add-cow

# Longer; and what it was again.
printf x >>base.img
refused 'base.img: the backing file has 5242881 bytes, but had 5242880 when .*: it is another one, or was written to'
truncate -s 5M base.img
touch -d '2001-02-03 04:05:06.789 UTC' base.img
silent x.add-cow

# A copy has another time, and nothing else.
cp base.img copy.img
expect_equal "$sum" "$(disk x.add-cow backing=copy.img)" "what a copy reads"
grep -q 'copy.img: the backing file was modified at .*; a sample of it is the same' stderr || fail "$(cat stderr)"
touch base.img
noted x.add-cow 'base.img: the backing file was modified at .*; a sample of it is the same'
addcow rebase -q -u -b base.img -F raw x.add-cow

# Images on images: what changes only the form of one below is a line.
addcow create -q -b x.add-cow -F add-cow -i y.raw y.add-cow
addcow create -q -b y.add-cow -F add-cow -i z.raw z.add-cow
silent z.add-cow
expect_equal 65536 "$(addcow info --output=json z.add-cow | jq '."backing-identity".sample."edge-size"')" "of an add-cow base"
for change in 'upgrade --cluster-size=4k' downgrade 'check -r all' flatten; do
    # shellcheck disable=SC2086  # words on purpose
    addcow $change -q x.add-cow >/dev/null
    touch x.add-cow
    noted z.add-cow 'x.add-cow: the backing file was modified at .*; a sample of it is the same'
done
# The end of the chain is x.add-cow from now on: its base may be gone.
mv base.img gone.img
noted z.add-cow 'x.add-cow: the backing file was modified'
# Who writes to one below changes what stands on it.
# shellcheck disable=SC2016
nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(bytes(4096), 0); h.flush()"'
expect_fails 1 "$ADDCOW_RUN" nbdkit -r -U - addcow z.add-cow --run true
grep -q "x.add-cow: the backing file was modified at .* when $PWD/y.add-cow noted it, and does not hold what it held then: it is another one" stderr ||
    fail "$(cat stderr)"
expect_fails 1 addcow create -b z.add-cow -F add-cow -i new.raw new.add-cow
grep -q "when $PWD/y.add-cow noted it" stderr || fail "$(cat stderr)"
[ ! -e new.raw ] || fail "create left its image file"
sum="$(disk z.add-cow identity=ignore)"
expect_equal 1 "$(wc -l <stderr)" "lines of identity=ignore for a chain: $(cat stderr)"
addcow create -q --identity=ignore -b z.add-cow -F add-cow -i new.raw new.add-cow
addcow rebase -q -u -b x.add-cow -F add-cow y.add-cow
addcow rebase -q -u -b y.add-cow -F add-cow z.add-cow
silent z.add-cow

# With all clusters the base is not looked at.
addcow create -q -b same.img -F raw -i all.raw all.add-cow
addcow flatten -q all.add-cow
random_file same.img 3M
disk all.add-cow >/dev/null
[ ! -s stderr ] || fail "$(cat stderr)"
