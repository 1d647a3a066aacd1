# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tasks of programs: copying a large sparse disk out, opening a huge one,
mapping a scattered one, flattening. In seconds, each next to the program that a
user could take instead."""

import os
import shutil
import subprocess

import workloads
from servers import AddCow4k, Failed, Raw, builds, run, serving, nbdkit
from task_files import (CLUSTER, HEADER, MIB, PIB, TIB, Files, Skip, Task, every_other_cluster,
                        huge_folder, need, remove, sparse, take_memory, timed)


def program(server):
    return "nbdkit file" if server.name == "raw" else server.title


class CopyOut(Task):
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
        self.servers = []
        for kind in (Raw, *builds(settings)):
            server = kind(settings, files)
            self.servers.append(server)
            own = os.path.join(folder, kind.name)
            os.mkdir(own)
            server.make(own)
            if kind is not Raw:
                with server.serve(own) as uri:
                    workloads.fio(uri, own, [
                        f"--rw=write:{step // 1024 - 1024}k", "--bs=1M", f"--offset={step // 2}",
                        f"--size={TIB - step // 2}", f"--io_size={pieces * MIB}", "--end_fsync=1"])
                stored = server.stored(own)
                if not pieces * MIB <= stored <= pieces * MIB * 5 // 4:
                    raise Failed(f"the overlay has {stored >> 20} MiB and not {pieces}")

    def once(self, server):
        own = os.path.join(self.folder, server.name)
        with server.serve(own) as uri:
            take_memory(own, self.settings.size // 2)
            try:
                return timed(self.client, uri)
            finally:
                remove(self.copy)

    def client(self, uri):
        raise NotImplementedError

    def programs_to_time(self):
        return [(program(server), lambda server=server: self.once(server))
                for server in self.servers]


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


class Open(Task):
    """Starting and stopping nbdkit with a huge disk: what addcow takes more than
    nbdkit's null plugin is the opening."""

    reference = "nbdkit null"
    size, cluster = 64 * TIB, CLUSTER
    bits = None

    def kinds(self, settings):
        return builds(settings)

    def __init__(self, settings, folder):
        need("nbdkit")
        self.own = huge_folder(folder, self.size)
        try:
            files = Files(self.own)
            sparse(files.path, self.size)
            self.servers = [kind(settings, files) for kind in self.kinds(settings)]
            for server in self.servers:
                self.make(server, self.place(server.name))
        except BaseException:
            self.close()
            raise

    def place(self, name):
        folder = os.path.join(self.own, name)
        os.makedirs(folder, exist_ok=True)
        return folder

    def make(self, server, folder):
        server.make(folder)
        if self.bits:
            with open(f"{folder}/x.add-cow", "r+b") as file:
                file.seek(HEADER)
                for _ in range(self.size // self.cluster // 8 // MIB):
                    file.write(self.bits * MIB)

    def close(self):
        shutil.rmtree(self.own)

    def once(self, command, folder):
        def start_and_stop():
            with serving(command, folder):
                pass
        return timed(start_and_stop)

    def programs_to_time(self):
        null = self.place("null")
        return [("nbdkit null", lambda: self.once(
                    ["nbdkit", *nbdkit(null, "null", "size=64T")], null))] + [
                (server.title, lambda server=server: self.once(
                    server.command(self.place(server.name)), self.place(server.name)))
                for server in self.servers]


class OpenEmpty(Open):
    title = "start and stop with a disk of 64 TiB, nothing allocated"
    target = "50 ms more than the reference at most"


class OpenFull(Open):
    """The flag ALL_ALLOCATED is not set, so the bitmap is looked at."""

    title = "start and stop with a disk of 64 TiB, every bit set"
    target, bits = "1 s more than the reference at most", b"\xff"


class Open4kEmpty(OpenEmpty):
    """As many clusters as there are subclusters: four times the bits of the above."""

    title = "start and stop with a disk of 16 TiB, clusters of 4k, nothing allocated"
    size, cluster = 16 * TIB, 4096

    def kinds(self, settings):
        return (AddCow4k,)


class Open4kFull(Open4kEmpty):
    title = "start and stop with a disk of 16 TiB, clusters of 4k, every bit set"
    target, bits = "2 s more than the reference at most", b"\xff"


class Resident(Open):
    """Memory of a server that nobody has asked anything yet."""

    unit = "MiB"

    def once(self, command, folder):
        with serving(command, folder), open(f"{folder}/pid", encoding="utf-8") as pid, \
                open(f"/proc/{pid.read().strip()}/status", encoding="utf-8") as lines:
            return next(int(line.split()[1]) / 1024 for line in lines
                        if line.startswith("VmRSS:"))


class ResidentEmpty(Resident):
    title = "resident memory with a disk of 64 TiB, nothing allocated"
    target = "what was touched"


class ResidentFull(Resident):
    title = "resident memory with a disk of 64 TiB, every bit set"
    target, bits = "128 MiB (a bit a cluster) more than the reference at most", b"\xff"


class Map(Task):
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
        sparse(files.path, size)
        every_other_cluster(files.raw, size)
        self.servers = [kind(settings, files) for kind in (Raw, *builds(settings))]
        for server in self.servers:
            own = os.path.join(folder, server.name)
            os.mkdir(own)
            server.make(own)
            if server.name != "raw":
                os.unlink(f"{own}/disk.raw")
                os.link(files.raw, f"{own}/disk.raw")
                with open(f"{own}/x.add-cow", "r+b") as file:
                    file.seek(HEADER)
                    file.write(b"\x55" * (size // CLUSTER // 8))

    def once(self, server):
        with server.serve(os.path.join(self.folder, server.name)) as uri:
            return timed(run, ["nbdinfo", "--map", uri])

    def programs_to_time(self):
        return [(program(server), lambda server=server: self.once(server))
                for server in self.servers]


class MapHuge(Task):
    """An image whose bitmap says nothing and has no end: who looks at each bit of
    it never comes back."""

    title = "addcow map of a sparse image of 64 PiB, nothing allocated"
    target = "1 s at most"
    limit = 120

    def __init__(self, settings, folder):
        self.own = huge_folder(folder, 64 * PIB)
        try:
            files = Files(self.own)
            sparse(files.path, MIB)
            self.servers = [kind(settings, files) for kind in builds(settings)]
            for server in self.servers:
                run([server.build(), "addcow", "create", "-q", "-b", files.path, "-F", "raw",
                     "-s", "64P", "-i", f"{self.own}/{server.name}.raw", self.image(server)])
        except BaseException:
            self.close()
            raise

    def image(self, server):
        return f"{self.own}/{server.name}.add-cow"

    def close(self):
        shutil.rmtree(self.own)

    def once(self, server):
        try:
            return timed(lambda: run([server.build(), "addcow", "map", self.image(server)],
                                     timeout=self.limit))
        except subprocess.TimeoutExpired as error:
            raise Skip(f"not done after {self.limit} s") from error

    def programs_to_time(self):
        return [(server.title, lambda server=server: self.once(server))
                for server in self.servers]


class Flatten(Task):
    """An overlay of BENCH_SIZE, nothing allocated, is made to stand alone. What
    each program leaves is synced, and that is counted."""

    title = "flatten of BENCH_SIZE, nothing allocated"
    reference, target = "cp --sparse=always", "1.00 at most of the faster of the others"

    def __init__(self, settings, folder):
        need("qemu-img", "cp", "sync")
        self.settings, self.folder = settings, folder
        files = Files(folder)
        self.base = files.path
        self.servers = [kind(settings, files) for kind in builds(settings)]
        sparse(self.base, settings.size, range(0, settings.size, MIB))
        run(["sync", self.base])

    def flatten(self, server):
        server.make(self.folder)
        return timed(lambda: (run([server.build(), "addcow", "flatten", "-q",
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
                *((server.title, lambda server=server: self.fresh(lambda: self.flatten(server)))
                  for server in self.servers)]
