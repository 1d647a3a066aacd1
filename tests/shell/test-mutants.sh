#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A mutant whose text is not in the engine any more, or is there twice, or
# that nothing asks for, stops the build: it would be one that is never seen.

. "$(dirname "$0")/../functions.sh"

mutate() { bash "$srcdir/tests/crash/mutate.sh" mutants.list "$@"; }

mkdir -p common
printf 'one\ntwo\nthree\ntwo\n' >common/a.cc

# edit NAME OLD: a list with one mutant that replaces OLD.
edit() { printf '= m: why\n@ common/a.cc\n-%s\n+if (Mutant("%s")) no();\n' "$2" "$1" >mutants.list; }

edit m one
mutate source . common/a.cc >out
tail -n +2 out | has -x 'if (Mutant("m")) no();' || fail "the edit was not made: $(cat out)"
if has -x one <out; then fail "the text is still there"; fi
[ "$(mutate names common/a.cc)" = '{"m", "why"},' ] || fail "names: $(mutate names common/a.cc)"

# refused WHY COMMAND...
refused() {
    local why="$1"
    shift
    if mutate "$@" >out 2>err; then fail "not refused: $why"; fi
    has "$why" <err || fail "expected '$why', got: $(cat err)"
}

edit m four
refused "not in common/a.cc" source . common/a.cc
edit m two
refused "more than once" source . common/a.cc
edit other one
refused "nothing asks for m" names common/a.cc
edit m one
refused "not one of those that are built" names common/b.cc
