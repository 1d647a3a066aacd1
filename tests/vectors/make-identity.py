#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the golden images of the backing file's identity: tests/vectors/make-identity.py

Byte by byte from docs/format.md, "Identity of the backing file"; shares no code
with the project; hashes are those of xxhsum (package xxhash). Writes *identity*/disk.tar.xz and expect.json beside itself, the
same bytes each time. The archives keep the base's time to the nanosecond, since
that is a part of what is noted.
"""

import hashlib
import struct
import subprocess
import sys

sys.dont_write_bytecode = True  # a directory here is an image
from golden import *


def pattern(seed, count):
    """Bytes that are different all over, and in each file."""
    out = b""
    block = hashlib.sha256(seed.encode()).digest()
    while len(out) < count:
        block = hashlib.sha256(block).digest()
        out += block
    return out[:count]


def record(version, fields, size=0, seconds=0, nanoseconds=0, tail=b"", algorithm=0, digest=b""):
    head = struct.pack("<IIQqII", version, fields, size, seconds, nanoseconds, algorithm)
    return (head + digest.ljust(64, b"\0") + tail).ljust(256, b"\0")


def sample(base, edge):
    """Of the base, as "The sample" has it."""
    size = len(base)
    if size <= 2 * edge + 17 * 4096:
        return base
    pieces = [(0, edge)]
    for power in range(20, 31):
        if edge <= 2 ** power <= size - edge - 4096:
            pieces.append((2 ** power, 4096))
    for n in range(1, 17):
        pieces.append(((edge + n * ((size - 2 * edge) // 17)) // 4096 * 4096, 4096))
    pieces.append((size - edge, edge))
    return b"".join(base[at:at + length] for at, length in pieces)


def xxh3(data):
    shown = subprocess.run(["xxhsum", "-H2", "-"], input=data, capture_output=True, check=True)
    return bytes.fromhex(shown.stdout.split()[0].decode())


def make(directory, identity, shown):
    base = pattern("base", 3 * CLUSTER + 700)
    image = pattern("image", 4 * CLUSTER)
    disk = bytearray(base.ljust(4 * CLUSTER, b"\0"))
    disk[CLUSTER:2 * CLUSTER] = image[CLUSTER:2 * CLUSTER]  # cluster 1 is allocated
    page = header(BACKING_FILE | IMAGE_FILE, 1 << 16)
    page[3840:] = identity
    put(directory, {"b.img": base, "disk.raw": image, "x.add-cow": page + padded(b"\x02")},
        valid(disk, [[1, 1]], backing_identity=shown))


SIZE = 3 * CLUSTER + 700
make("identity", record(1, 3, SIZE, SECONDS, NANOSECONDS),
     {"size": SIZE, "modified": {"seconds": SECONDS, "nanoseconds": NANOSECONDS}})
# A later program's fields, and what it put behind them, are ignored.
make("identity-later-fields", record(1, 0xF1, SIZE - 1, 5, 5, b"\xa5" * 160), {"size": SIZE - 1})
# Of another version nothing is known: not that the base was longer, either.
make("identity-unknown-version", record(2, 3, 1 << 40, SECONDS, 0), None)

# With a hash: of all of the base, of pieces of it, of what nobody knows, and one that asks for
# too much.
known = {"size": SIZE, "modified": {"seconds": SECONDS, "nanoseconds": NANOSECONDS}}
for name, edge in [("identity-hash", 65536), ("identity-hash-pieces", 5000)]:
    digest = xxh3(sample(pattern("base", SIZE), edge))
    make(name, record(1, 3, SIZE, SECONDS, NANOSECONDS, struct.pack("<I", edge), 1, digest),
         dict(known, sample={"algorithm": "xxh3-128", "hash": digest.hex(), "edge-size": edge}))
make("identity-hash-unknown",
     record(1, 3, SIZE, SECONDS, NANOSECONDS, struct.pack("<I", 65536), 2, b"\x5a" * 64), known)
make("identity-hash-too-much",
     record(1, 3, SIZE, SECONDS, NANOSECONDS, struct.pack("<I", (1 << 20) + 1), 1, b"\x5a" * 16), known)

# In revision 20 it is at the end of a header that is longer.
small = 8192
base, image = sectors("base", 11 * small + 700), sectors("image", 12 * small)
disk = bytearray(base.ljust(len(image), b"\0"))
disk[small:2 * small] = image[small:2 * small]
page = acow_header(small, 0, 1 << 16)
page[-256:] = record(1, 3, len(base), SECONDS, NANOSECONDS)
put("acow-8k-identity",
    {"b.img": base, "disk.raw": image, "x.add-cow": page + padded(b"\x02", small)},
    valid(bytes(disk), [[1, 1]], revision=20, cluster_size=small, backing_identity={
        "size": len(base), "modified": {"seconds": SECONDS, "nanoseconds": NANOSECONDS}}))
