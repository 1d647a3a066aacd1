# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tasks of programs: copying a large sparse disk out, opening a huge one,
mapping a scattered one, flattening. In seconds, each next to the program that a
user could take instead."""

import os
import shutil

import workloads
from servers import AddCow, Failed, Raw, run, serving, nbdkit
from task_files import (CLUSTER, HEADER, MIB, TIB, Files, Skip, every_other_cluster, need, remove,
                        sparse, take_memory, timed)


class CopyOut:
    """A disk of 1 TiB with data in BENCH_SIZE / 2 pieces of 1 MiB, 1 GiB by
    default: one half in the backing file, the other in the image file. The raw
    file has the same amount at the same places."""

    def __init__(self, settings, folder):
        need("nbdkit", *self.programs)
        reason = workloads.fio_missing()
        if reason:
            raise Skip(reason)
        self.settings, self.folder = settings, folder
        self.copy = os.path.join(folder, "copy")
        pieces = settings.size // 2 // MIB // 2
        step = TIB // pieces // (2 * MIB) * (2 * MIB)
        files = Files(folder)
        try:
            sparse(files.path, TIB, range(0, pieces * step, step))
            sparse(files.raw, TIB, range(0, pieces * step, step // 2))
        except OSError as error:
            raise Skip(f"no file of 1 TiB here: {error.strerror}") from error
        self.servers = {}
        for kind in (Raw, AddCow):
            self.servers[kind.name] = server = kind(settings, files)
            own = os.path.join(folder, kind.name)
            os.mkdir(own)
            server.make(own)
            if kind is AddCow:
                with server.serve(own) as uri:
                    workloads.fio(uri, own, [
                        f"--rw=write:{step // 1024 - 1024}k", "--bs=1M", f"--offset={step // 2}",
                        f"--size={TIB - step // 2}", f"--io_size={pieces * MIB}", "--end_fsync=1"])
        stored = os.stat(os.path.join(folder, "addcow", "disk.raw")).st_blocks * 512
        if not pieces * MIB <= stored <= pieces * MIB * 5 // 4:
            raise Failed(f"the overlay has {stored >> 20} MiB and not {pieces}")

    def once(self, name):
        own = os.path.join(self.folder, name)
        with self.servers[name].serve(own) as uri:
            take_memory(own, self.settings.size // 2)
            try:
                return timed(self.client, uri)
            finally:
                remove(self.copy)

    def client(self, uri):
        raise NotImplementedError

    def programs_to_time(self):
        return [("nbdkit file", lambda: self.once("raw")), ("addcow", lambda: self.once("addcow"))]


class NbdCopy(CopyOut):
    title = "nbdcopy of 1 TiB with data in BENCH_SIZE / 2, to a file"
    reference, target, programs = "nbdkit file", "1.10 at most", ("nbdcopy",)

    def client(self, uri):
        run(["nbdcopy", uri, self.copy])


class QemuConvert(CopyOut):
    title = "qemu-img convert of 1 TiB with data in BENCH_SIZE / 2, to raw"
    reference, target, programs = "nbdkit file", "1.10 at most", ("qemu-img",)

    def client(self, uri):
        run(["qemu-img", "convert", "-f", "raw", "-O", "raw", uri, self.copy])


class Open:
    """Starting and stopping nbdkit with a disk of 64 TiB: what addcow takes more
    than nbdkit's null plugin is the opening."""

    reference = "nbdkit null"
    bits = None

    def __init__(self, settings, folder):
        need("nbdkit")
        self.settings, self.own = settings, None
        # tmpfs has files of that size where the folder's file system has not.
        for place in (folder, "/dev/shm"):
            own = os.path.join(place, f"addcow-bench-open.{os.getpid()}")
            try:
                os.mkdir(own)
                sparse(os.path.join(own, "base.img"), 64 * TIB)
                self.own = own
                break
            except OSError:
                shutil.rmtree(own, ignore_errors=True)
        if not self.own:
            raise Skip("no file system here (nor tmpfs) has files of 64 TiB")
        try:
            self.make()
        except BaseException:
            self.close()
            raise

    def make(self):
        run([self.settings.run, "addcow", "create", "-q", "-b", "base.img", "-F", "raw",
             "-i", f"{self.own}/disk.raw", f"{self.own}/x.add-cow"])
        if self.bits:
            with open(f"{self.own}/x.add-cow", "r+b") as file:
                file.seek(HEADER)
                file.write(self.bits * (64 * TIB // CLUSTER // 8))

    def close(self):
        shutil.rmtree(self.own)

    def once(self, command):
        def start_and_stop():
            with serving(command, self.own):
                pass
        return timed(start_and_stop)

    def programs_to_time(self):
        return [("nbdkit null", lambda: self.once(
                    ["nbdkit", *nbdkit(self.own, "null", "size=64T")])),
                ("addcow", lambda: self.once(
                    [self.settings.run, "nbdkit",
                     *nbdkit(self.own, "addcow", f"{self.own}/x.add-cow")]))]


class OpenEmpty(Open):
    title = "start and stop with a disk of 64 TiB, nothing allocated"
    target = "50 ms more than the reference at most"


class OpenFull(Open):
    """The flag ALL_ALLOCATED is not set, so the bitmap is looked at."""

    title = "start and stop with a disk of 64 TiB, every bit set"
    target, bits = "1 s more than the reference at most", b"\xff"


class Map:
    """Every other cluster allocated, with data in it. The raw file is the image
    file. BENCH_MAP_SIZE=1T has 8 million such clusters; that takes 32 GiB, on a
    file system with reflinks 1 GiB."""

    title = "nbdinfo --map of BENCH_MAP_SIZE, every other cluster allocated"
    reference, target = "nbdkit file", "1.20 at most"

    def __init__(self, settings, folder):
        need("nbdkit", "nbdinfo")
        size = settings.map_size
        if size % (CLUSTER * 16):
            raise Skip("BENCH_MAP_SIZE is not in whole MiB")
        files = Files(folder)
        self.folder = folder
        self.servers = {"raw": Raw(settings, files), "addcow": AddCow(settings, files)}
        sparse(files.path, size)
        self.servers["addcow"].make(folder)
        image = os.path.join(folder, "disk.raw")
        every_other_cluster(image, size)
        os.link(image, files.raw)
        with open(os.path.join(folder, "x.add-cow"), "r+b") as file:
            file.seek(HEADER)
            file.write(b"\x55" * (size // CLUSTER // 8))

    def once(self, name):
        with self.servers[name].serve(self.folder) as uri:
            return timed(run, ["nbdinfo", "--map", uri])

    def programs_to_time(self):
        return [("nbdkit file", lambda: self.once("raw")), ("addcow", lambda: self.once("addcow"))]


class Flatten:
    """An overlay of BENCH_SIZE, nothing allocated, is made to stand alone. What
    each program leaves is synced, and that is counted."""

    title = "flatten of BENCH_SIZE, nothing allocated"
    reference, target = "cp --sparse=always", "1.00 at most of the faster of the others"

    def __init__(self, settings, folder):
        need("qemu-img", "cp", "sync")
        self.settings, self.folder = settings, folder
        self.base = Files(folder).path
        sparse(self.base, settings.size, range(0, settings.size, MIB))
        run(["sync", self.base])

    def flatten(self):
        AddCow(self.settings, Files(self.folder)).make(self.folder)
        return timed(lambda: (run([self.settings.run, "addcow", "flatten", "-q",
                                   f"{self.folder}/x.add-cow"]),
                              run(["sync", f"{self.folder}/disk.raw"])))

    def rebase(self):
        overlay = f"{self.folder}/x.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", self.base, "-F", "raw", overlay])
        return timed(lambda: (run(["qemu-img", "rebase", "-q", "-f", "qcow2", "-b", "", overlay]),
                              run(["sync", overlay])))

    def copy(self):
        copy = f"{self.folder}/copy.raw"
        return timed(lambda: (run(["cp", "--sparse=always", self.base, copy]),
                              run(["sync", copy])))

    def fresh(self, function):
        take_memory(self.folder, self.settings.size)
        try:
            return function()
        finally:
            for name in ("x.add-cow", "disk.raw", "x.qcow2", "copy.raw"):
                remove(os.path.join(self.folder, name))

    def programs_to_time(self):
        return [("cp --sparse=always", lambda: self.fresh(self.copy)),
                ("qemu-img rebase -b ''", lambda: self.fresh(self.rebase)),
                ("addcow", lambda: self.fresh(self.flatten))]
