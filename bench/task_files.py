# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tasks have in common: what each has to say of itself, the files that
it is done on, and the reason where it cannot be done here."""

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import time

import workloads

MIB, TIB, PIB = 1 << 20, 1 << 40, 1 << 50
CLUSTER, HEADER = 65536, 4096
FICLONERANGE = 0x4020940d  # linux/fs.h, the number of all architectures but a few


class Skip(Exception):
    """Why a task cannot be done here."""


class Task:
    """Makes its files when it is made. What its functions give is a number, or
    several with names: {part: number}."""

    title = target = ""
    unit = "s"
    # What a number is compared to: another program's, or another part of the same's.
    reference = None

    @classmethod
    def titled(cls, settings):
        title = cls.title.replace("BENCH_SIZE / 2", f"{settings.size // 2 >> 20} MiB")
        title = title.replace("BENCH_SIZE", f"{settings.size >> 20} MiB")
        return title.replace("BENCH_MAP_SIZE", f"{settings.map_size >> 20} MiB")

    def programs_to_time(self):
        """[(program, function)]"""
        raise NotImplementedError

    def close(self):
        """Removes what is not in the task's folder."""


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


def huge_folder(folder, size):
    """A new folder on a file system with files of that size. tmpfs has them where
    the one of `folder` has not; who asks removes it."""
    for place in (folder, "/dev/shm"):
        own = os.path.join(place, f"addcow-bench-huge.{os.getpid()}")
        try:
            os.mkdir(own)
            sparse(os.path.join(own, "probe"), size)
            os.unlink(os.path.join(own, "probe"))
            return own
        except OSError:
            shutil.rmtree(own, ignore_errors=True)
    raise Skip(f"no file system here (nor tmpfs) has files of {size // TIB} TiB")


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
