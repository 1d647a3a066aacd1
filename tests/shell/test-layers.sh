#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# base <- io <- format <- source <- image <- jobs <- {ops, control} <- tools, and plugin on
# control: a file may include only from its own layer and those before it, and common/ knows
# no nbdkit.

. "$(dirname "$0")/../functions.sh"

# allowed DIRECTORY: the directories that its files may include from.
allowed() {
    case "$1" in
    common/base) echo "common/base" ;;
    common/io) echo "common/base common/io" ;;
    common/format) echo "common/base common/io common/format" ;;
    common/source) echo "common/base common/io common/format common/source" ;;
    common/image) echo "common/base common/io common/format common/source common/image" ;;
    common/jobs)
        echo "common/base common/io common/format common/source common/image common/jobs" ;;
    common/control)
        echo "common/base common/io common/format common/source common/image common/jobs common/control" ;;
    common/ops)
        echo "common/base common/io common/format common/source common/image common/jobs common/ops" ;;
    plugin)
        echo "common/base common/io common/format common/source common/image common/jobs common/control plugin" ;;
    tools)
        echo "common/base common/io common/format common/source common/image common/jobs common/ops common/control tools" ;;
    *) fail "$1 is in no layer: say here which" ;;
    esac
}

cd "$srcdir"
seen=0
wrong=0
while IFS= read -r -d '' file; do
    seen=$((seen + 1))
    directory="$(dirname "$file")"
    may=" $(allowed "$directory") "
    while read -r included; do
        case "$may" in
        *" $(dirname "$included") "*) ;;
        *)
            case "$included" in
            config.h) ;;
            *) echo "$file includes $included"; wrong=$((wrong + 1)) ;;
            esac
            ;;
        esac
    done < <(sed -nE 's/^#include "(.*)"$/\1/p' "$file")
done < <(find common plugin tools \( -name '*.cc' -o -name '*.h' \) -print0)
[ "$seen" -gt 20 ] || fail "only $seen source files found"
[ "$wrong" -eq 0 ] || fail "$wrong includes against the order of the layers"
if grep -rnE '#include <nbdkit' common tools; then fail "only plugin/ knows nbdkit"; fi
if grep -rnE '#include <libnbd' common/{base,io,format,image,jobs,control,ops} plugin tools; then
    fail "only common/source knows libnbd"
fi
if grep -rnE '#include <(CLI|nlohmann)/' common plugin | grep -vE '^common/(source/qemu_(chain|layer).cc:|control/)'
then
    fail "only tools/ parse and print, control/ speaks JSON, and what qemu-img prints is read in one place"
fi

# What fixes where things are is asked of the header (Geometry), not of its revision:
# nothing above common/format knows one from the other, but what makes or shows it.
of_revisions='\b(Revision|kClusterSize|kHeaderSize|kBitmapOffset|kBitmapPadding)\b'
while IFS= read -r file; do
    case "$file" in
    common/ops/create.* | common/ops/convert.*) ;;
    tools/info.* | tools/create.* | tools/geometry.* | tools/convert.*) ;;
    *) fail "$file: only common/format knows revisions, and who makes or shows them" ;;
    esac
done < <(find common/image common/jobs common/ops common/control common/source plugin tools \
    \( -name '*.cc' -o -name '*.h' \) -print0 2>/dev/null |
    xargs -0 grep -lE "$of_revisions")
