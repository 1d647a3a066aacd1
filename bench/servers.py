# SPDX-License-Identifier: LGPL-2.1-or-later
"""The servers that are compared. Each can make an overlay in a folder of its
own, and serve it on a unix socket for the length of a "with" statement: the
server is stopped whatever happens in it. All overlays are on the same backing
file, in the same file system, and have the defaults that a user would get."""

import contextlib
import os
import shutil
import signal
import subprocess
import time


class Failed(Exception):
    """A server or a client did not do what it was asked to."""


def run(command, **more):
    """Runs to the end, silently; raises Failed with the program's own words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise Failed(f"{command[0]}: exit status {done.returncode}: {' / '.join(words)}")
    return done.stdout


def sync_file(path):
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stop(process):
    """SIGTERM, and SIGKILL for one that does not listen."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return -signal.SIGKILL


@contextlib.contextmanager
def serving(command, folder, throw_away=False):
    """The server `command`, which has to write `pid` when it is ready. What it
    would write at its end is not waited for where it is thrown away anyway."""
    pid = os.path.join(folder, "pid")
    for left in (pid, os.path.join(folder, "socket")):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(left)
    with open(os.path.join(folder, "log"), "w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                   env={**os.environ, "TMPDIR": folder})
        try:
            limit = time.monotonic() + 60
            while not (os.path.exists(pid) and os.path.getsize(pid)):
                if process.poll() is not None or time.monotonic() > limit:
                    log.seek(0)
                    words = log.read().strip().splitlines()[-2:]
                    raise Failed(f"no server: {' / '.join(words)}")
                time.sleep(0.01)
            yield f"nbd+unix:///?socket={folder}/socket"
        finally:
            if throw_away:
                process.kill()
            stop(process)


class Server:
    """One way to serve a disk. `durable`: a flush brings data to the disk.
    `keeps`: an overlay is still there after the server was stopped."""

    name = title = program = ""
    durable = keeps = True

    def __init__(self, settings, backing):
        self.settings = settings
        self.backing = backing

    def missing(self):
        """Why it cannot run here, or None."""
        return None if shutil.which(self.program) else f"{self.program} is not installed"

    def does(self, workload):
        """Whether it says anything of that workload."""
        return workload is not None

    def make(self, folder, image=None):
        """A fresh overlay in `folder`. `image`: what a server without overlays
        serves instead of one, see Raw."""

    def command(self, folder):
        raise NotImplementedError

    def serve(self, folder, throw_away=False):
        return serving(self.command(folder), folder, throw_away)

    def settle(self, folder):
        """Brings what is dirty to the disk, so that it does not cost the next."""

    def stored(self, folder):
        """Bytes of storage that the overlay in `folder` takes."""
        return sum(entry.stat().st_blocks * 512 for entry in os.scandir(folder)
                   if entry.is_file() and entry.name not in ("pid", "log"))


def nbdkit(folder, *arguments):
    return ["-f", "-U", f"{folder}/socket", "-P", f"{folder}/pid", *arguments]


class Raw(Server):
    """The limit: the same bytes in a raw file. For reads of what is unallocated
    that is the backing file, which the others read too; for a first touch one
    that has its storage already; for the rest a file that is filled as the
    overlays are. So what the system's page cache is made of is the same."""
    name, title, program = "raw", "raw limit", "nbdkit"

    def make(self, folder, image=None):
        os.symlink(image or self.backing.raw, f"{folder}/disk.raw")

    def command(self, folder):
        return ["nbdkit", *nbdkit(folder, "file", f"{folder}/disk.raw")]

    def settle(self, folder):
        sync_file(f"{folder}/disk.raw")


class RawSparse(Raw):
    """What a first touch costs where the file takes its storage only then, as
    every overlay has to. No copy-on-write, so nothing to compare with."""
    name, title = "raw-sparse", "raw, sparse"

    def does(self, workload):
        return workload.first_touch()

    def make(self, folder, image=None):
        with open(f"{folder}/disk.raw", "wb") as file:
            file.truncate(self.settings.size)


class AddCow(Server):
    name, title, program = "addcow", "addcow", "nbdkit"

    def build(self):
        """The program that runs the build: its plugin and its tool."""
        return self.settings.run

    def missing(self):
        if not os.access(self.build(), os.X_OK):
            return f"{self.build()} is not built"
        return super().missing()

    def make(self, folder, image=None):
        run([self.build(), "addcow", "create", "-q", "-b", self.backing.path, "-F", "raw",
             *self.create(), "-i", f"{folder}/disk.raw", f"{folder}/x.add-cow"])

    def create(self):
        """Options of "create" that are no defaults."""
        return []

    def command(self, folder):
        return [self.build(), "nbdkit", *nbdkit(folder, "addcow", f"{folder}/x.add-cow")]


class AddCow4k(AddCow):
    """Clusters as small as the subclusters of the others, which it does without. It
    says something new of small writes to what is not allocated, and of nothing else."""
    name, title = "addcow-4k", "addcow, clusters of 4k"

    def does(self, workload):
        return workload.first_touch() and workload.pattern == "randwrite"

    def create(self):
        return ["--cluster-size=4k"]


class OtherAddCow(AddCow):
    """Another build, for what a change costs or brings; its own tool makes its
    files. Only where BENCH_OTHER names one."""
    name, title = "addcow-other", "addcow, other build"

    def build(self):
        return os.path.join(self.settings.other, "run")


def builds(settings):
    """The builds of addcow that there are."""
    return (AddCow, OtherAddCow) if settings.other else (AddCow,)


class CowFilter(Server):
    name, title, program = "cow", "cow filter", "nbdkit"
    durable = keeps = False

    def command(self, folder):
        return ["nbdkit", *nbdkit(folder, "--filter=cow", "file", self.backing.path)]

    def stored(self, folder):
        """It has no name, so it is looked for in the server, which has to run."""
        with open(f"{folder}/pid", encoding="utf-8") as pid:
            files = f"/proc/{pid.read().strip()}/fd"
        return sum(os.stat(entry.path).st_blocks * 512 for entry in os.scandir(files)
                   if os.readlink(entry.path).startswith(folder)
                   and os.readlink(entry.path).endswith(" (deleted)"))


class Qcow2(Server):
    program = "qemu-nbd"
    aio, options, data_file = "threads", "", False

    def missing(self):
        if not shutil.which("qemu-img"):
            return "qemu-img is not installed"
        return super().missing()

    def make(self, folder, image=None):
        options = [self.options] if self.options else []
        if self.data_file:
            options.append(f"data_file={folder}/x.raw")
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", self.backing.path, "-F", "raw",
             *(["-o", ",".join(options)] if options else []), f"{folder}/x.qcow2"])

    def command(self, folder):
        return ["qemu-nbd", "-t", "-e", "8", "-f", "qcow2", "--cache=writeback",
                f"--aio={self.aio}", "-k", f"{folder}/socket", f"--pid-file={folder}/pid",
                f"{folder}/x.qcow2"]


class Qcow2Threads(Qcow2):
    name, title = "qcow2-threads", "qcow2, threads"


class Qcow2IoUring(Qcow2):
    name, title, aio = "qcow2-io_uring", "qcow2, io_uring", "io_uring"


class Qcow2Subclusters(Qcow2):
    # 128 KiB clusters have subclusters of 4 KiB: what QEMU's documentation advises.
    name, title = "qcow2-subclusters", "qcow2, subclusters"
    options = "extended_l2=on,cluster_size=128k"


class Qcow2DataFile(Qcow2):
    name, title, data_file = "qcow2-data_file", "qcow2, data_file", True


SERVERS = {server.name: server for server in (
    Raw, AddCow, AddCow4k, OtherAddCow, CowFilter, Qcow2Threads, Qcow2IoUring, Qcow2Subclusters,
    Qcow2DataFile, RawSparse)}
