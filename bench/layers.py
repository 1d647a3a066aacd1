# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is done with an overlay when it has been written: commit, compare, rebase. Each
beside the same of qemu-img on a qcow2 overlay with the same bytes over the same base; in
seconds, with what the program left synced."""

import os
import shutil

import workloads
from servers import AddCow, Qcow2Threads, run, serving, nbdkit
from task_files import MIB, Files, Skip, Task, need, remove, sparse, take_memory, timed


class Layers(Task):
    """Every other MiB of the disk, of BENCH_SIZE, is in the overlay."""

    reference, target = "qemu-img", "1.00 at most of each of the others"

    def __init__(self, settings, folder):
        need("qemu-img", "qemu-nbd", "cp", "sync", *self.programs)
        if reason := workloads.fio_missing():
            raise Skip(reason)
        self.settings, self.folder = settings, folder
        self.files = Files(folder)
        self.base, self.kept = self.files.path, f"{folder}/kept.img"
        sparse(self.kept, settings.size, range(0, settings.size, MIB))
        shutil.copy(self.kept, self.base)
        self.ours = AddCow(settings, self.files)
        self.theirs = Qcow2Threads(settings, self.files)
        self.make_layers()
        run(["sync"])

    programs = ()

    def path(self, server):
        return f"{self.folder}/{'x.add-cow' if server is self.ours else 'x.qcow2'}"

    def make_layers(self):
        for server in (self.ours, self.theirs):
            server.make(self.folder)
            with serving(server.command(self.folder), self.folder) as uri:
                workloads.fio(uri, self.folder, [
                    "--rw=write:1024k", "--bs=1M", f"--size={self.settings.size}",
                    f"--io_size={self.settings.size // 2}", "--end_fsync=1"])
            for name in ("socket", "pid"):
                remove(f"{self.folder}/{name}")

    def addcow(self, *words):
        return [self.ours.build(), "addcow", *words]


class Commit(Layers):
    title = "commit of BENCH_SIZE / 2"
    programs = ("nbdcopy",)

    def fresh(self, function, made=()):
        """The layers and the base as they were, in new files; `function` is timed."""
        names = ("x.add-cow", "disk.raw", "x.qcow2", "base.img")
        for name in names:
            source = self.kept if name == "base.img" else f"{self.folder}/layer.{name}"
            if not os.path.exists(source):
                os.rename(f"{self.folder}/{name}", source)
            # A new base is another one; it is accepted below.
            run(["cp", "--sparse=always", source, f"{self.folder}/{name}"])
        run(self.addcow("rebase", "-u", "-q", "-b", self.base, "-F", "raw", self.path(self.ours)))
        take_memory(self.folder, self.settings.size)
        for name in names:
            workloads.warm(f"{self.folder}/{name}")
        run(["sync"])
        try:
            return timed(function)
        finally:
            for name in (*names, *made):
                remove(f"{self.folder}/{name}")

    def nbdcopy(self):
        with serving([self.ours.build(), "nbdkit",
                      *nbdkit(self.folder, "-r", "addcow", self.path(self.ours))],
                     self.folder) as uri:
            run(["nbdcopy", uri, f"{self.folder}/copy.img"])
        run(["sync", f"{self.folder}/copy.img"])

    def programs_to_time(self):
        return [
            ("qemu-img", lambda: self.fresh(lambda: (
                run(["qemu-img", "commit", "-q", "-f", "qcow2", self.path(self.theirs)]),
                run(["sync", self.base])))),
            ("nbdcopy of all to a new base", lambda: self.fresh(self.nbdcopy,
                                                                ("copy.img", "socket", "pid"))),
            ("addcow", lambda: self.fresh(lambda: (
                run(self.addcow("commit", "-q", self.path(self.ours))),
                run(["sync", self.base]))))]


class Compare(Layers):
    title = "compare of BENCH_SIZE with a full copy"

    def __init__(self, settings, folder):
        super().__init__(settings, folder)
        self.copies = {}
        for server, kind in ((self.ours, "add-cow"), (self.theirs, "qcow2")):
            copy = self.copies[kind] = f"{folder}/full-{kind}.img"
            if kind == "qcow2":
                run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.path(server), copy])
            else:
                with serving(server.command(folder), folder) as uri:
                    run(["nbdcopy", uri, copy])
                for name in ("socket", "pid"):
                    remove(f"{folder}/{name}")

    programs = ("nbdcopy",)

    def warmed(self, *words):
        for name in os.listdir(self.folder):
            workloads.warm(f"{self.folder}/{name}")
        return timed(run, list(words))

    def programs_to_time(self):
        return [
            ("qemu-img", lambda: self.warmed("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw",
                                             self.path(self.theirs), self.copies["qcow2"])),
            ("addcow", lambda: self.warmed(*self.addcow("compare", "-q", self.path(self.ours),
                                                        self.copies["add-cow"])))]


class Rebase(Layers):
    """Onto a base that has other bytes in every eighth MiB; nothing is in the overlay."""

    title = "rebase of BENCH_SIZE, of which an eighth differs"

    def __init__(self, settings, folder):
        super().__init__(settings, folder)
        self.other = f"{folder}/other.img"
        shutil.copy(self.base, self.other)
        with open(self.other, "r+b") as file:
            for offset in range(0, settings.size, 8 * MIB):
                file.seek(offset)
                file.write(os.urandom(MIB))

    def make_layers(self):
        """None: they are made anew each time."""

    def fresh(self, server, words):
        server.make(self.folder)
        take_memory(self.folder, self.settings.size // 4)
        for path in (self.base, self.other):
            workloads.warm(path)
        run(["sync"])
        data = f"{self.folder}/{'disk.raw' if server is self.ours else 'x.qcow2'}"
        try:
            return timed(lambda: (run(words), run(["sync", data])))
        finally:
            for name in ("x.add-cow", "disk.raw", "x.qcow2"):
                remove(f"{self.folder}/{name}")

    def programs_to_time(self):
        onto = ["-b", self.other, "-F", "raw"]
        return [
            ("qemu-img", lambda: self.fresh(self.theirs, [
                "qemu-img", "rebase", "-q", "-f", "qcow2", *onto, self.path(self.theirs)])),
            ("addcow", lambda: self.fresh(self.ours, self.addcow(
                "rebase", "-q", *onto, self.path(self.ours))))]


TASKS = {"commit": Commit, "compare": Compare, "rebase": Rebase}
