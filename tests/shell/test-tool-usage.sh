#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# --help and --version everywhere; wrong usage exits 64 with one line and a
# pointer to --help; who reads the output may stop at any time.

. "$(dirname "$0")/../functions.sh"
requires jq nbdsh

version="$(addcow --version)"
case "$version" in addcow\ [0-9]*) ;; *) fail "--version: $version" ;; esac
addcow --help >out
for verb in create info map check commit compare flatten measure rebase resize upgrade downgrade status fill; do
    grep -q "$verb" out || fail "--help has no word of $verb"
    addcow "$verb" --help >help
    grep -qi usage help || fail "addcow $verb --help: $(cat help)"
    expect_equal "$version" "$(addcow "$verb" --version)" "addcow $verb --version"
    expect_fails 64 addcow "$verb"
    expect_equal 1 "$(wc -l <stderr)" "lines for: addcow $verb"
    grep -q -- "addcow $verb --help" stderr || fail "no pointer to --help: $(cat stderr)"
    expect_fails 64 addcow "$verb" --no-such-option x
    expect_equal 1 "$(wc -l <stderr)" "lines for: addcow $verb --no-such-option"
    # commit takes any number of images, compare two disks.
    case $verb in
    commit) ;;
    *) expect_fails 64 addcow "$verb" one two three ;;
    esac
    awk 'length > 80' help out >long
    [ ! -s long ] || fail "more than 80 columns: $(cat long)"
    # The usage line is that of the manual, with every option that is required.
    sed -n '/^Usage: /,/^$/p' help | sed 's/^Usage: //' | xargs >usage
    sed -n "/^=head2 addcow $verb/,/^\(=over\|[A-Z]\)/p" "$srcdir/tools/addcow.pod" |
        sed -n '/^ /p' | xargs >synopsis
    expect_equal "$(cat usage)" "$(cat synopsis)" "usage of $verb, here and in the manual"
    has -F "$(cat usage)" <<<"$(sed -n '/^=head1 SYNOPSIS/,/^=head1 DESC/p' "$srcdir/tools/addcow.pod" | xargs)" ||
        fail "not in the SYNOPSIS: $(cat usage)"
done
if grep -iE '\bverbs?\b|folder' out help "$srcdir"/tools/addcow.pod; then fail "not our words"; fi
says() {
    local message="$1"
    shift
    expect_fails 64 addcow "$@"
    grep -qxF -- "addcow: $message" stderr || fail "addcow $*: $(cat stderr)"
}
says "no command was given; see: addcow --help"
says "'frobnicate' is not a command; see: addcow --help" frobnicate x
says "'frobnicate' is not a command; see: addcow --help" frobnicate --help
says "'--frobnicate' is not an option; see: addcow --help" --frobnicate
says "check: '-f' is not an option; see: addcow check --help" check x -f
says "check: 'y' was not expected, one image is enough; see: addcow check --help" check x y
says "create: '10G' was not expected (a size is given with -s 10G); see: addcow create --help" \
    create -i disk.raw x.add-cow 10G
says "create: --image needs a value; see: addcow create --help" create x -i
says "create: --image was given twice; see: addcow create --help" create x -i a -i b
says "create: -i IMAGE is required; see: addcow create --help" create x
expect_fails 64 addcow info --output=xml x
expect_fails 64 addcow create -i disk.raw
expect_fails 64 addcow flatten --wait=soon x
# An empty name is one too: a script forgot to set a variable.
for verb in info map check flatten upgrade downgrade; do
    expect_fails 1 addcow "$verb" ''
    grep -q "''" stderr || fail "addcow $verb '': no name in: $(cat stderr)"
done
# Who reads no further ends the command silently, by SIGPIPE.
truncate -s 100M wide.img
for ((at = 0; at < 1600; at += 2)); do echo "pwrite(b'x' * 65536, $at * 65536)"; done |
    sed 's/^/h./' >writes.py
addcow create -q -i wide.raw -s 100M wide.add-cow
nbdkit -U - addcow wide.add-cow --run 'nbdsh -u "$uri" -c "$(cat writes.py)"'
mkfifo pipe
for command in 'map --output=json' 'map' 'info' 'check'; do
    status=0
    # Its reader is gone before anything is printed.
    exec 8<>pipe 9>pipe 8<&-
    # shellcheck disable=SC2086  # words
    "$ADDCOW_RUN" addcow $command wide.add-cow >&9 2>stderr || status=$?
    exec 9>&-
    expect_equal 141 "$status" "exit status without a reader ($command)"
    expect_equal '' "$(cat stderr)" "words without a reader ($command)"
done
# Where it was started to ignore the signal, it says what went wrong.
exec 8<>pipe 9>pipe 8<&-
(trap '' PIPE; expect_fails 1 eval '"$ADDCOW_RUN" addcow info wide.add-cow >&9') ||
    fail "SIGPIPE ignored"
grep -q 'standard output: Broken pipe' stderr || fail "SIGPIPE ignored: $(cat stderr)"
exec 9>&-
# flatten keeps what it has done.
random_file base.img 48M
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
exec 8<>pipe 9>pipe 8<&-
status=0
"$ADDCOW_RUN" addcow flatten -p x.add-cow >&9 2>stderr || status=$?
exec 9>&-
expect_equal 141 "$status" "exit status of flatten -p without a reader"
expect_equal '' "$(cat stderr)" "words of flatten -p without a reader"
allocated="$(addcow info --output=json x.add-cow | jq '."allocated-clusters"')"
[ "$allocated" -lt 768 ] || fail "flatten did not stop"
addcow check -q x.add-cow
addcow flatten -q x.add-cow
cmp base.img disk.raw
# What cannot be printed is not success.
[ -e /dev/full ] || skip "the rest holds; no /dev/full"
status=0
"$ADDCOW_RUN" addcow --help >/dev/full 2>stderr || status=$?
expect_equal 1 "$status" "exit status when standard output is full"
# Nor is it an answer: 1 of compare, for one, is that the disks are different.
# unprintable STATUS PATTERN ARGUMENT...
unprintable() {
    local status=0
    "$ADDCOW_RUN" addcow "${@:3}" >/dev/full 2>stderr || status=$?
    expect_equal "$1" "$status" "exit status with a full standard output ($(cat stderr)): ${*:3}"
    # But for notes.
    expect_equal 1 "$(grep -vc '^addcow: note: ' stderr)" "lines of message: $(cat stderr)"
    grep -q -- "$2" stderr || fail "${*:3}: no '$2' in: $(cat stderr)"
}
cant='write: standard output: No space left on device$'
random_file other.img 48M
for disks in 'base.img disk.raw' 'base.img other.img' 'base.img --output=json disk.raw'; do
    # shellcheck disable=SC2086  # words
    unprintable 2 "^addcow: $cant" compare $disks
done
unprintable 2 "$cant" compare --help
# shellcheck disable=SC2086  # words
for words in 'info x.add-cow' 'map x.add-cow' 'map --output=svg x.add-cow' 'check x.add-cow' 'ls' \
    'measure x.add-cow' 'ls --help' '--version'; do
    unprintable 1 "^addcow: $cant" $words
done
for redirection in '>&-' '>/dev/full 2>&1'; do
    status=0
    eval "\"\$ADDCOW_RUN\" addcow compare base.img disk.raw 2>stderr $redirection" || status=$?
    expect_equal 2 "$status" "exit status of compare with $redirection"
done
exec 8<>pipe 9>pipe 8<&-
(trap '' PIPE; expect_fails 2 eval '"$ADDCOW_RUN" addcow compare base.img disk.raw >&9') ||
    fail "compare, SIGPIPE ignored"
exec 9>&-
status=0
"$ADDCOW_RUN" addcow compare -q base.img disk.raw >/dev/full || status=$?
expect_equal 0 "$status" "exit status of compare -q, which prints nothing"
# Nor is want of memory, which is looked for with larger and larger limits; a sanitizer needs
# terabytes. With very little the tool does not begin, or has no room for an exception.
if ! built_with_sanitizer; then
    no_memory=0
    status=1
    for ((limit = 8000; status != 0; limit += limit / 20)); do
        status=0
        { (ulimit -v "$limit"; exec "$ADDCOW_RUN" addcow compare base.img disk.raw) >stdout 2>stderr; } 2>/dev/null ||
            status=$?
        [ "$status" -eq 127 ] || ! grep -q '^addcow: ' stderr || {
            expect_equal 2 "$status" "exit status of compare with $limit KiB ($(cat stderr))"
            no_memory=$((no_memory + 1))
        }
    done
    echo "compare was without memory $no_memory times"
fi

# What was made or changed, and could only not be told, is said, lest it be done twice.
# changed WORDS ARGUMENT...
changed() { unprintable 1 "^addcow: $1, but this could not be printed: $cant" "${@:2}"; }
changed 'n.add-cow was made' create -b base.img -F raw -i n.raw n.add-cow
changed 'n.add-cow was resized' resize n.add-cow +1M
expect_equal $((49 << 20)) "$(stat -c %s n.raw)" "the size after a resize that could not be told"
unprintable 1 "^addcow: $cant" resize n.add-cow 49M
changed 'n.add-cow was rewritten' upgrade n.add-cow
unprintable 1 "^addcow: $cant" upgrade n.add-cow
changed 'n.add-cow was rewritten' downgrade n.add-cow
changed 'n.add-cow was rebased' rebase -b other.img -F raw n.add-cow
unprintable 1 "^addcow: $cant" commit --dry-run --output=json n.add-cow
changed 'n.add-cow was committed' commit n.add-cow
printf x | dd of=n.raw bs=1 seek=1000000 conv=notrunc status=none
changed 'n.add-cow was repaired' check -r leaks --force n.add-cow
changed 'n.add-cow was flattened' flatten n.add-cow
# Also where nobody reads any more, and a program ends silently otherwise.
exec 8<>pipe 9>pipe 8<&-
status=0
"$ADDCOW_RUN" addcow resize n.add-cow +1M >&9 2>stderr || status=$?
exec 9>&-
expect_equal 141 "$status" "exit status of resize without a reader"
expect_equal "addcow: n.add-cow was resized, but this could not be printed: write: standard output: Broken pipe" \
    "$(cat stderr)" "what resize says without a reader"
