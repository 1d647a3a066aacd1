#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the fuzzers' seed corpus: fuzz/make-corpus.py

Takes the golden images (tests/vectors*) and some scenes of its own, of both revisions,
and writes them to fuzz/corpus/{header,image,verbs}/seed-*, in the encodings that
header_fuzzer.cc, scene.h, image_fuzzer.cc, verbs_fuzzer.cc and verbs_anew.cc describe.
Only header, bitmap and sizes are kept of an image, not its data. Other files of
the corpus (inputs that once found a bug) are left alone. The headers, sound and with
each rule broken, are in corpus_headers.py.
"""

import pathlib
import struct
import tarfile

from corpus_headers import Header, headers_of

TOP = pathlib.Path(__file__).resolve().parent
VECTORS = [TOP.parent / "tests" / name for name in ("vectors", "vectors-acow")]
HEADER_SIZE = 4096
CLUSTER = 65536
KIB4, KIB8, MIB2 = 4096, 8192, 2 << 20

NO_PUNCH, NO_ZERO_RANGE, NO_SEEK, COARSE = 1, 2, 4, 8
BLOCK_DEVICE, BACKING_NO_SEEK, READ_ONLY, ADD_COW_READ_ONLY = 16, 32, 64, 128
WITH_BACKING, ALL_ALLOCATED, QCOW2 = 1, 2, 4
SUBCLUSTERS, NO_SUBCLUSTERS, SUBCLUSTERS_OFF, IDENTITY, OTHER_BITS = 8, 16, 32, 64, 128
FUA, KEEP_STORAGE, FAST_ONLY, ALIGNED = 0x10, 0x20, 0x40, 0x80


def size(value):
    """A size: 32 bits, and how far they are shifted. Of a larger one the low bits go."""
    shift = max(0, value.bit_length() - 32)
    return struct.pack("<IB", value >> shift, shift)


def scene(image, backing, add_cow=0, header=b"", bitmap=b"", flags=0, made=0, seed=1,
          subclusters=b"", cluster=None):
    """With a cluster size: of revision 20."""
    return (
        bytes([flags, made, seed])
        + size(image) + size(backing) + size(add_cow)
        + struct.pack("<HHHB", len(header), len(bitmap), len(subclusters),
                      cluster.bit_length() - 12 if cluster else 0)
        + header + bitmap + subclusters
    )


def operation(code, offset=0, length=0, options=0):
    return bytes([code | options]) + size(offset) + length.to_bytes(3, "little")


def write(offset, length, options=0): return operation(0, offset, length, options)
def zero(offset, length, options=0): return operation(4, offset, length, options)
def read(offset, length): return operation(7, offset, length)
def map_range(offset, length): return operation(9, offset, length)
def copy_up(cluster, count, c=CLUSTER): return operation(10, cluster * c, count)
def prefetch(offset, length): return operation(14, offset, length)


FLUSH, REOPEN, KILL = operation(8), operation(11), operation(12)
MAP_ALL, ZERO_ALL = operation(13), operation(15)

def tour(c=CLUSTER):
    """Everything that an engine does, on any disk of eight clusters or more."""
    return (
        write(1000, 5000) + read(0, 70000) + FLUSH + zero(c + 10, 3 * c)
        + map_range(512, 300000) + write(2 * c, c, FUA) + KILL + copy_up(3, 2, c)
        + zero(4 * c, c, KEEP_STORAGE | ALIGNED) + REOPEN + prefetch(0, 100000)
        + zero(0, 1000, FAST_ONLY) + MAP_ALL + FLUSH + ZERO_ALL
    )


def small(c=CLUSTER):
    """Small writes: parts of subclusters, whole ones, those that complete a cluster, and the
    last, partial one of a disk of eight clusters and 9000 bytes; lost, flushed, and durable."""
    return (
        write(5000, 100) + write(8192, 4096) + write(c + 4464, 20000) + map_range(0, 4 * c) + KILL
        + write(5000, 100) + FLUSH + write(12000, 600) + KILL + zero(3 * c + 100, 5000)
        + write(8 * c + 8192, 808, FUA) + write(c, c - 4096) + FLUSH
        + write(2 * c - 4096, 4096) + zero(6 * c, 8192, KEEP_STORAGE) + REOPEN + MAP_ALL
        + write(4 * c + 4095, 2, FUA) + copy_up(0, 5, c) + KILL + copy_up(0, 4, c)
        + copy_up(4, 4, c) + copy_up(8, 1, c) + FLUSH + REOPEN
    )


TOUR, SMALL = tour(), small()

INFO, MAP, CHECK, LEAKS, ALL, FLATTEN = (bytes([i]) for i in range(6))


# In the order of verbs_anew.cc; the last is none.
FORMS = (CLUSTER, KIB4, KIB8, 16384, 32768, 2 * CLUSTER, 4 * CLUSTER, 1 << 20, 8 * CLUSTER,
         CLUSTER, MIB2, KIB4, 3 * CLUSTER)


def form(cluster):
    """The byte for revision 20 with such clusters, or for version 1 without."""
    return FORMS.index(cluster) << 1 | 1 if cluster else 0


def create(force, target, image, backing, new_size=0, more=0, cluster=None):
    return bytes([6, force | target << 1 | more, image, backing, form(cluster)]) + size(new_size)


def rebase(image, backing): return bytes([7, image, backing])
def convert(cluster=None, off=0): return bytes([8, form(cluster) | off])
def import_layer(how): return bytes([131, how, 3, 40, 1, 200, 7, 7, 100, 9])
def export(target, force=0): return bytes([130, target | force << 3])
def commit(how=0): return bytes([138, how])
def rebase_data(name): return bytes([142, name])
def resize(to, kind=0): return bytes([RESIZE, kind | SHRINK]) + size(to)


COMPARE, MEASURE_QCOW2, LIST = bytes([135]), bytes([136, 1]), bytes([137])
DATA = COMPARE + MEASURE_QCOW2 + rebase_data(1) + commit(1) + commit() + COMPARE
# To new files, in place of an empty one and of one that it made, and of the image's own.
EXPORT = export(0) + export(1) + export(2, 1) + export(0, 1) + export(3, 1) + export(5, 1)

VERBS = INFO + MAP + CHECK + ALL + FLATTEN + CHECK
DISCARD, REUSE, FALLOC, FULL = 16, 32, 64, 128
NEVER = 128  # with the image file: no subclusters
OFF = 32  # with convert
RESIZE, GROW_BY, SHRINK_BY, SHRINK = 134, 1, 2, 4
RECREATE = (
    create(1, 0, 0, 1) + create(1, 0, 0, 1, 0, DISCARD) + FLATTEN + create(1, 0, 0, 0)
    + create(1, 0, 0, 0, 0, DISCARD) + create(0, 1, 2 | NEVER, 1, 1 << 20)
)
# The same names, other ones of the same files, and what must be refused.
REBASE = rebase(0, 1) + rebase(4, 2) + CHECK + rebase(5, 1) + rebase(7, 7) + rebase(1, 0)
# To larger and smaller clusters, there and back, with and without subclusters.
CONVERT = convert(KIB4) + convert(KIB8) + CHECK + convert(MIB2) + convert() + MAP
CONVERT_OFF = convert(CLUSTER) + convert(KIB8, OFF) + INFO + convert(CLUSTER) + convert() + CHECK
# To and fro, over the ends of clusters and inside of them.
RESIZES = (
    resize(100000, GROW_BY) + resize(70000, SHRINK_BY) + CHECK + resize(9 * CLUSTER) + resize(5000)
    + resize(9 * CLUSTER)
)
RECREATE_20 = (
    create(1, 0, 0, 1, 0, DISCARD, KIB4) + CHECK + create(1, 0, 0, 1, 0, DISCARD, MIB2)
    + create(1, 0, 0, 0, 0, DISCARD, KIB8) + FLATTEN + create(0, 1, 2 | NEVER, 1, 1 << 20, 0, CLUSTER)
)


def read_vector(folder):
    """Header and bitmaps, and the sizes of the three files."""
    with tarfile.open(folder / "disk.tar.xz") as archive:
        sizes = {member.name: member.size for member in archive.getmembers()}
        name = next(name for name in sizes if name.endswith(".add-cow"))
        add_cow = archive.extractfile(name).read()
    later = add_cow.startswith(b"ACOW")
    unit = 1 << struct.unpack_from("<I", add_cow, 20)[0] if later else CLUSTER
    start = max(HEADER_SIZE, unit) if later else HEADER_SIZE
    place = start + unit  # of all these small disks

    def named(at):
        offset, length = struct.unpack_from("<II", add_cow, at)
        return sizes.get("./" + add_cow[offset:offset + length].decode("latin-1"), 0)

    header, bitmap, subclusters = (
        part.rstrip(b"\0") for part in (add_cow[:start], add_cow[start:place], add_cow[place:]))
    # Else it is too long for the fuzzer.
    return (header[:HEADER_SIZE].rstrip(b"\0"), bitmap, subclusters[:1024],
            len(add_cow), named(12 if later else 20), named(4 if later else 12))


def put(fuzzer, name, content):
    folder = TOP / "corpus" / fuzzer
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(content)


# What peers say to a control socket, see control_fuzzer.cc.
CONTROL = {
    "status": ['{"execute": "status", "id": 1}', '{"execute": "status", "id": "a"}'],
    "flush": ['{"execute": "flush"}', '{"execute": "flush", "id": null}', "garbage"] * 3,
    "fill": ['{"execute": "fill", "arguments": {"action": "start", "mode": "all", "rate": 5}}',
             '{"execute": "fill", "arguments": {"action": "start", "mode": "touched"}}',
             '{"execute": "fill", "arguments": {"action": "pause"}}',
             '{"execute": "fill", "arguments": {"action": "resume"}}',
             '{"execute": "fill", "arguments": {"action": "rate", "rate": 0}}'],
    "wrong": ["", "[]", "{}", '{"execute": 1}', '{"execute": "x", "y": 1}',
              '{"execute": "fill", "arguments": 5}', '{"execute": "status", "id": []}',
              '{"execute": "fill", "arguments": {"action": "rate", "rate": -1}}'],
    "long": ["x" * 4097, '{"execute": "status"}'],
    "nested": ["[" * 2000 + "]" * 2000, '{"a":' * 500],
}


def main():
    for name, lines in CONTROL.items():
        put("control", name, "".join(line + "\n" for line in lines).encode())
    for folder in sorted(p for path in VECTORS for p in path.iterdir() if p.is_dir()):
        header, bitmap, subclusters, add_cow, image, backing = read_vector(folder)
        put("header", folder.name, header)
        start = scene(image, backing, add_cow, header, bitmap, subclusters=subclusters)
        put("image", folder.name, start + TOUR)
        put("verbs", folder.name, start + VERBS)
        put("verbs", f"{folder.name}-data", start + DATA)
        put("verbs", f"{folder.name}-import", start + LIST + import_layer(len(header) % 251) + LIST)
        put("verbs", f"{folder.name}-export", start + EXPORT)

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
        put("verbs", f"export-{name}", start + EXPORT)
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
        put("verbs", f"subclusters{name}-export", start + EXPORT)
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
        header = Header(identity=fields).bytes()
        put("header", f"identity{name}", header)
        put("verbs", f"identity{name}", scene(half, 5 * CLUSTER, header=header, bitmap=b"\x21")
            + REBASE + INFO)
        put("image", f"identity{name}", scene(half, 5 * CLUSTER, header=header, bitmap=b"\x21")
            + TOUR)
    for name, fields, algorithm, edge in [
        ("", 3, 1, 65536), ("-unknown", 3, 2, 65536), ("-no-size", 2, 1, 65536), ("-no-edge", 3, 1, 0),
        ("-most", 1, 1, 1 << 20), ("-too-much", 1, 1, (1 << 20) + 1), ("-all-ones", 1, 1, 0xffffffff),
    ]:
        header = Header(identity=fields, algorithm=algorithm, edge=edge).bytes()
        put("header", f"identity-hash{name}", header)
        put("image", f"identity-hash{name}", scene(half, 5 * CLUSTER, header=header, bitmap=b"\x21")
            + TOUR)
        put("verbs", f"identity-hash{name}", scene(half, 5 * CLUSTER, header=header, bitmap=b"\x21")
            + INFO + CHECK + REBASE + INFO)
    for name, base, seed in [("small", 5 * CLUSTER, 1), ("large", 1 << 40, 1), ("large-most", 1 << 40, 3)]:
        start = scene(half, base, made=WITH_BACKING | IDENTITY, bitmap=b"\x21", seed=seed)
        put("image", f"hash-{name}", start + TOUR)
        put("verbs", f"hash-{name}", start + VERBS)
    shorter = Header(identity=3).bytes()
    put("verbs", "shorter-base", scene(half, 4 * CLUSTER, header=shorter) + CHECK + FLATTEN
        + INFO + rebase(0, 1) + CHECK + FLATTEN)
    put("verbs", "preallocated", scene(half, 5 * CLUSTER, made=WITH_BACKING)
        + create(0, 1, 2, 1, 1 << 20, FALLOC) + create(0, 3, 2, 1, 1 << 20)
        + create(0, 1, 8, 1, 1 << 20, FULL))
    for name, header in headers_of():
        put("header", name, header)
    later_revision(half)
    for revision, prefix in ((1, ""), (20, "revision20-")):
        for name, image, backing in [("aliases", b"hard.raw", b"link"), ("link", b"link", b"base.img"),
                                     ("own-file", b"/vm/../vm/copy.add-cow", b""),
                                     ("on-version-1", b"disk.raw", b"v1.add-cow"),
                                     ("on-revision-20", b"disk.raw", b"v20.add-cow"),
                                     ("in-revision-20", b"v20.add-cow", b"base.img")]:
            header = Header(image, backing, revision).bytes()
            put("image", prefix + name, scene(half, half, header=header, bitmap=b"\0") + TOUR)
    put("verbs", "others", scene(half, half, made=WITH_BACKING) + rebase(0, 9) + rebase(0, 10)
        + rebase(9, 0) + rebase(10, 1) + create(0, 1, 2, 11, 1 << 20) + create(0, 1, 11, 1))


def later_revision(half):
    """Of revision 20: disks with clusters of each kind, and what differs from version 1."""
    bits = b"\x21\x02"
    for name, c in [("4k", KIB4), ("8k", KIB8), ("64k", CLUSTER), ("2m", MIB2)]:
        disk, base = 8 * c + 9000, 5 * c + 77
        start = scene(disk, base, made=WITH_BACKING | IDENTITY, bitmap=bits, cluster=c)
        put("image", f"revision20-{name}", start + tour(c))
        put("image", f"revision20-{name}-small", start + small(c))
        put("verbs", f"revision20-{name}", start + VERBS)
        put("verbs", f"revision20-{name}-recreate", start + RECREATE_20)
        put("verbs", f"revision20-{name}-convert", start + CONVERT)
        put("verbs", f"revision20-{name}-resize", start + RESIZES)
        if c == KIB4:
            continue
        start = scene(disk, base, made=WITH_BACKING | SUBCLUSTERS, bitmap=b"\x04", cluster=c,
                      subclusters=b"\x05\x80\xff\x03\x40")
        put("image", f"revision20-{name}-subclusters", start + small(c))
        put("verbs", f"revision20-{name}-subclusters", start + VERBS)
        put("verbs", f"revision20-{name}-subclusters-convert", start + CONVERT)
        put("verbs", f"revision20-{name}-subclusters-resize", start + RESIZES)
        put("verbs", f"revision20-{name}-subclusters-export", start + EXPORT)
        put("verbs", f"revision20-{name}-subclusters-convert-off", start + CONVERT_OFF)
    for name, flags in [
        ("no-punch", NO_PUNCH | NO_ZERO_RANGE), ("no-seek", NO_SEEK | BACKING_NO_SEEK),
        ("device", BLOCK_DEVICE), ("read-only", READ_ONLY), ("add-cow-read-only", ADD_COW_READ_ONLY),
    ]:
        start = scene(half + 1000, 5 * CLUSTER + 77, flags=flags, made=WITH_BACKING, bitmap=bits,
                      cluster=KIB8)
        put("image", f"revision20-{name}", start + tour(KIB8))
        put("verbs", f"revision20-{name}", start + VERBS)
        put("verbs", f"revision20-{name}-convert", start + CONVERT_OFF)
    for name, made, bitmap, add_cow in [
        ("no-backing", ALL_ALLOCATED, b"", 0),  # as the published program makes it
        ("no-backing-no-flag", 0, b"\x01", 0), ("all-allocated", WITH_BACKING | ALL_ALLOCATED, b"\x01", 0),
        ("qcow2", WITH_BACKING | QCOW2, b"\x01", 0), ("never", WITH_BACKING | NO_SUBCLUSTERS, bits, 0),
        ("other-bits", WITH_BACKING | OTHER_BITS, bits, 0), ("stray", WITH_BACKING, b"\xff" * 40, 0),
        ("unpadded", WITH_BACKING, bits, KIB8 + 9), ("too-short", WITH_BACKING, bits, KIB8 + 7),
        ("too-long", WITH_BACKING, bits, 5 * KIB8),
    ]:
        start = scene(half, half - 3000, add_cow, made=made, bitmap=bitmap, cluster=KIB8)
        put("image", f"revision20-{name}", start + small(KIB8))
        put("verbs", f"revision20-{name}", start + VERBS)
        put("verbs", f"revision20-{name}-convert", start + INFO + convert() + CHECK + convert(CLUSTER)
            + rebase(0, 1) + CHECK)
    # And what upgrade finds in version 1.
    for name, made in [("", 0), ("-other-bits", OTHER_BITS), ("-identity", IDENTITY),
                       ("-never", NO_SUBCLUSTERS), ("-all-allocated", ALL_ALLOCATED),
                       ("-subclusters", SUBCLUSTERS)]:
        start = scene(half + 9000, 5 * CLUSTER + 77, made=WITH_BACKING | made, bitmap=bits,
                      subclusters=b"\x01\x80" * 4 if made == SUBCLUSTERS else b"")
        put("verbs", f"convert{name}", start + CONVERT)
        put("verbs", f"resize{name}", start + RESIZES)
        put("verbs", f"convert{name}-off", start + CONVERT_OFF)
    for name, c, image, made, add_cow in [
        ("4tib", KIB4, 1 << 42, 0, HEADER_SIZE + (1 << 27)), ("far", KIB8, 1 << 42, SUBCLUSTERS, 0),
        ("largest", MIB2, (1 << 63) - (1 << 31), SUBCLUSTERS, 0),
    ]:
        start = scene(image, 1 << 40, add_cow, made=WITH_BACKING | made, bitmap=b"\x21",
                      subclusters=b"\x02", cluster=c)
        put("image", f"revision20-{name}", start + write(image - 70000, 65536) + FLUSH
            + map_range(0, 262144) + KILL + write(5 * c, 5000, FUA) + REOPEN)
        put("verbs", f"revision20-{name}", start + INFO + CHECK + convert(CLUSTER) + MAP)


if __name__ == "__main__":
    main()
