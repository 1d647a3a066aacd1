#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the golden images of the backing file's identity: tests/vectors/make-identity.py

Byte by byte from docs/format.md, "Identity of the backing file"; shares no code
with the project. Writes identity*/disk.tar.xz and expect.json beside itself, the
same bytes each time. The archives keep the base's time to the nanosecond, since
that is a part of what is noted.
"""

import hashlib
import io
import json
import lzma
import pathlib
import struct
import tarfile

TOP = pathlib.Path(__file__).resolve().parent
CLUSTER = 65536
SECONDS, NANOSECONDS = 1_000_000_000, 123_456_789  # 2001-09-09 01:46:40 UTC


def pattern(seed, count):
    """Bytes that are different all over, and in each file."""
    out = b""
    block = hashlib.sha256(seed.encode()).digest()
    while len(out) < count:
        block = hashlib.sha256(block).digest()
        out += block
    return out[:count]


def record(version, fields, size=0, seconds=0, nanoseconds=0, tail=b""):
    head = struct.pack("<IIQqII", version, fields, size, seconds, nanoseconds, 0)
    return (head + bytes(64) + tail).ljust(256, b"\0")


def add_cow(identity, bits, optional=1 << 16):
    names = {"b.img": 1000, "disk.raw": 2000}
    header = bytearray(4096)
    header[:48] = struct.pack(
        "<8sIIIIIQQI", b"ADD_COW\xff", 1, names["b.img"], 5, names["disk.raw"], 8,
        0b011, optional, 1)
    header[48:51] = header[64:67] = b"raw"
    for name, at in names.items():
        header[at:at + len(name)] = name.encode()
    header[3840:] = identity
    return bytes(header) + bits.ljust(CLUSTER, b"\0")


def archive(files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo("./" + name)
            info.size = len(content)
            info.mode = 0o644
            info.pax_headers = {"mtime": f"{SECONDS}.{NANOSECONDS:09}"}
            tar.addfile(info, io.BytesIO(content))
    return lzma.compress(raw.getvalue(), preset=6)


def make(directory, identity, shown):
    base = pattern("base", 3 * CLUSTER + 700)
    image = pattern("image", 4 * CLUSTER)
    disk = bytearray(base.ljust(4 * CLUSTER, b"\0"))
    disk[CLUSTER:2 * CLUSTER] = image[CLUSTER:2 * CLUSTER]  # cluster 1 is allocated
    path = TOP / directory
    path.mkdir(exist_ok=True)
    (path / "disk.tar.xz").write_bytes(archive(
        {"b.img": base, "disk.raw": image, "x.add-cow": add_cow(identity, b"\x02")}))
    expect = {"valid": True, "virtual_size": 4 * CLUSTER, "allocated": [[1, 1]],
              "sha256": hashlib.sha256(disk).hexdigest(), "backing_identity": shown}
    (path / "expect.json").write_text(json.dumps(expect, indent=1) + "\n")


SIZE = 3 * CLUSTER + 700
make("identity", record(1, 3, SIZE, SECONDS, NANOSECONDS),
     {"size": SIZE, "modified": {"seconds": SECONDS, "nanoseconds": NANOSECONDS}})
# A later program's fields, and what it put behind them, are ignored.
make("identity-later-fields", record(1, 0xF1, SIZE - 1, 5, 5, b"\xa5" * 160), {"size": SIZE - 1})
# Of another version nothing is known: not that the base was longer, either.
make("identity-unknown-version", record(2, 3, 1 << 40, SECONDS, 0), None)
