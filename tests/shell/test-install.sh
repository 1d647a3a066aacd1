#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# "make install" puts everything where a user's programs look for it.

. "$(dirname "$0")/../functions.sh"
requires make

make -C "$ADDCOW_BUILDDIR" install DESTDIR="$scratch/root" >install.log 2>&1 ||
    { cat install.log >&2; fail "make install"; }
(cd root && find . -type f -o -type l | sort) >files
for file in /bin/addcow /nbdkit-addcow-plugin.so /share/man/man1/addcow.1 \
    /share/man/man1/nbdkit-addcow-plugin.1 /completions/addcow; do
    grep -q -- "$file\$" files || { cat files >&2; fail "$file is not installed"; }
done
if grep -E '\.(la|a|h)$' files; then fail "the files above are of no use once installed"; fi
plugin="$(find "$scratch/root" -name nbdkit-addcow-plugin.so)"
# A sanitizer's plugin needs its run-time preloaded: ./run's business.
if built_with_sanitizer; then
    echo "not tried: loading the installed plugin, it is built with a sanitizer"
else
    command nbdkit "$plugin" --dump-plugin | has -x 'addcow_revisions=1 20'
fi
