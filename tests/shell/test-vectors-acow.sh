#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Golden images of revision 20, by the format's published implementation: served byte for
# byte and shown as they are, written to like any disk, and the same disk after upgrade
# and downgrade.

. "$(dirname "$0")/../functions.sh"
requires jq nbdcopy nbdsh

# served ADD-COW-FILE: the SHA-256 of what a client reads.
served() {
    nbdkit -r -U - addcow "$1" --run 'nbdcopy "$uri" - | sha256sum' | cut -d ' ' -f 1
}

# Writes of all kinds, compared with a model of the disk; prints the SHA-256 of the model.
cat >write.py <<'END'
import hashlib, os
K = 1024
cluster, size = int(os.environ["CLUSTER"]), h.get_size()
model = bytearray(h.pread(size, 0))

def noise(seed, count):
    block = hashlib.sha256(str(seed).encode()).digest()
    return (block * (count // len(block) + 1))[:count]

def put(offset, data, how):
    assert offset + len(data) <= size, (offset, len(data))
    how()
    model[offset:offset + len(data)] = data

def write(offset, count, flags=0):
    data = noise(offset, count)
    put(offset, data, lambda: h.pwrite(data, offset, flags))

write(513, 777)                               # parts of sectors
write(cluster - 1234, 5001)                   # over a border of clusters
write(size // 2 + 1, cluster)                 # parts of two clusters, none of them whole
write(5 * size // 8, 4 * K, nbd.CMD_FLAG_FUA)
write(size - cluster, cluster)                # a whole one, the last
write(size - 1, 1)                            # the last byte
put(size // 4 + 100, bytes(12305), lambda: h.zero(12305, size // 4 + 100))
put(size // 4 + 4095, bytes(2), lambda: h.zero(2, size // 4 + 4095, nbd.CMD_FLAG_NO_HOLE))
count = cluster - 5
put(5 * size // 8 + 11, bytes(count), lambda: h.trim(count, 5 * size // 8 + 11))
write(5 * size // 8 + 4 * K + 1, 3)           # into what was trimmed
assert h.pread(size, 0) == model
h.flush()
assert h.pread(size, 0) == model
print(hashlib.sha256(model).hexdigest())
END

# is_as_before DIRECTORY SHA WHAT: the image there reads so, and is sound.
is_as_before() {
    expect_equal "$2" "$(served "$1/$image")" "$3"
    sound "$1/$image"
}

# in_revision NUMBER CLUSTER-SIZE DIRECTORY
in_revision() {
    expect_equal "$1 $2" "$(addcow info --output=json "$3/$image" |
        jq -r '"\(.revision) \(."cluster-size")"')" "$3: revision and cluster size"
}

# base_of DIRECTORY: its name and format.
base_of() {
    addcow info --output=json "$1/$image" |
        jq -c '[."backing-filename", ."backing-filename-format"]'
}

# magic DIRECTORY
magic() { od -A n -c -N 8 "$1/$image" | xargs; }

# convert FROM SHA VERB [OPTION...]: copies of the directory, which must read so as before;
# the last one is left in "converted".
convert() {
    local from="$1" sha="$2" subclusters
    shift 2
    for subclusters in off on; do
        rm -rf converted
        cp -rp --sparse=always "$from" converted
        addcow "$@" -q --subclusters=$subclusters "converted/$image"
        is_as_before converted "$sha" "$name, $from: $* --subclusters=$subclusters"
        [ $subclusters = on ] || ! addcow info --output=json "converted/$image" |
            jq -c .features | has subclusters || fail "$name: $* --subclusters=off left some"
    done
    expect_equal "$(base_of "$from")" "$(base_of converted)" "$name, $from: the base after $*"
    # Nothing was copied.
    expect_equal "$(in_image "$from/$image")" "$(in_image "converted/$image")" \
        "$name, $from: what is allocated after $*"
}

images=0
for directory in "$srcdir"/tests/vectors-acow/*/; do
    name="$(basename "$directory")"
    expected() { jq -cr "$1" "$directory/expect.json"; }
    rm -rf original
    mkdir original
    tar -xJSf "$directory/disk.tar.xz" -C original
    image="$(expected .image)"
    CLUSTER="$(expected .cluster_size)"
    export CLUSTER
    expect_equal 'A C O W' "$(magic original | cut -d ' ' -f 1-4)" "$name: magic"
    in_revision 20 "$CLUSTER" original
    addcow info --output=json "original/$image" >info
    expect_equal "$(expected '[.virtual_size, .all_allocated, .header.image_name,
        .header.image_fmt, .header.backing_name,
        if .header.backing_name then .header.backing_fmt else null end]')" \
        "$(jq -c '[."virtual-size", ."all-allocated", ."image-filename", ."image-filename-format",
            ."backing-filename", ."backing-filename-format"]' info)" "$name: info"
    expect_equal "$(expected '.header | [[], if .compat_features == 1 then ["all-allocated"] else [] end]')" \
        "$(jq -c '[.features, ."optional-features"]' info)" "$name: features"
    expect_equal "$(expected 'if .all_allocated then .virtual_size / .cluster_size
        else ([.allocated[][1]] | add // 0) end')" \
        "$(jq '."allocated-clusters"' info)" "$name: clusters that are allocated"

    # What QEMU reads is read by a qemu-nbd.
    if [ "$(expected .header.backing_fmt)" = qcow2 ] && ! command -v qemu-nbd >/dev/null; then
        echo "SKIP: $name: qemu-nbd, which reads its backing file, is not installed"
        continue
    fi
    images=$((images + 1))
    before="$(find original -type f -exec sha256sum {} + | sort)"

    is_as_before original "$(expected .sha256)" "$name: what is served"
    expect_equal "$(expected '.virtual_size as $size | .cluster_size as $unit
        | (if .all_allocated then [[0, $size / $unit]] else .allocated end)
        | map([.[0] * $unit, ([.[1] * $unit, $size - .[0] * $unit] | min)])')" \
        "$(in_image "original/$image")" "$name: what is allocated"

    # Written to, with subclusters and without.
    for subclusters in off on; do
        rm -rf written
        cp -rp --sparse=always original written
        nbdkit -U - addcow "written/$image" "subclusters=$subclusters" \
            --run 'nbdsh -u "$uri" -c - <write.py' >sha
        is_as_before written "$(cat sha)" "$name: written with subclusters=$subclusters"
        in_revision 20 "$CLUSTER" written
    done

    # Converted, before and after that.
    for from in original written; do
        sha="$(served "$from/$image")"
        convert $from "$sha" downgrade
        expect_equal 'A D D _ C O W 377' "$(magic converted)" "$name: magic of version 1"
        in_revision 1 65536 converted
        for size in 4096 2097152; do
            convert $from "$sha" upgrade --cluster-size=$size
            in_revision 20 $size converted
        done
        # And there and back.
        addcow downgrade -q "converted/$image"
        addcow upgrade -q --cluster-size="$CLUSTER" "converted/$image"
        is_as_before converted "$sha" "$name, $from: there and back"
        in_revision 20 "$CLUSTER" converted
    done

    expect_equal "$before" "$(find original -type f -exec sha256sum {} + | sort)" \
        "$name: files changed"
done
wanted=8
command -v qemu-nbd >/dev/null || wanted=7
[ "$images" -ge $wanted ] || fail "only $images images"
