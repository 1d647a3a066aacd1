#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# scripts/check-rpm.sh DIRECTORY: the rpms beneath DIRECTORY, as "make rpm"
# leaves them, have the files, the dependencies and the architecture that they
# should. Prints each problem; the exit status is 0 if there is none.

set -e -u -o pipefail
. "$(dirname "$0")/packaged-files.sh"
[ "$#" -eq 1 ] && [ -d "$1" ] || { echo "usage: ${0##*/} DIRECTORY" >&2; exit 2; }

scratch="$(mktemp -d "${TMPDIR:-/tmp}/addcow-rpm.XXXXXX")"
trap 'rm -rf "$scratch"' EXIT
bad=0
plugindir="$(rpm --eval '%{_libdir}')/nbdkit/plugins"

# rpm_of NAME: its file, which must be the only one of that name.
rpm_of() {
    local found=()
    mapfile -t found < <(find "$1" -name "$2-[0-9]*.rpm" ! -name '*.src.rpm')
    [ "${#found[@]}" -eq 1 ] || { echo "$2: ${#found[@]} rpms of that name, not one" >&2; return 1; }
    echo "${found[0]}"
}

# check NAME ARCHITECTURE REQUIRES...: one rpm.
check() {
    local name="$1" architecture="$2" file wanted
    shift 2
    file="$(rpm_of "$directory" "$name")" || { bad=1; return 0; }
    [ "$(rpm -qp --qf '%{ARCH}' "$file")" = "$architecture" ] ||
        { echo "$name: not for $architecture"; bad=1; }
    # Directories have no place in the list. Man pages are compressed. The licence
    # has its own place, and what finds the debugging data by a build's id, too.
    rpm -qp --qf '[%{FILEMODES:perms} %{FILENAMES}\n]' "$file" |
        sed -n -e '/^d/d' -e '/ \/usr\/lib\/\.build-id\//d' -e 's/^[^ ]* //' -e 's/\.gz$//' -e p |
        sort >"$scratch/all"
    # Some rpms add the version to that directory.
    awk -v licence="^/usr/share/licenses/$name(-[0-9][0-9.]*)?/LICENSE\$" '$0 !~ licence' \
        "$scratch/all" >"$scratch/files"
    [ "$(wc -l <"$scratch/all")" -eq $(($(wc -l <"$scratch/files") + 1)) ] ||
        { echo "$name: no LICENSE"; bad=1; }
    expected_files rpm "$name" "$plugindir" >"$scratch/expected"
    compare_files "$scratch/expected" "$scratch/files" "scripts/packages.list, $name" || bad=1
    rpm -qp --requires "$file" >"$scratch/requires"
    for wanted in "$@"; do
        grep -q -- "^$wanted" "$scratch/requires" || { echo "$name: does not require $wanted"; bad=1; }
    done
    echo "$name: $(wc -l <"$scratch/files") files, $architecture"
}

directory="$1"
machine="$(rpm --eval '%{_target_cpu}')"
check addcow "$machine"
check nbdkit-addcow-plugin "$machine" nbdkit-server
check addcow-bash-completion noarch bash-completion 'addcow = '
[ "$(find "$directory" -name '*.src.rpm' | wc -l)" -eq 1 ] || { echo "no source rpm"; bad=1; }
[ "$bad" -eq 0 ] || { echo "The rpms are not what they should be: see above." >&2; exit 1; }
