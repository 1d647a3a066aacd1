# SPDX-License-Identifier: LGPL-2.1-or-later
"""What it costs to reach a base through addcow and not straight: the same client
once at the server of the base, once at an addcow whose overlay has nothing and
stands on that server, once at an nbdkit that only passes on (its nbd plugin). All
bases have the same bytes.

Each measurement has a new server, a new overlay, and all files in the page cache;
nothing that addcow kept from the one before can help it. All sides are measured in
each round, one right after the other, and rounds take turns in which is first."""

import contextlib
import os
import shutil
import socket
from dataclasses import dataclass

import workloads
from servers import Failed, nbdkit, run, serving
from task_files import MIB, Skip, need, sparse, timed

STRAIGHT, THROUGH, PEER = "straight", "through addcow", "through nbdkit nbd"


class Base:
    """A server. `make` once, in a folder of its own; `serve` for the length of a
    "with" statement; `overlay` tells `addcow create` of it."""

    name = title = ""
    programs = ("nbdkit",)
    readings = ("copy", "randread-4k")
    before = after = ()  # nbdkit's arguments before its plugin, and behind it

    def __init__(self, settings, image, folder):
        self.settings, self.image, self.folder = settings, image, folder
        need(*self.programs)
        os.mkdir(folder)
        self.make()

    def make(self):
        """Files of its own."""

    def files(self):
        """What is read of it, for the page cache."""
        return [self.image]

    def command(self):
        return ["nbdkit", *nbdkit(self.folder, "-r", *self.before, "file", self.image,
                                  *self.after)]

    def serve(self):
        return serving(self.command(), self.folder)

    def below(self):
        """What runs beneath addcow, for the length of a "with" statement; gives
        the name and the format of the base."""
        return self.as_uri()

    @contextlib.contextmanager
    def passed_on(self, folder):
        """The peer: addcow's place taken by nbdkit's own client of NBD."""
        with self.serve() as uri, serving(
                ["nbdkit", *nbdkit(folder, "-r", "nbd", *self.of_peer(uri))], folder) as passed:
            yield passed

    def of_peer(self, uri):
        """How nbdkit's nbd plugin is told of the server."""
        return [f"uri={uri}"]

    @contextlib.contextmanager
    def as_uri(self):
        with self.serve() as uri:
            yield uri, "raw"


class FileUnix(Base):
    name, title = "file", "nbdkit file, Unix socket"


class FileTcp(Base):
    name, title = "file-tcp", "nbdkit file, TCP"

    @contextlib.contextmanager
    def serve(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = self.command()
        at = command.index("-U")
        command[at:at + 2] = ["-i", "127.0.0.1", "-p", str(port)]
        with serving(command, self.folder):
            yield self.uri(port)

    def uri(self, port):
        return f"nbd://127.0.0.1:{port}"


class FileTls(FileTcp):
    name, title = "file-tls", "nbdkit file, TLS"
    readings, programs = ("copy",), ("nbdkit", "psktool")

    def make(self):
        self.keys = os.path.join(self.folder, "keys.psk")
        run(["psktool", "-u", "host", "-p", self.keys])
        self.before = ("--tls=require", f"--tls-psk={self.keys}")

    def uri(self, port):
        return f"nbds://host@127.0.0.1:{port}/?tls-psk-file={self.keys}"

    def of_peer(self, uri):
        # It takes no file's name in a URI.
        return [f"uri={uri.split('/?')[0]}", "tls=require", f"tls-psk={self.keys}"]


class Far(FileTcp):
    """Each read takes longer, at the server: a network in between, or its disk."""

    name, title = "file-tcp-1ms", "nbdkit file, TCP, 1 ms a read"
    readings, before, after = ("randread-4k",), ("--filter=delay",), ("rdelay=1ms",)


class Farther(Far):
    name, title = "file-tcp-5ms", "nbdkit file, TCP, 5 ms a read"
    after = ("rdelay=5ms",)


class Cable10(FileTcp):
    """The server sends so much and no more: a cable."""

    name, title = "file-tcp-10g", "nbdkit file, TCP, 10 Gbit/s"
    readings, before, after = ("copy",), ("--filter=rate",), ("rate=10G", "burstiness=0.1")


class Cable2(Cable10):
    name, title = "file-tcp-2.5g", "nbdkit file, TCP, 2.5 Gbit/s"
    after = ("rate=2500M", "burstiness=0.1")


class OfQemu(Base):
    """A qemu-nbd, and for addcow the file itself, which it has a qemu-nbd of its own for."""

    programs = ("qemu-nbd", "qemu-img")

    def make(self):
        self.path = os.path.join(self.folder, "base")
        run(["qemu-img", "convert", "-f", "raw", "-O", self.name, self.image, self.path])

    def files(self):
        return [self.path]

    def command(self):
        return ["qemu-nbd", "-r", "-t", "-e", "4", "-f", self.name, "-k", f"{self.folder}/socket",
                f"--pid-file={self.folder}/pid", self.path]

    @contextlib.contextmanager
    def below(self):
        yield self.path, self.name


class Qcow2(OfQemu):
    name, title = "qcow2", "qcow2, qemu-nbd"


class Qed(OfQemu):
    name, title, readings = "qed", "qed, qemu-nbd", ("copy",)


class Vmdk(OfQemu):
    name, title, readings = "vmdk", "vmdk, qemu-nbd", ("copy",)


class Vdi(OfQemu):
    name, title, readings = "vdi", "vdi, qemu-nbd", ("copy",)


class Vhdx(OfQemu):
    name, title, readings = "vhdx", "vhdx, qemu-nbd", ("copy",)


class Vpc(OfQemu):
    name, title, readings = "vpc", "vpc, qemu-nbd", ("copy",)


class Parallels(OfQemu):
    name, title, readings = "parallels", "parallels, qemu-nbd", ("copy",)


class AddCow(Base):
    """Another image, every other MiB of which is in its own image file."""

    name, title = "add-cow", "add-cow over raw, in one process"

    def make(self):
        self.path = os.path.join(self.folder, "base.add-cow")
        self.own = os.path.join(self.folder, "base.raw")
        run([self.settings.run, "addcow", "create", "-q", "-b", self.image, "-F", "raw",
             "-i", self.own, self.path])
        with serving([self.settings.run, "nbdkit", *nbdkit(self.folder, "addcow", self.path)],
                     self.folder) as uri:
            workloads.fio(uri, self.folder, [
                "--rw=write:1024k", "--bs=1M", f"--size={self.settings.size}",
                f"--io_size={self.settings.size // 2}", "--end_fsync=1"])

    def files(self):
        return [self.image, self.own]

    def command(self):
        return [self.settings.run, "nbdkit", *nbdkit(self.folder, "-r", "addcow", self.path)]

    @contextlib.contextmanager
    def below(self):
        yield self.path, "add-cow"


BASES = {base.name: base for base in
         (FileUnix, FileTcp, FileTls, Cable10, Cable2, Far, Farther, Qcow2, Qed, Vmdk, Vdi,
          Vhdx, Vpc, Parallels, AddCow)}


def copy(uri, _folder, settings):
    """Into nothing, so that no disk is measured."""
    seconds = timed(run, ["nbdcopy", uri, "null:"])
    return {"bytes": settings.size, "seconds": seconds}


def random_reads(uri, folder, settings):
    job = workloads.fio(uri, folder, [
        "--rw=randread", "--bs=4k", f"--size={settings.size}", "--time_based=1",
        f"--runtime={max(1, round(settings.seconds * 1000))}ms"])
    return workloads.sample(job, "read")


@dataclass(frozen=True)
class Reading:
    title: str
    measure: object
    target: str


READINGS = {
    "copy": Reading("nbdcopy to null:", copy, "0.95"),
    "randread-4k": Reading("random read 4k, 16 in flight", random_reads, "0.90"),
}


def measure(reading, base, side, settings, scratch):
    workloads.warm(*base.files())
    if side == STRAIGHT:
        with base.serve() as uri:
            return READINGS[reading].measure(uri, base.folder, settings)
    folder = os.path.join(scratch, "overlay")
    os.mkdir(folder)
    try:
        if side == PEER:
            with base.passed_on(folder) as uri:
                return READINGS[reading].measure(uri, base.folder, settings)
        with base.below() as (name, base_format):
            overlay = f"{folder}/x.add-cow"
            run([settings.run, "addcow", "create", "-q", "-b", name, "-F", base_format,
                 "-i", f"{folder}/disk.raw", overlay])
            with serving([settings.run, "nbdkit", *nbdkit(folder, "addcow", overlay)],
                         folder) as uri:
                return READINGS[reading].measure(uri, folder, settings)
    finally:
        shutil.rmtree(folder)


def noise(settings, scratch):
    """The bytes of all bases; no format can make them smaller."""
    path = os.path.join(scratch, "base.img")
    sparse(path, settings.size, range(0, settings.size, MIB))
    return path


def run_group(settings, scratch, result, skip, say):
    """All rounds: in each, every reading of every base, from both sides."""
    if reason := workloads.fio_missing():
        skip(result, "all of it", reason)
        return
    image, bases = noise(settings, scratch), []
    for name in settings.bases:
        try:
            bases.append(BASES[name](settings, image, os.path.join(scratch, name)))
        except Skip as reason:
            skip(result, BASES[name].title, str(reason))
    readings = list(settings.workloads)
    if "copy" in readings and not shutil.which("nbdcopy"):
        skip(result, READINGS["copy"].title, "nbdcopy is not installed")
        readings.remove("copy")
    result["bases"] = [{"name": base.name, "title": base.title} for base in bases]
    result["readings"] = [{"name": name, "title": READINGS[name].title,
                           "target": READINGS[name].target} for name in readings]
    for number in range(settings.rounds):
        sides = (STRAIGHT, THROUGH, PEER)
        sides = sides[number % 3:] + sides[:number % 3]
        for base in bases:
            for reading in (each for each in readings if each in base.readings):
                for side in sides:
                    what = f"round {number + 1}, {base.title}, {READINGS[reading].title}, {side}"
                    try:
                        sample = measure(reading, base, side, settings, scratch)
                    except Failed as error:
                        result["failed"].append(f"{what}: {error}")
                        say(f"FAILED: {what}: {error}")
                        continue
                    result["samples"].append({"base": base.name, "reading": reading, "side": side,
                                              "round": number + 1, **sample})
                    say(f"{what}: {sample['bytes'] / sample['seconds'] / 1e6:.0f} MB/s "
                        f"in {sample['seconds']:.2f} s")
