#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# --help and --version everywhere; wrong usage exits 2 with one line and a
# pointer to --help.

. "$(dirname "$0")/../functions.sh"

version="$(addcow --version)"
case "$version" in addcow\ [0-9]*) ;; *) fail "--version: $version" ;; esac
addcow --help >out
for verb in create info map check flatten; do
    grep -q "$verb" out || fail "--help has no word of $verb"
    addcow "$verb" --help >help
    grep -qi usage help || fail "addcow $verb --help: $(cat help)"
    expect_equal "$version" "$(addcow "$verb" --version)" "addcow $verb --version"
    expect_fails 2 addcow "$verb"
    expect_equal 1 "$(wc -l <stderr)" "lines for: addcow $verb"
    grep -q -- "addcow $verb --help" stderr || fail "no pointer to --help: $(cat stderr)"
    expect_fails 2 addcow "$verb" --no-such-option x
    expect_equal 1 "$(wc -l <stderr)" "lines for: addcow $verb --no-such-option"
    expect_fails 2 addcow "$verb" one two
done
expect_fails 2 addcow
grep -q -- 'addcow --help' stderr
expect_fails 2 addcow frobnicate x
grep -q -- 'addcow --help' stderr
expect_fails 2 addcow info --output=xml x
expect_fails 2 addcow create -i disk.raw
# An empty name is one too: a script forgot to set a variable.
for verb in info map check flatten; do
    expect_fails 1 addcow "$verb" ''
    grep -q "''" stderr || fail "addcow $verb '': no name in: $(cat stderr)"
done
# What cannot be printed is not success.
[ -e /dev/full ] || skip "the rest holds; no /dev/full"
status=0
"$ADDCOW_RUN" addcow --help >/dev/full 2>stderr || status=$?
expect_equal 1 "$status" "exit status when standard output is full"
