# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a fill takes, and what clients notice of it; and how long a server takes to
start. Beside addcow a qemu-storage-daemon with block-stream on a qcow2 overlay over the
same base."""

import contextlib
import json
import os

import client
import qemu_job
import workloads
from servers import AddCow, Failed, nbdkit, run, serving, stop
from task_files import MIB, Files, Skip, Task, need, remove, sparse, take_memory, timed

# What a measurement may leave. A server that ends by itself leaves its socket.
LEFT = ("x.add-cow", "disk.raw", "x.qcow2", "copy.raw", "control", "socket", "pid", "qemu.pid",
        "qemu.qmp", "qemu.sock")


class Overlay(AddCow):
    """addcow with a fill, on a base that is a file or a server."""

    def fill(self, folder, *options):
        """Until all is there, the start of the server included."""
        run([self.build(), "nbdkit", *nbdkit(folder, "addcow", f"{folder}/x.add-cow", "fill=all",
                                             "fill-exit=on", *options)])

    def serve_filling(self, folder, *options):
        return serving([self.build(), "nbdkit",
                        *nbdkit(folder, "addcow", f"{folder}/x.add-cow",
                                f"control={folder}/control", *options)], folder)

    def is_filling(self, folder):
        words = run([self.build(), "addcow", "status", "--output=json", f"{folder}/control"])
        return json.loads(words)["fill"]["state"] == "running"


class Fill(Task):
    """A disk of BENCH_SIZE, nothing of which is there. What each program leaves is
    synced, and that is counted."""

    reference = None
    before = ()  # nbdkit's arguments before its plugin, and behind it
    after = ()

    def __init__(self, settings, folder):
        need("qemu-storage-daemon", "qemu-img", "sync")
        self.settings, self.folder = settings, folder
        self.files = Files(folder)
        sparse(self.files.path, settings.size, range(0, settings.size, MIB))
        run(["sync", self.files.path])
        self.overlay = Overlay(settings, self.files)

    @contextlib.contextmanager
    def base(self):
        """What an overlay stands on, for the length of a "with" statement."""
        yield self.files.path

    def addcow(self, base):
        self.files.path, there = base, self.files.path
        try:
            self.overlay.make(self.folder)
        finally:
            self.files.path = there
        return timed(lambda: (self.overlay.fill(self.folder),
                              run(["sync", f"{self.folder}/disk.raw"])))

    def qemu(self, base):
        with qemu_job.serving(self.folder, base) as (_, monitor):
            def job():
                qemu_job.stream(monitor)
                qemu_job.wait_until_filled(monitor)
                run(["sync", f"{self.folder}/x.qcow2"])
            return timed(job)

    def fresh(self, function):
        take_memory(self.folder, self.settings.size)
        workloads.warm(self.files.path)
        try:
            with self.base() as base:
                return function(base)
        finally:
            for name in LEFT:
                remove(os.path.join(self.folder, name))

    def others(self):
        return []

    def programs_to_time(self):
        programs = [("addcow", self.addcow), *self.others(),
                    ("qemu-storage-daemon, block-stream", self.qemu)]
        return [(name, lambda function=function: self.fresh(function))
                for name, function in programs]


class FillLocal(Fill):
    title = "fill of BENCH_SIZE from a local raw file, no clients"
    reference, target = "cp --sparse=always", "1.05 at most"

    def others(self):
        def copy(base):
            own = f"{self.folder}/copy.raw"
            return timed(lambda: (run(["cp", "--sparse=always", base, own]), run(["sync", own])))
        return [("cp --sparse=always", copy)]


class FillRemote(Fill):
    title = "fill of BENCH_SIZE over NBD, 2 ms a read"
    reference, target = "nbdcopy", "1.05 at most"

    @contextlib.contextmanager
    def base(self):
        own = f"{self.folder}/server"
        os.makedirs(own, exist_ok=True)
        with serving(["nbdkit", *nbdkit(own, "-r", "--filter=delay", "file", self.files.path,
                                        "rdelay=2ms")], own) as uri:
            yield uri

    def others(self):
        need("nbdcopy")

        def copy(base):
            own = f"{self.folder}/copy.raw"
            return timed(lambda: (run(["nbdcopy", base, own]), run(["sync", own])))
        return [("nbdcopy", copy)]


class Beside(Task):
    """Random reads and writes of 4 KiB, four in flight, on a disk of four times BENCH_SIZE,
    while it is filled: not, at half of the rate that a fill alone has, as fast as it
    goes. A fill that is done before is an error. Several tasks show a figure each of the
    same measurement."""

    reference = "fill off"
    CONDITIONS = ("fill off", "capped", "uncapped")
    known = {}  # fio's jobs by condition, of (program, how often that was measured)
    half = {}   # bytes a second, of each program

    def __init__(self, settings, folder):
        need("qemu-storage-daemon", "qemu-img")
        if reason := workloads.fio_missing():
            raise Skip(reason)
        self.settings, self.folder = settings, folder
        self.size = 4 * settings.size
        self.files = Files(folder)
        self.overlay = Overlay(settings, self.files)
        self.rounds = {}

    def fio(self, uri):
        # What happens at the start is not measured: the fill has the disk for itself till then.
        # A flush that is due every five seconds is in each run as often.
        seconds = self.settings.seconds
        return workloads.fio(uri, self.folder, [
            "--rw=randrw", "--bs=4k", "--iodepth=4", f"--size={self.size}", "--time_based=1",
            f"--ramp_time={round(seconds * 1000)}ms",
            f"--runtime={max(1, round(3 * seconds * 1000))}ms"])

    @contextlib.contextmanager
    def fresh(self):
        if not os.path.exists(self.files.path):
            sparse(self.files.path, self.size, range(0, self.size, MIB))
            run(["sync", self.files.path])
        take_memory(self.folder, self.size)
        workloads.warm(self.files.path)
        run(["sync"])  # what was removed is discarded
        try:
            yield
        finally:
            for name in LEFT:
                remove(os.path.join(self.folder, name))

    def addcow_alone(self):
        self.overlay.make(self.folder)
        return timed(self.overlay.fill, self.folder)

    def addcow(self, filling, rate):
        self.overlay.make(self.folder)
        options = ["fill=all"] if filling else []
        options += [f"fill-rate={rate}"] if rate else []
        with self.overlay.serve_filling(self.folder, *options) as uri:
            job = self.fio(uri)
            return job, self.overlay.is_filling(self.folder)

    def qemu_alone(self):
        with qemu_job.serving(self.folder, self.files.path) as (_, monitor):
            qemu_job.stream(monitor)
            return timed(qemu_job.wait_until_filled, monitor)

    def qemu(self, filling, rate):
        with qemu_job.serving(self.folder, self.files.path) as (uri, monitor):
            if filling:
                qemu_job.stream(monitor, rate)
            job = self.fio(uri)
            return job, qemu_job.is_filling(monitor)

    def measure(self, program, alone, beside):
        if program not in self.half:
            with self.fresh():
                self.half[program] = int(self.size / alone() / 2)
        jobs = {}
        for condition in self.CONDITIONS:
            with self.fresh():
                jobs[condition], goes_on = beside(condition != "fill off", self.half[program]
                                                  if condition == "capped" else 0)
            if condition != "fill off" and not goes_on:
                raise Failed(f"{program}, {condition}: the fill was done before its clients; "
                             "a larger BENCH_SIZE helps")
        return jobs

    def figures(self, program, alone, beside):
        number = self.rounds[program] = self.rounds.get(program, 0) + 1
        if (program, number) not in self.known:
            self.known[program, number] = self.measure(program, alone, beside)
        return {condition: self.figure(job)
                for condition, job in self.known[program, number].items()}

    def figure(self, job):
        """A number of a job of fio."""
        raise NotImplementedError

    def programs_to_time(self):
        return [("addcow", lambda: self.figures("addcow", self.addcow_alone, self.addcow)),
                ("qemu-storage-daemon", lambda: self.figures("qemu-storage-daemon",
                                                             self.qemu_alone, self.qemu))]


class Rate(Beside):
    title = "random reads and writes of 4 KiB beside a fill, 4 in flight"
    unit, target = "a second", "0.90, capped"

    def figure(self, job):
        return job["read"]["iops"] + job["write"]["iops"]


class Latency(Beside):
    unit, percentile = "ms", ""

    def figure(self, job):
        # The slower of the two.
        return max(job[side]["clat_ns"]["percentile"][self.percentile]
                   for side in ("read", "write")) / 1e6


class P50(Latency):
    title, percentile = "the same, 50 % of them in", "50.000000"


class P99(Latency):
    title, percentile, target = "the same, 99 % of them in", "99.000000", "2.00 at most"


class P999(Latency):
    title, percentile = "the same, 99.9 % of them in", "99.900000"


class Start(Task):
    """From starting the program to its first 4 KiB, of a base that is served."""

    title = "start of a server over NBD, to the first 4 KiB"
    unit, target = "ms", "25 and what the base takes"
    DELAYS = ("no delay", "20 ms a read")

    def __init__(self, settings, folder):
        if reason := client.missing():
            raise Skip(reason)
        self.folder = folder
        self.files = Files(folder)
        sparse(self.files.path, settings.size, [0])
        self.overlay = Overlay(settings, self.files)

    def once(self, delay):
        base = f"{self.folder}/server"
        os.makedirs(base, exist_ok=True)
        workloads.warm(self.files.path)
        delays = [] if delay == self.DELAYS[0] else ["rdelay=20ms"]
        with serving(["nbdkit", *nbdkit(base, "-r", "--filter=delay", "file", self.files.path,
                                        *delays)], base) as uri:
            self.files.path, there = uri, self.files.path
            self.overlay.make(self.folder)
            self.files.path = there
            try:
                server, seconds = client.first_byte(
                    [self.overlay.build(), "nbdkit",
                     *nbdkit(self.folder, "addcow", f"{self.folder}/x.add-cow")],
                    f"nbd+unix:///?socket={self.folder}/socket")
                stop(server)
                return 1000 * seconds
            finally:
                for name in ("x.add-cow", "disk.raw", "socket", "pid"):
                    remove(os.path.join(self.folder, name))

    def programs_to_time(self):
        return [("addcow", lambda: {delay: self.once(delay) for delay in self.DELAYS})]


TASKS = {"fill-local": FillLocal, "fill-nbd": FillRemote, "beside": Rate, "beside-p50": P50,
         "beside-p99": P99, "beside-p99.9": P999, "start": Start}
