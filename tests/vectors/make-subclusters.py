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


def runs(numbers):
    out = []
    for number in sorted(numbers):
        if out and sum(out[-1]) == number:
            out[-1][1] += 1
        else:
            out.append([number, 1])
    return out


def invalid(field, why):
    return {"valid": False, "field": field, "why": why}


class Version1:
    prefix, cluster, padding, header_size = "", CLUSTER, CLUSTER, 4096
    expect = {}

    def header(self, subclusters=False, no_subclusters=False, all_allocated=False):
        return header(
            BACKING_FILE | IMAGE_FILE | (SUBCLUSTERS if subclusters else 0)
            | (ALL_ALLOCATED if all_allocated else 0), NO_SUBCLUSTERS if no_subclusters else 0)


class Revision20:
    def __init__(self, name, cluster):
        self.prefix, self.cluster, self.padding = f"acow-{name}-", cluster, cluster
        self.header_size = max(4096, cluster)
        self.expect = {"revision": 20, "cluster_size": cluster}

    def header(self, subclusters=False, no_subclusters=False, all_allocated=False):
        return acow_header(self.cluster, SUBCLUSTERS if subclusters else 0,
                           (NO_SUBCLUSTERS if no_subclusters else 0) | all_allocated)


class Disk:
    """Sizes are [clusters, subclusters, bytes]; subclusters {cluster: them}."""

    def __init__(self, form, size, base, allocated, partial, ignored):
        self.form, self.allocated = form, allocated
        self.per_cluster = form.cluster // UNIT
        size, base = (sum(a * b for a, b in zip(s, [form.cluster, UNIT, 1])) for s in (size, base))
        self.base, self.image = sectors("base", base), sectors("image", size)
        self.clusters, self.units = -(-size // form.cluster), -(-size // UNIT)
        self.partial, self.ignored = self.numbers(partial), self.numbers(ignored)
        self.stray_clusters = [self.clusters, self.clusters + 3, 90]
        self.stray_units = [self.units, self.units + 1, self.units + 20, 8 * form.padding - 1]
        bits = -(-self.clusters // 8)
        self.place = form.header_size + -(-bits // form.padding) * form.padding
        self.needed = self.place + -(-self.units // 8)
        self.padded = self.place + form.padding

    def numbers(self, units):
        return [self.per_cluster * cluster + u for cluster, some in units.items() for u in some]

    def whole(self, clusters):
        return self.numbers({cluster: range(self.per_cluster) for cluster in clusters})

    def contents(self, clusters, units):
        size = len(self.image)
        out = bytearray(self.base[:size].ljust(size, b"\0"))
        for unit in {*self.whole(clusters), *units}:
            at = slice(unit * UNIT, (unit + 1) * UNIT)
            out[at] = self.image[at]
        return bytes(out)

    def add_cow(self, clusters, units, end, **flags):
        """Up to the byte `end`."""
        start = self.form.header(**flags) + padded(bitmap(clusters), self.form.padding)
        return (start + bitmap(units)).ljust(end, b"\0")[:end]

    def readable(self, clusters, units):
        expect = valid(self.contents(clusters, units), runs(clusters), **self.form.expect)
        whole = {unit for unit in self.whole(clusters) if unit < self.units}
        return expect | {"in_image": runs(whole | set(units)),
                         "partial": [len({u // self.per_cluster for u in units}), len(units)]}

    def put(self, name, metadata, expect, base=True):
        files = {"b.img": self.base} if base else {}
        put(self.form.prefix + name, files | {"disk.raw": self.image, "x.add-cow": metadata}, expect)

    def make(self, name):
        allocated, partial, stray = self.allocated, self.partial, self.stray_units
        if name == "subclusters":
            self.put(name, self.add_cow(allocated + self.stray_clusters,
                                        partial + self.ignored + stray, self.padded,
                                        subclusters=True), self.readable(allocated, partial))
        elif name == "subclusters-unpadded":  # a reader needs no padding
            self.put(name, self.add_cow(allocated, partial, self.needed, subclusters=True),
                     self.readable(allocated, partial))
        elif name == "subclusters-no-flag":
            # Without the flag there is no such bitmap, whatever lies there.
            self.put(name, self.add_cow(allocated, partial + stray, self.padded),
                     self.readable(allocated, []))
        elif name == "no-subclusters":  # the same, made for readers that do not know of it
            self.put(name, self.add_cow(allocated, [], self.place, no_subclusters=True),
                     self.readable(allocated, []))
        elif name == "subclusters-truncated":
            self.put(name, self.add_cow(allocated, partial, self.needed - 1, subclusters=True),
                     invalid("subcluster bitmap", "one byte short"))
        elif name == "subclusters-misplaced":
            self.put(name, self.add_cow(allocated, partial, self.padded + 1, subclusters=True),
                     invalid("subcluster bitmap", "goes on after the padding"))
        elif name == "subclusters-all-allocated":  # the image file alone is the disk
            self.put(name, self.add_cow(range(self.clusters), partial, self.padded,
                                        subclusters=True, all_allocated=True),
                     valid(self.image, [[0, self.clusters]], **self.form.expect), base=False)
        else:
            raise ValueError(name)


def disk_of_64k(form):
    return Disk(
        form,
        [9, 3, 777],  # the last cluster has four subclusters, the last is partial
        [6, 5, 1234],  # ends inside of a subcluster that it supplies
        allocated=[3, 7],
        partial={
            0: [0],  # the first one of a cluster
            1: [15],  # the last
            2: range(16),  # all, but the cluster has no bit
            # 3: a cluster with its bit and none of these. 4: nothing.
            5: range(0, 16, 2),
            6: [4, 7],  # before the backing file's end, in subcluster 5, and after
            # 8: nothing, past that end
            9: [0, 3],  # the last, partial one
        },
        ignored={7: [1, 2, 14]})  # in a cluster with its bit


disk = disk_of_64k(Version1())
for name in ["subclusters", "subclusters-unpadded", "subclusters-no-flag", "no-subclusters",
             "subclusters-truncated", "subclusters-misplaced", "subclusters-all-allocated"]:
    disk.make(name)

# Revision 20 has the same bits behind a header as long as a cluster.
disk = disk_of_64k(Revision20("64k", CLUSTER))
for name in ["subclusters", "subclusters-no-flag", "no-subclusters", "subclusters-truncated",
             "subclusters-misplaced", "subclusters-all-allocated"]:
    disk.make(name)

# The largest clusters, of 512 subclusters.
disk = Disk(
    Revision20("2m", 2 << 20), [3, 3, 777], [1, 5, 1234], allocated=[2],
    partial={0: [0, 7, *range(8, 72), 511], 1: [4, 7, 300], 3: [0, 3]},
    ignored={2: [1, 2, 511]})
for name in ["subclusters", "subclusters-misplaced"]:
    disk.make(name)

# The smallest are subclusters themselves: the flag has nothing to say.
disk = Disk(Revision20("4k", UNIT), [9, 0, 0], [9, 0, 0], allocated=[3], partial={}, ignored={})
disk.put("subclusters", disk.add_cow([3], [], disk.padded, subclusters=True),
         invalid("SUBCLUSTERS", "with clusters of that size"))
