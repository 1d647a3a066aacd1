#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the golden images of the subcluster bitmap: tests/vectors/make-subclusters.py

Byte by byte from docs/format.md, "Subcluster bitmap"; shares no code with the
project. Writes *subclusters*/disk.tar.xz and expect.json beside itself, the same
bytes each time. The image file has data everywhere, so whoever reads it where the
backing file, or nobody, has the bytes is found out.
"""

import sys

sys.dont_write_bytecode = True  # a directory here is an image
from golden import *

SUBCLUSTERS, NO_SUBCLUSTERS = 1 << 16, 1 << 17
UNIT = 4096

SIZE = 9 * CLUSTER + 3 * UNIT + 777  # the last cluster has four subclusters, the last is partial
BASE_SIZE = 6 * CLUSTER + 5 * UNIT + 1234  # ends inside of a subcluster that it supplies
CLUSTERS, UNITS = 10, 9 * 16 + 4
PLACE = 4096 + CLUSTER


def pattern(name, count):
    """Each sector is another, in each file, and says where it belongs."""
    sectors = (f"{name} {i:6} ".encode() * 512 for i in range(-(-count // 512)))
    return b"".join(sector[:512] for sector in sectors)[:count]


def bitmap(numbers):
    out = bytearray(max(numbers, default=0) // 8 + 1)
    for number in numbers:
        out[number // 8] |= 1 << number % 8
    return bytes(out)


def of(cluster, *units):
    return [16 * cluster + unit for unit in units]


def runs(numbers):
    out = []
    for number in sorted(numbers):
        if out and sum(out[-1]) == number:
            out[-1][1] += 1
        else:
            out.append([number, 1])
    return out


def add_cow(features, clusters, units, end, optional=0):
    """Up to the byte `end`."""
    page = header(features, optional)
    return (page + padded(bitmap(clusters)) + bitmap(units)).ljust(end, b"\0")[:end]


ALLOCATED = [3, 7]
PARTIAL = (
    of(0, 0)  # the first one of a cluster
    + of(1, 15)  # the last
    + of(2, *range(16))  # all, but the cluster has no bit
    # 3: a cluster with its bit and none of these. 4: nothing.
    + of(5, *range(0, 16, 2))
    + of(6, 4, 7)  # before the backing file's end, in subcluster 5, and after
    # 8: nothing, past that end
    + of(9, 0, 3)  # the last, partial one
)
IGNORED = of(7, 1, 2, 14)  # in a cluster with its bit
STRAY_CLUSTERS = [CLUSTERS, CLUSTERS + 3, 90]
STRAY_UNITS = [UNITS, UNITS + 1, UNITS + 20, 8 * CLUSTER - 1]
NEEDED, PADDED = PLACE + -(-UNITS // 8), PLACE + CLUSTER

base = pattern("base", BASE_SIZE)
image = pattern("image", SIZE)


def disk(clusters, units):
    out = bytearray(base[:SIZE].ljust(SIZE, b"\0"))
    for unit in {u for cluster in clusters for u in of(cluster, *range(16))} | set(units):
        at = slice(unit * UNIT, (unit + 1) * UNIT)
        out[at] = image[at]
    return bytes(out)


def make(name, metadata, expect):
    put(name, {"b.img": base, "disk.raw": image, "x.add-cow": metadata}, expect)


def readable(clusters, units):
    expect = valid(disk(clusters, units), runs(clusters))
    whole = {u for cluster in clusters for u in of(cluster, *range(16)) if u < UNITS}
    return expect | {"in_image": runs(whole | set(units)),
                     "partial": [len({u // 16 for u in units}), len(units)]}


def invalid(field, why):
    return {"valid": False, "field": field, "why": why}


NAMES = BACKING_FILE | IMAGE_FILE
WITH = NAMES | SUBCLUSTERS
make("subclusters",
     add_cow(WITH, ALLOCATED + STRAY_CLUSTERS, PARTIAL + IGNORED + STRAY_UNITS, PADDED),
     readable(ALLOCATED, PARTIAL))
# A reader needs no padding.
make("subclusters-unpadded", add_cow(WITH, ALLOCATED, PARTIAL, NEEDED),
     readable(ALLOCATED, PARTIAL))
# Without the flag there is no such bitmap, whatever lies there.
make("subclusters-no-flag", add_cow(NAMES, ALLOCATED, PARTIAL + STRAY_UNITS, PADDED),
     readable(ALLOCATED, []))
# The same, made for readers that do not know of it.
make("no-subclusters", add_cow(NAMES, ALLOCATED, [], PLACE, NO_SUBCLUSTERS),
     readable(ALLOCATED, []))
make("subclusters-truncated", add_cow(WITH, ALLOCATED, PARTIAL, NEEDED - 1),
     invalid("subcluster bitmap", "one byte short"))
make("subclusters-misplaced", add_cow(WITH, ALLOCATED, PARTIAL, PADDED + 1),
     invalid("subcluster bitmap", "goes on after the padding"))
# ALL_ALLOCATED: the image file alone is the disk.
put("subclusters-all-allocated",
    {"disk.raw": image,
     "x.add-cow": add_cow(WITH | ALL_ALLOCATED, range(CLUSTERS), PARTIAL, PADDED)},
    valid(image, [[0, CLUSTERS]]))
