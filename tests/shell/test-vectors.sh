#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Golden images: the valid ones are served byte for byte and shown as they
# are, also after a server has written to a copy, and after upgrade and downgrade; the
# invalid ones are refused by the plugin and by every verb.

. "$(dirname "$0")/../functions.sh"
requires jq nbdcopy nbdsh

# served IMAGE: the SHA-256 of what a client reads.
served() {
    # shellcheck disable=SC2016  # nbdkit's variable
    nbdkit -r -U - addcow "$1" --run 'nbdcopy "$uri" - | sha256sum' | cut -d ' ' -f 1
}

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
        expect_equal "$(jq -r .sha256 "$expect")" "$(served "$image")" "$name: what is served"
        expect_equal "$(jq .virtual_size "$expect")" \
            "$(addcow info --output=json "$image" | jq '."virtual-size"')" "$name: size"
        expect_equal "$(jq -c '[.revision // 1, .cluster_size // 65536]' "$expect")" \
            "$(addcow info --output=json "$image" | jq -c '[.revision, ."cluster-size"]')" \
            "$name: revision and cluster size"
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
        expect_equal "$(jq -c '.partial // [0, 0]' "$expect")" \
            "$(addcow info --output=json "$image" |
                jq -c '[."partial-clusters", ."allocated-subclusters"]')" \
            "$name: partial clusters, and subclusters of these"
        # 3: some have old bytes under a 0 bit, which is what a leak is.
        status=0
        addcow check "$image" >stdout 2>stderr || status=$?
        case "$status" in 0 | 3) ;; *) fail "$name: check gave $status: $(cat stdout stderr)" ;; esac
        # Runs of clusters, or of subclusters where it is more than these.
        want="$(jq -c '.virtual_size as $size
            | (if .in_image then 4096 else .cluster_size // 65536 end) as $unit
            | [(.in_image // .allocated)[]
            | [.[0] * $unit, ([.[1] * $unit, $size - .[0] * $unit] | min)]]' "$expect")"
        expect_equal "$want" "$(in_image "$image")" "$name: what is allocated"
        # A server that writes what is there already changes nothing for the next one.
        cp -rp "$name" written
        # shellcheck disable=SC2016
        nbdkit -U - addcow written/x.add-cow \
            --run 'nbdsh -u "$uri" -c "h.pwrite(h.pread(8192, 70000), 70000); h.flush()"'
        expect_equal "$(jq -r .sha256 "$expect")" "$(served written/x.add-cow)" \
            "$name: what is served after a write"
        rm -r written
        # Nor does other metadata. Where there may be no subclusters, clusters of 2 MiB
        # are copied up, though.
        cp -rp "$name" converted
        for change in 'upgrade --cluster-size=2M' 'upgrade --cluster-size=4k' downgrade; do
            # shellcheck disable=SC2086  # words on purpose
            addcow $change -q converted/x.add-cow 2>stderr || fail "$name: $change: $(cat stderr)"
        done
        expect_equal "$(jq -r .sha256 "$expect")" "$(served converted/x.add-cow)" \
            "$name: what is served after upgrades and downgrade"
        sound converted/x.add-cow
        case "$name" in
        *no-subclusters) ;;
        *) expect_equal "$want" "$(in_image converted/x.add-cow)" "$name: allocated, then" ;;
        esac
        expect_equal "$(jq -cS .backing_identity "$expect")" \
            "$(addcow info --output=json converted/x.add-cow | jq -cS '."backing-identity"')" \
            "$name: identity of the backing file, then"
        rm -r converted
    else
        invalid=$((invalid + 1))
        field="$(jq -r .field "$expect")"
        for command in "nbdkit -U - addcow $image --run true" \
            "addcow info $image" "addcow map $image" "addcow flatten $image" \
            "addcow upgrade $image" "addcow downgrade $image"; do
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
