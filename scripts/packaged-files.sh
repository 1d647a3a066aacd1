# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced by what checks packages: compares the files of a package with
# scripts/packages.list, which must name each of them, and all that it names
# must be there.
# shellcheck shell=bash

packages_list="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/packages.list"

# expected_files FAMILY PACKAGE PLUGINDIR: the patterns of deb or rpm PACKAGE;
# "-" for those that are in none, "*" for all.
expected_files() {
    awk -v column="$(case "$1" in deb) echo 1 ;; rpm) echo 2 ;; *) echo 0 ;; esac)" -v package="$2" \
        -v plugindir="$3" '/^#/ { next } package == "*" || $column == package { sub(/^PLUGINDIR/, plugindir, $3); print $3 }' \
        "$packages_list"
}

# matching PATTERNS FILES: those of FILES that one of PATTERNS matches.
matching() {
    local patterns=() pattern file
    mapfile -t patterns <"$1"
    while read -r file; do
        for pattern in "${patterns[@]}"; do
            # shellcheck disable=SC2053  # a pattern
            if [[ $file = $pattern ]]; then echo "$file"; fi
        done
    done <"$2"
}

# compare_files PATTERNS FILES WHAT: both are files with one absolute path a
# line. Prints each difference, and fails if there is one.
compare_files() {
    local patterns=() files=() pattern file matches bad=0
    mapfile -t patterns <"$1"
    mapfile -t files <"$2"
    for file in "${files[@]}"; do
        matches=0
        for pattern in "${patterns[@]}"; do
            # shellcheck disable=SC2053  # a pattern
            [[ $file != $pattern ]] || matches=$((matches + 1))
        done
        case "$matches" in
        0) echo "$3: does not name $file"; bad=1 ;;
        1) ;;
        *) echo "$3: names $file $matches times"; bad=1 ;;
        esac
    done
    for pattern in "${patterns[@]}"; do
        matches=0
        for file in "${files[@]}"; do
            # shellcheck disable=SC2053
            [[ $file != $pattern ]] || matches=1
        done
        [ "$matches" -eq 1 ] || { echo "$3: names $pattern, which is not there"; bad=1; }
    done
    return "$bad"
}
