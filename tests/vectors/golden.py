# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the programs beside it make golden images of. Byte by byte from
docs/format.md; shares no code with the project. The same bytes each time."""

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

BACKING_FILE, IMAGE_FILE, ALL_ALLOCATED = 1, 2, 4


def header(features, optional=0, image=b"disk.raw", backing=b"b.img"):
    """With the two names at 2000 and 1000. No backing file where it is not a feature."""
    page = bytearray(4096)
    named = backing if features & BACKING_FILE else b""
    page[:48] = struct.pack(
        "<8sIIIIIQQI", b"ADD_COW\xff", 1, 1000 if named else 0, len(named), 2000, len(image),
        features, optional, 1)
    page[64:67] = b"raw"
    if named:
        page[48:51] = b"raw"
    page[1000:1000 + len(named)] = named
    page[2000:2000 + len(image)] = image
    return page


def acow_header(cluster, features=0, compatible=0, image=b"disk.raw", backing=b"b.img"):
    """Of revision 20. The image file's name is in the middle of it."""
    page = bytearray(max(4096, cluster))
    at = len(page) // 2
    page[:44] = struct.pack(
        "<4sIIIIIQQI", b"ACOW", 1000 if backing else 0, len(backing), at, len(image),
        cluster.bit_length() - 1, features, compatible, len(page))
    page[60:63] = b"raw"
    if backing:
        page[44:47] = b"raw"
    page[1000:1000 + len(backing)] = backing
    page[at:at + len(image)] = image
    return page


def padded(bitmap, unit=CLUSTER):
    return bitmap.ljust(-(-len(bitmap) // unit) * unit, b"\0")


def bitmap(numbers):
    out = bytearray(max(numbers, default=0) // 8 + 1)
    for number in numbers:
        out[number // 8] |= 1 << number % 8
    return bytes(out)


def sectors(name, count):
    """Each sector is another, in each file, and says where it belongs. Packs well."""
    texts = (f"{name} {i:6} ".encode() * 512 for i in range(-(-count // 512)))
    return b"".join(text[:512] for text in texts)[:count]


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


def put(directory, files, expect):
    path = TOP / directory
    path.mkdir(exist_ok=True)
    (path / "disk.tar.xz").write_bytes(archive(files))
    (path / "expect.json").write_text(json.dumps(expect, indent=1) + "\n")


def valid(disk, allocated, **more):
    return {"valid": True, "virtual_size": len(disk), "allocated": allocated,
            "sha256": hashlib.sha256(disk).hexdigest()} | more
