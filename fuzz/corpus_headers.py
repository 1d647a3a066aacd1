# SPDX-License-Identifier: LGPL-2.1-or-later
"""The headers of the fuzzers' seed corpus (make-corpus.py), of both revisions: sound ones, and
each rule of the tables in docs/format.md broken."""

import struct

BASE_SIZE = 5 * 65536
NO_BYTES = bytes.fromhex("99aa06d3014798d86001c324468d497f")  # their XXH3-128
FORMAT = {1: 16, 20: 15}  # the longest format name


class Header:
    """A header, up to its last name. The backing file's name comes second. With the fields
    of an identity: of a base of five clusters, and all of the header; its hash may be one
    of no bytes, with edges as given."""

    def __init__(self, image=b"disk.raw", backing=b"base.img", revision=1, bits=16, identity=None,
                 edge=0, algorithm=0):
        self.revision, self.bits, self.image, self.backing = revision, bits, image, backing
        self.start = 80 if revision == 1 else 76
        self.image_at = self.start
        self.backing_at = self.start + len(image) if backing else 0
        self.image_size, self.backing_size = len(image), len(backing)
        self.image_format, self.backing_format = b"raw", b"raw" if backing else b""
        self.features = 2 | bool(backing) if revision == 1 else 0
        self.identity, self.edge, self.algorithm = identity, edge, algorithm
        self.optional = 0 if identity is None else 1 << 16
        self.pages = 1
        self.version = 1
        self.length = 4096 if revision == 1 else max(4096, 1 << bits)
        self.header_size = self.length

    def bytes(self):
        names = (self.backing_at, self.backing_size, self.image_at, self.image_size)
        formats = (self.backing_format, self.image_format)
        if self.revision == 1:
            fields = struct.pack("<8sIIIIIQQI16s16s", b"ADD_COW\xff", self.version, *names,
                                 self.features, self.optional, self.pages, *formats)
        else:
            fields = struct.pack("<4sIIIIIQQI16s16s", b"ACOW", *names, self.bits, self.features,
                                 self.optional, self.header_size, *formats)
        assert len(fields) == self.start
        header = bytearray(fields)
        for at, name in ((self.image_at, self.image), (self.backing_at, self.backing)):
            # Further away the fuzzer puts letters.
            if name and self.start <= at and at + len(name) <= 4096:
                header.extend(bytes(max(0, at + len(name) - len(header))))
                header[at:at + len(name)] = name
        if self.identity is not None:
            header = header.ljust(self.length - 256, b"\0")
            header += struct.pack("<IIQqII", 1, self.identity, BASE_SIZE, 0, 0, self.algorithm)
            if self.algorithm:
                header += NO_BYTES + bytes(48) + struct.pack("<I", self.edge)
        return bytes(header)


def changed(revision, **fields):
    """A sound header but for these fields; `_bits`, `_image` and `_backing` are its own."""
    own = {name[1:]: value for name, value in fields.items() if name.startswith("_")}
    header = Header(revision=revision, **own)
    for name, value in fields.items():
        if not name.startswith("_"):
            assert hasattr(header, name), name
            setattr(header, name, value)
    return header.bytes()


def both(revision):
    """What the revisions have in common. Some lie inside of the rules, at their edge."""
    start, last = (80 if revision == 1 else 76), 4094
    longest = FORMAT[revision]
    bits = {"_bits": 12} if revision == 20 else {}
    return [
        ("no-backing", {"_backing": b""}),
        ("longest-name", {"_image": b"a" * (4096 - start - 1), "_backing": b"", **bits}),
        ("names-fill-all", {"_image": b"a" * 2000, "_backing": b"b" * (4096 - start - 2000), **bits}),
        ("name-at-last", {"_image": b"a", "image_at": last, **bits}),
        ("name-too-far", {"_image": b"a", "image_at": last + 1, **bits}),
        ("name-too-near", {"image_at": start - 1}),
        ("name-too-long", {"image_size": 4096 - start, **bits}),
        ("name-past-end", {"image_at": last, "image_size": 3, **bits}),
        ("name-empty", {"image_size": 0}),
        ("name-with-nul", {"_image": b"disk\0raw"}),
        ("names-overlap", {"_image": b"aaaa", "_backing": b"bbbb", "backing_at": start + 3}),
        ("backing-too-near", {"backing_at": 8}),
        ("backing-too-far", {"backing_at": last + 1, **bits}),
        ("backing-past-end", {"backing_at": last, "backing_size": 3, **bits}),
        ("backing-empty", {"backing_size": 0}),
        ("backing-without-offset", {"backing_at": 0}),
        ("backing-without-format", {"backing_format": b""}),
        ("format-without-backing", {"_backing": b"", "backing_format": b"raw"}),
        ("format-longest", {"backing_format": b"f" * longest}),
        ("format-odd", {"backing_format": b"ra w"}),
        ("format-goes-on", {"backing_format": b"raw\0w"}),
        ("image-without-format", {"image_format": b""}),
        ("image-qcow2", {"image_format": b"qcow2"}),
        ("unknown-bit", {"features": 1 << 20 | (3 if revision == 1 else 0)}),
        ("optional-bits", {"optional": (1 << 64) - 1}),
        ("with-subclusters", {"features": 1 << 16 | (3 if revision == 1 else 0)}),
    ]


def headers_of():
    """All, with their names."""
    found = [("all-ones", b"ADD_COW\xff" + b"\xff" * 88), ("revision20-all-ones", b"ACOW" + b"\xff" * 88)]
    for prefix, revision in (("", 1), ("revision20-", 20)):
        found += [(prefix + name, changed(revision, **fields)) for name, fields in both(revision)]
    found += [
        ("bad-version-2", changed(1, version=2)), ("no-pages", changed(1, pages=0)),
        ("no-image-flag", changed(1, features=1)), ("no-backing-flag", changed(1, features=2)),
        ("backing-flag", changed(1, features=3, _backing=b"")),
    ]
    for bits in (12, 13, 16, 21):
        found.append((f"revision20-{bits}-bits", changed(20, _bits=bits)))
    found += [
        ("revision20-too-few-bits", changed(20, _bits=11)),
        ("revision20-too-many-bits", changed(20, _bits=22)),
        ("revision20-other-size", changed(20, header_size=4096)),
        ("revision20-subclusters-4k", changed(20, _bits=12, features=1 << 16)),
        ("revision20-format-too-long", changed(20, backing_format=b"f" * 16)),
        ("revision20-identity", Header(revision=20, bits=12, identity=3).bytes()),
        # The rest of the header is letters then, and the record its last bytes: it is the
        # input's as well.
        ("revision20-far-names", changed(20, _bits=21, image_at=1 << 20, backing_at=(1 << 21) - 300)),
        ("revision20-far-identity", changed(20, optional=1 << 16)
         + struct.pack("<IIQqII", 1, 3, BASE_SIZE, 5, 7, 0).ljust(256, b"\0")),
    ]
    return found
