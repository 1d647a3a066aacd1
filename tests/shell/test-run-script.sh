#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# ./run finds the uninstalled plugin and tool from any working directory, and
# the file parameter's name may be left out.

. "$(dirname "$0")/../functions.sh"
requires nbdinfo

mkdir "a directory" elsewhere
random_file "a directory/base.img" 100000
addcow create -q -b base.img -F raw -i disk.raw "a directory/x.add-cow"
cd elsewhere
expect_equal 100000 "$("$ADDCOW_RUN" nbdkit -U - addcow file="../a directory/x.add-cow" \
    --run 'nbdinfo --size "$uri"')" "size with file="
expect_equal 100000 "$("$ADDCOW_RUN" nbdkit -U - addcow "../a directory/x.add-cow" \
    --run 'nbdinfo --size "$uri"')" "size without file="
"$ADDCOW_RUN" addcow --version >/dev/null

# Wrong usage of the scripts: status 2 and one line, before anything is done.
expect_fails 2 "$ADDCOW_RUN"
expect_fails 2 "$ADDCOW_RUN" --no-such-option
grep -q -- --help stderr || fail "no pointer to --help: $(cat stderr)"
"$ADDCOW_RUN" --help | has 'nbdkit addcow'
for script in quickstart runtests; do
    bash "$srcdir/$script" --help | has "[./]$script"
    expect_fails 2 bash "$srcdir/$script" no-such-thing
    expect_equal 1 "$(wc -l <stderr)" "lines of ./$script no-such-thing"
    grep -q "./$script --help" stderr || fail "no pointer to --help: $(cat stderr)"
    expect_equal '' "$(cat stdout)" "output of ./$script no-such-thing"
done
