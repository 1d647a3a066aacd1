#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Makes the sources with the bugs of mutants.list in them:
#
#   mutate.sh LIST source SRCDIR FILE   prints FILE with its edits
#   mutate.sh LIST names FILE...        prints the mutants, as C++ initialisers
#
# It fails where an edit's text is not in its file exactly once, where nothing
# asks for a mutant by its name, or where an edit is of none of the FILEs: a
# mutant that is not there any more would be one that nobody looks for.

set -euo pipefail

list="$1" command="$2"
shift 2

die() {
    printf '%s: %s\n' "$list" "$*" >&2
    exit 1
}

names=() whys=() files=() olds=() news=()
old='' new='' file='' all_news=''

end_of_edit() {
    [ -n "$old$new" ] || return 0
    [ -n "$file" ] && [ -n "$old" ] && [ -n "$new" ] || die "${names[-1]}: not a whole edit"
    files+=("$file") olds+=("$old") news+=("$new")
    all_news+="$new"
    old='' new=''
}

while IFS= read -r line || [ -n "$line" ]; do
    case "$line" in
    '#'* | '') end_of_edit ;;
    '= '*': '*)
        end_of_edit
        line="${line#= }"
        names+=("${line%%: *}") whys+=("${line#*: }") file=''
        ;;
    '@ '*) end_of_edit; file="${line#@ }" ;;
    -*) old+="${line#-}"$'\n' ;;
    +*) new+="${line#+}"$'\n' ;;
    *) die "what is '$line'?" ;;
    esac
done <"$list"
end_of_edit

case "$command" in
source)
    path="$2"
    text="$(cat "$1/$path")"$'\n'
    for i in "${!files[@]}"; do
        [ "${files[$i]}" = "$path" ] || continue
        old="${olds[$i]}"
        after="${text#*"$old"}"
        [ "$after" != "$text" ] || die "not in $path:"$'\n'"$old"
        case "$after" in *"$old"*) die "more than once in $path:"$'\n'"$old" ;; esac
        text="${text%%"$old"*}${news[$i]}$after"
    done
    printf '#include "tests/crash/mutant.h"\n%s' "$text"
    ;;
names)
    for file in "${files[@]}"; do
        case " $* " in
        *" $file "*) ;;
        *) die "$file is not one of those that are built" ;;
        esac
    done
    for i in "${!names[@]}"; do
        case "$all_news" in
        *"Mutant(\"${names[$i]}\")"*) ;;
        *) die "nothing asks for ${names[$i]}" ;;
        esac
        printf '{"%s", "%s"},\n' "${names[$i]}" "${whys[$i]}"
    done
    ;;
*) die "no such command: $command" ;;
esac
