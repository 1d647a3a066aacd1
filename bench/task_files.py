# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tasks have in common: the files that they are done on, and the
reason where one cannot be done here."""

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import time

import workloads

MIB, TIB = 1 << 20, 1 << 40
CLUSTER, HEADER = 65536, 4096
FICLONERANGE = 0x4020940d  # linux/fs.h, the number of all architectures but a few


class Skip(Exception):
    """Why a task cannot be done here."""


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(f"{program} is not installed")


def timed(function, *arguments):
    start = time.monotonic()
    function(*arguments)
    return time.monotonic() - start


def sparse(path, size, pieces=(), length=MIB):
    """A file of `size` with noise at the offsets `pieces`."""
    with open(path, "wb") as file:
        file.truncate(size)
        for offset in pieces:
            file.seek(offset)
            file.write(os.urandom(length))


def every_other_cluster(path, size):
    """A file of `size`, in which every other cluster has noise and the rest is
    holes. Where the file system has reflinks, it is the same noise, stored once;
    elsewhere there are 4 KiB in each of these clusters."""
    with open(path, "w+b") as file:
        file.write(os.urandom(CLUSTER))
        made = 2 * CLUSTER
        file.truncate(made)
        try:
            while made < size:
                length = min(made, size - made)
                fcntl.ioctl(file, FICLONERANGE,
                            struct.pack("=qQQQ", file.fileno(), 0, length, made))
                made += length
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
                raise
    sparse(path, size, range(0, size, 2 * CLUSTER), 4096)


def remove(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def take_memory(folder, size):
    workloads.take_memory(os.path.join(folder, "memory"), size + 128 * MIB)


class Files:
    """What servers.py wants to know about the files below an overlay."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "base.img")
        self.raw = os.path.join(folder, "raw.img")
