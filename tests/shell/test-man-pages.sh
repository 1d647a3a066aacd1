#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The man pages are well formed and tell of every parameter, verb and option
# that --help tells of.

. "$(dirname "$0")/../functions.sh"
requires podchecker

for pod in plugin/nbdkit-addcow-plugin.pod tools/addcow.pod; do
    podchecker -warnings -warnings "$srcdir/$pod" 2>pod.log || { cat pod.log >&2; fail "$pod"; }
    if grep -q WARNING pod.log; then cat pod.log >&2; fail "$pod has warnings"; fi
done
nbdkit addcow --help | grep -oE '^[a-z-]+=' >parameters
[ -s parameters ]
while read -r parameter; do
    grep -q "^=item .*B<$parameter" "$srcdir/plugin/nbdkit-addcow-plugin.pod" ||
        fail "nbdkit-addcow-plugin(1) has no word of $parameter"
done <parameters
for verb in create info map check commit compare flatten measure rebase resize upgrade downgrade status fill; do
    addcow "$verb" --help | grep -oE -- '--[a-z][a-z-]+' | sort -u >options
    [ -s options ]
    while read -r option; do
        grep -q -- "B<$option\b" "$srcdir/tools/addcow.pod" ||
            fail "addcow(1) has no word of $option ($verb)"
    done <options
    grep -q "^=head2 .*$verb" "$srcdir/tools/addcow.pod" || fail "addcow(1): no $verb"
done
