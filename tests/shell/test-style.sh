#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The rules of style that a program can check: clang-format, shellcheck, an
# SPDX line in every file, files that are not too long.

. "$(dirname "$0")/../functions.sh"
cd "$srcdir"

# Source files, in a clone or unpacked from the distribution.
mapfile -d '' cxx < <(find common plugin tools tests fuzz \( -name '*.cc' -o -name '*.h' \) -print0)
mapfile -d '' shell < <(find tests fuzz completion scripts -name '*.sh' -print0)
for file in quickstart runtests run.in tests/functions.sh; do
    [ ! -e "$file" ] || shell+=("$file")
done
[ "${#cxx[@]}" -gt 20 ] && [ "${#shell[@]}" -gt 10 ] || fail "source files not found"

wrong=0
for file in "${cxx[@]}" "${shell[@]}" Makefile.am configure.ac; do
    head -n 3 "$file" | has 'SPDX-License-Identifier: LGPL-2.1-or-later' ||
        { echo "$file: no SPDX line"; wrong=1; }
    lines="$(wc -l <"$file")"
    [ "$lines" -le 520 ] || { echo "$file: $lines lines"; wrong=1; }
done
[ "$wrong" -eq 0 ] || fail "see above"

missing=
# Each version lays out a little otherwise. This one, all of bookworm, trixie and sid have.
if command -v clang-format-19 >/dev/null; then
    clang-format-19 --dry-run -Werror "${cxx[@]}" || fail "clang-format-19 -i would change the above"
else
    missing="$missing clang-format-19"
fi
if command -v shellcheck >/dev/null; then
    # 2016: $uri is for nbdkit --run. 2154, 2164: functions.sh sets them, and -e.
    # 2015: "a && b || fail" means just that. 2094: takes x.add-cow for its output.
    shellcheck -x -P "$srcdir/tests" -e SC1091,SC2015,SC2016,SC2094,SC2154,SC2164 "${shell[@]}" ||
        fail "shellcheck"
else
    missing="$missing shellcheck"
fi
[ -z "$missing" ] || skip "the rest holds, but not installed:$missing"
