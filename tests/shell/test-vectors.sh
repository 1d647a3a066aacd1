#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Golden images: the valid ones are served byte for byte and shown as they
# are, the invalid ones are refused by the plugin and by every verb.

. "$(dirname "$0")/../functions.sh"
requires jq nbdcopy

valid=0 invalid=0
for directory in "$srcdir"/tests/vectors/*/; do
    name="$(basename "$directory")"
    expect="$directory/expect.json"
    mkdir "$name"
    tar -xJSf "$directory/disk.tar.xz" -C "$name"
    image="$name/x.add-cow"
    before="$(cat "$name"/* | sha256sum)"
    if [ "$(jq .valid "$expect")" = true ]; then
        valid=$((valid + 1))
        served="$(nbdkit -r -U - addcow "$image" --run 'nbdcopy "$uri" - | sha256sum')"
        expect_equal "$(jq -r .sha256 "$expect")" "${served%% *}" "$name: what is served"
        expect_equal "$(jq .virtual_size "$expect")" \
            "$(addcow info --output=json "$image" | jq '."virtual-size"')" "$name: size"
        # What is noted of the backing file, and that it is as noted: a word of it is
        # one too many, unless the record says so.
        expect_equal "$(jq -cS .backing_identity "$expect")" \
            "$(addcow info --output=json "$image" 2>stderr | jq -cS '."backing-identity"')" \
            "$name: identity of the backing file"
        case "$name" in
        identity-later-fields) grep -q 'b.img: the backing file has 197308 bytes, but' stderr ||
            fail "$name: no note: $(cat stderr)" ;;
        identity*) [ ! -s stderr ] || fail "$name: $(cat stderr)" ;;
        esac
        # 3: some have old bytes under a 0 bit, which is what a leak is.
        status=0
        addcow check "$image" >stdout 2>stderr || status=$?
        case "$status" in 0 | 3) ;; *) fail "$name: check gave $status: $(cat stdout stderr)" ;; esac
        # Runs of allocated clusters, in bytes; in the map they have depth 0.
        want="$(jq -c '.virtual_size as $size | [.allocated[]
            | [.[0] * 65536, ([.[1] * 65536, $size - .[0] * 65536] | min)]]' "$expect")"
        got="$(addcow map --output=json "$image" | jq -c '
            reduce (.[] | select(.depth == 0 and .present)) as $x ([];
                if length > 0 and (.[-1] | .[0] + .[1]) == $x.start
                then .[-1][1] += $x.length else . + [[$x.start, $x.length]] end)')"
        expect_equal "$want" "$got" "$name: allocated clusters"
    else
        invalid=$((invalid + 1))
        field="$(jq -r .field "$expect")"
        for command in "nbdkit -U - addcow $image --run true" \
            "addcow info $image" "addcow map $image" "addcow flatten $image"; do
            # shellcheck disable=SC2086  # words on purpose
            expect_fails 1 $command
            grep -q -- "$field" stderr || fail "$name: no word of '$field': $(cat stderr)"
            expect_equal 1 "$(wc -l <stderr)" "$name: lines of message"
        done
        status=0
        addcow check "$image" >stdout 2>stderr || status=$?
        case "$status" in 1 | 2) ;; *) fail "$name: check gave exit status $status" ;; esac
    fi
    expect_equal "$before" "$(cat "$name"/* | sha256sum)" "$name: files changed"
done
[ "$valid" -gt 0 ] && [ "$invalid" -gt 0 ] || fail "$valid valid and $invalid invalid images"
