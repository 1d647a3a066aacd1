#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the fuzzers' seed corpus: fuzz/make-corpus.py

Takes the golden images (tests/vectors) and some scenes of its own, and writes
them to fuzz/corpus/{header,image,verbs}/seed-*, in the encodings that
header_fuzzer.cc, scene.h, image_fuzzer.cc and verbs_fuzzer.cc describe. Only
header, bitmap and sizes are kept of an image, not its data. Other files of
the corpus (inputs that once found a bug) are left alone.
"""

import pathlib
import struct
import tarfile

TOP = pathlib.Path(__file__).resolve().parent
VECTORS = TOP.parent / "tests" / "vectors"
HEADER_SIZE = 4096
CLUSTER = 65536

NO_PUNCH, NO_ZERO_RANGE, NO_SEEK, COARSE = 1, 2, 4, 8
BLOCK_DEVICE, BACKING_NO_SEEK, READ_ONLY, ADD_COW_READ_ONLY = 16, 32, 64, 128
WITH_BACKING, ALL_ALLOCATED, QCOW2 = 1, 2, 4
SUBCLUSTERS, NO_SUBCLUSTERS, SUBCLUSTERS_OFF = 8, 16, 32
FUA, KEEP_STORAGE, FAST_ONLY, ALIGNED = 0x10, 0x20, 0x40, 0x80


def size(value):
    """A size: 32 bits, and how far they are shifted. Of a larger one the low bits go."""
    shift = max(0, value.bit_length() - 32)
    return struct.pack("<IB", value >> shift, shift)


def scene(image, backing, add_cow=0, header=b"", bitmap=b"", flags=0, made=0, seed=1,
          subclusters=b""):
    return (
        bytes([flags, made, seed])
        + size(image) + size(backing) + size(add_cow)
        + struct.pack("<HHH", len(header), len(bitmap), len(subclusters))
        + header + bitmap + subclusters
    )


def operation(code, offset=0, length=0, options=0):
    return bytes([code | options]) + size(offset) + length.to_bytes(3, "little")


def write(offset, length, options=0): return operation(0, offset, length, options)
def zero(offset, length, options=0): return operation(4, offset, length, options)
def read(offset, length): return operation(7, offset, length)
def map_range(offset, length): return operation(9, offset, length)
def copy_up(cluster, count): return operation(10, cluster * CLUSTER, count)
def prefetch(offset, length): return operation(14, offset, length)


FLUSH, REOPEN, KILL = operation(8), operation(11), operation(12)
MAP_ALL, ZERO_ALL = operation(13), operation(15)

# Everything that an engine does, on any disk of half a MiB or more.
TOUR = (
    write(1000, 5000) + read(0, 70000) + FLUSH + zero(CLUSTER + 10, 3 * CLUSTER)
    + map_range(512, 300000) + write(2 * CLUSTER, CLUSTER, FUA) + KILL + copy_up(3, 2)
    + zero(4 * CLUSTER, CLUSTER, KEEP_STORAGE | ALIGNED) + REOPEN + prefetch(0, 100000)
    + zero(0, 1000, FAST_ONLY) + MAP_ALL + FLUSH + ZERO_ALL
)

# Small writes: parts of subclusters, whole ones, those that complete a cluster, and the
# last, partial one of a disk of half a MiB and 9000 bytes; lost, flushed, and durable.
SMALL = (
    write(5000, 100) + write(8192, 4096) + write(70000, 20000) + map_range(0, 4 * CLUSTER) + KILL
    + write(5000, 100) + FLUSH + write(12000, 600) + KILL + zero(3 * CLUSTER + 100, 5000)
    + write(8 * CLUSTER + 8192, 808, FUA) + write(CLUSTER, CLUSTER - 4096) + FLUSH
    + write(2 * CLUSTER - 4096, 4096) + zero(6 * CLUSTER, 8192, KEEP_STORAGE) + REOPEN + MAP_ALL
    + write(4 * CLUSTER + 4095, 2, FUA) + copy_up(0, 5) + KILL + copy_up(0, 4) + copy_up(4, 4)
    + copy_up(8, 1) + FLUSH + REOPEN
)

INFO, MAP, CHECK, LEAKS, ALL, FLATTEN = (bytes([i]) for i in range(6))


def create(force, target, image, backing, new_size=0, more=0):
    return bytes([6, force | target << 1 | more, image, backing]) + size(new_size)


def rebase(image, backing): return bytes([7, image, backing])


VERBS = INFO + MAP + CHECK + ALL + FLATTEN + CHECK
DISCARD, REUSE, FALLOC, FULL = 16, 32, 64, 128
NEVER = 128  # with the image file: no subclusters
RECREATE = (
    create(1, 0, 0, 1) + create(1, 0, 0, 1, 0, DISCARD) + FLATTEN + create(1, 0, 0, 0)
    + create(1, 0, 0, 0, 0, DISCARD) + create(0, 1, 2 | NEVER, 1, 1 << 20)
)
# The same names, other ones of the same files, and what must be refused.
REBASE = rebase(0, 1) + rebase(4, 2) + CHECK + rebase(5, 1) + rebase(7, 7) + rebase(1, 0)


def read_vector(folder):
    """Header and bitmaps, and the sizes of the three files."""
    with tarfile.open(folder / "disk.tar.xz") as archive:
        add_cow = archive.extractfile("./x.add-cow").read()
        sizes = {member.name: member.size for member in archive.getmembers()}
    header = add_cow[:HEADER_SIZE].rstrip(b"\0")
    place = HEADER_SIZE + CLUSTER  # of all these small disks
    bitmap, subclusters = (part.rstrip(b"\0") for part in (add_cow[HEADER_SIZE:place], add_cow[place:]))
    return (header, bitmap, subclusters[:1024],  # else it is too long for the fuzzer
            len(add_cow), sizes["./disk.raw"], sizes.get("./b.img", 0))


def put(fuzzer, name, content):
    folder = TOP / "corpus" / fuzzer
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(content)


def main():
    for folder in sorted(p for p in VECTORS.iterdir() if p.is_dir()):
        header, bitmap, subclusters, add_cow, image, backing = read_vector(folder)
        put("header", folder.name, header)
        start = scene(image, backing, add_cow, header, bitmap, subclusters=subclusters)
        put("image", folder.name, start + TOUR)
        put("verbs", folder.name, start + VERBS)

    half = 8 * CLUSTER
    for name, flags in [
        ("plain", 0), ("no-punch", NO_PUNCH), ("no-zero-range", NO_PUNCH | NO_ZERO_RANGE),
        ("no-seek", NO_SEEK | BACKING_NO_SEEK), ("coarse", COARSE), ("device", BLOCK_DEVICE),
        ("read-only", READ_ONLY), ("add-cow-read-only", ADD_COW_READ_ONLY),
    ]:
        start = scene(half + 1000, 5 * CLUSTER + 77, flags=flags, made=WITH_BACKING,
                      bitmap=b"\x21\0", seed=flags)
        put("image", name, start + TOUR)
        put("verbs", name, start + VERBS)
        put("verbs", f"create-{name}", start + RECREATE)
        put("verbs", f"rebase-{name}", start + REBASE)
    for name, made in [("no-backing", 0), ("all-allocated-flag", WITH_BACKING | ALL_ALLOCATED),
                       ("qcow2", WITH_BACKING | QCOW2)]:
        start = scene(half, half, made=made, bitmap=b"\x0f\xff\xff")
        put("image", name, start + TOUR)
        put("verbs", name, start + VERBS)
    # Both bitmaps, of small disks: each kind of what lies at an end, and stray bits.
    for name, made, flags, bits, units in [
        ("", 0, 0, b"\x24", b"\x01\x80\xff\xff\x55\x55\0\0\xaa\xaa\0\0\0\0\0\x80\x21"),
        ("-empty", 0, 0, b"", b""),
        ("-stray", 0, 0, b"\0\xfe\xff", bytes(17) + b"\xff" * 9),
        ("-off", SUBCLUSTERS_OFF, 0, b"\x20", b"\x01\x80"),
        ("-of-all", 0, 0, b"", b"\xff" * 17),
        ("-all-allocated", ALL_ALLOCATED, 0, b"\xff\x01", b"\x0f"),
        ("-no-punch", 0, NO_PUNCH | NO_ZERO_RANGE, b"\x20", b"\x01\x80\0\xff"),
        ("-no-seek", 0, NO_SEEK | BACKING_NO_SEEK, b"\x20", b"\x01\x80\0\xff"),
        ("-read-only", 0, READ_ONLY, b"\x20", b"\x01\x80\0\xff"),
    ]:
        start = scene(half + 9000, 5 * CLUSTER + 77, flags=flags, seed=len(name),
                      made=WITH_BACKING | SUBCLUSTERS | made, bitmap=bits, subclusters=units)
        put("image", f"subclusters{name}", start + TOUR)
        put("image", f"subclusters{name}-small", start + SMALL)
        put("verbs", f"subclusters{name}", start + VERBS)
        put("verbs", f"subclusters{name}-recreate", start + RECREATE)
        put("verbs", f"subclusters{name}-rebase", start + REBASE)
    for name, made in [("new", 0), ("off", SUBCLUSTERS_OFF), ("never", NO_SUBCLUSTERS)]:
        start = scene(half + 9000, 5 * CLUSTER + 77, made=WITH_BACKING | made, bitmap=b"\x20")
        put("image", f"subclusters-{name}", start + SMALL)
        put("verbs", f"subclusters-{name}", start + VERBS)
    place = HEADER_SIZE + CLUSTER
    for name, add_cow in [("least", place + 17), ("too-short", place + 16),
                          ("longest", place + CLUSTER), ("too-long", place + CLUSTER + 1),
                          ("no-place", place)]:
        start = scene(half + 9000, 5 * CLUSTER, add_cow, made=WITH_BACKING | SUBCLUSTERS,
                      subclusters=b"\x01" + bytes(15) + b"\x01")
        put("image", f"subclusters-{name}", start + SMALL)
        put("verbs", f"subclusters-{name}", start + VERBS)
    # What lies there before the flag is set must not count then, in other pages either.
    start = scene(300 << 20, 5 * CLUSTER, made=WITH_BACKING, bitmap=b"\x20", subclusters=b"\x02")
    put("image", "subclusters-old-bits", start + write((300 << 20) - 70000, 100) + FLUSH + KILL)
    # The second bitmap lies behind more than one unit of the first.
    for name, image in [("far", 1 << 42), ("largest", (1 << 63) - (1 << 31))]:
        start = scene(image, 1 << 40, made=WITH_BACKING | SUBCLUSTERS, subclusters=b"\x02\x80")
        put("image", f"subclusters-{name}", start + write(image - 70000, 100) + read(0, 70000)
            + FLUSH + map_range(0, 262144) + KILL + write(100000, 5000, FUA) + REOPEN)
        put("verbs", f"subclusters-{name}", start + INFO + CHECK + MAP)

    for name, image, add_cow in [
        ("4tib", 1 << 42, HEADER_SIZE + (1 << 23)), ("largest", (1 << 63) - (1 << 31), 1 << 45),
        ("short-bitmap", 1 << 42, HEADER_SIZE + (1 << 23) - 512), ("word-border", 65 * CLUSTER, 0),
        ("page-border", 32769 * CLUSTER, HEADER_SIZE + CLUSTER),
    ]:
        start = scene(image, 1 << 40, add_cow, made=WITH_BACKING, bitmap=b"\xff" * 9)
        put("image", name, start + write(image - 70000, 65536) + read(image - 1, 1) + FLUSH
            + map_range(0, 262144) + KILL + write(63 * CLUSTER, CLUSTER + 5, FUA) + REOPEN)
        put("verbs", name, start + INFO + CHECK + ALL + MAP + create(1, 0, 0, 1))

    for name, fields in [("", 3), ("-size", 1), ("-time", 2), ("-none", 0), ("-all", 0xffffffff)]:
        header = scene_header(image=b"disk.raw", backing=b"base.img", identity=fields)
        put("header", f"identity{name}", header)
        put("verbs", f"identity{name}", scene(half, 5 * CLUSTER, header=header, bitmap=b"\x21")
            + REBASE + INFO)
        put("image", f"identity{name}", scene(half, 5 * CLUSTER, header=header, bitmap=b"\x21")
            + TOUR)
    shorter = scene_header(image=b"disk.raw", backing=b"base.img", identity=3)
    put("verbs", "shorter-base", scene(half, 4 * CLUSTER, header=shorter) + CHECK + FLATTEN
        + INFO + rebase(0, 1) + CHECK + FLATTEN)
    put("verbs", "preallocated", scene(half, 5 * CLUSTER, made=WITH_BACKING)
        + create(0, 1, 2, 1, 1 << 20, FALLOC) + create(0, 3, 2, 1, 1 << 20)
        + create(0, 1, 8, 1, 1 << 20, FULL))
    put("header", "all-ones", b"ADD_COW\xff" + b"\xff" * 88)
    put("header", "no-backing", scene_header(image=b"disk.raw"))
    put("header", "longest-name", scene_header(image=b"a" * 4015))
    put("header", "names-fill-all", scene_header(image=b"a" * 2000, backing=b"b" * 2016))
    for at in (4094, 4095):  # the last place for a name, and one too far
        header = bytearray(scene_header(image=b"a").ljust(HEADER_SIZE, b"\0"))
        header[20:24] = struct.pack("<I", at)
        header[at] = ord("a")
        put("header", f"name-at-{at}", bytes(header).rstrip(b"\0"))
    put("header", "names-overlap", scene_header(image=b"aaaa", backing=b"bbbb", move=-1))
    put("image", "aliases", scene(half, half, header=scene_header(image=b"hard.raw", backing=b"link"),
                                  bitmap=b"\0") + TOUR)
    put("image", "link", scene(half, half, header=scene_header(image=b"link", backing=b"base.img"),
                               bitmap=b"\0") + TOUR)
    put("image", "own-file", scene(half, half, header=scene_header(image=b"/vm/../vm/copy.add-cow"),
                                   bitmap=b"\0") + TOUR)


def scene_header(image, backing=b"", move=0, identity=None):
    """A header, up to the last name. The backing file's name comes second. With the
    fields of an identity: of a base of five clusters, and all of the page."""
    second = 80 + len(image) + move
    header = struct.pack(
        "<8sIIIIIQQI16s16s", b"ADD_COW\xff", 1, second if backing else 0, len(backing), 80, len(image),
        2 | bool(backing), 0 if identity is None else 1 << 16, 1, b"raw" if backing else b"",
        b"raw")
    assert len(header) == 80
    header = (header + image)[:second] + backing if backing else header + image
    if identity is None:
        return header
    record = struct.pack("<IIQqII", 1, identity, 5 * CLUSTER, 0, 0, 0)
    return header.ljust(3840, b"\0") + record


if __name__ == "__main__":
    main()
