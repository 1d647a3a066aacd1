# SPDX-License-Identifier: LGPL-2.1-or-later
"""The workloads that fio does: what is read or written, on which state of the
overlay, and how much of it.

What changes the state (first touch) is a fixed number of bytes, the same for
every server. What does not is done for BENCH_SECONDS. Time is what fio counts
for the job, the final fsync included where a workload has one; starting and
stopping servers is never in it."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass

import client
from servers import Failed, run

MIB = 1 << 20
# Part of the disk that is allocated before the workloads on allocated clusters.
ALLOCATED = 512 * MIB
# Part in which every other 4 KiB block is, written at random.
ALTERNATING = 256 * MIB
FRESH, FILLED, ALTERNATE = "unallocated", "allocated", "alternating"


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    pattern: str
    block: str
    state: str
    io_mib: int = 0          # fixed number of MiB; 0: for BENCH_SECONDS
    fsync: int = 0           # a flush after that many writes
    final_flush: bool = False
    tries: int = 1           # so often in each round; the fastest counts
    target: str = ""         # what the project aims at, as a ratio to the raw limit if not said

    def flushed(self):
        return self.fsync > 0 or self.final_flush

    def side(self):
        return "read" if "read" in self.pattern else "write"

    def first_touch(self):
        return self.state == FRESH and self.side() == "write"


SPARSE = "of raw, sparse"
WORKLOADS = {workload.name: workload for workload in (
    Workload("randread-4k", "random read 4k, unallocated", "randread", "4k", FRESH, target="0.95"),
    Workload("randwrite-4k-first", "random write 4k, first touch", "randwrite", "4k", FRESH,
             io_mib=128, target=f"0.90 {SPARSE}"),
    Workload("write-4k-first", "sequential write 4k, first touch", "write", "4k", FRESH,
             io_mib=512, target=f"0.95 {SPARSE}"),
    Workload("write-256k-first", "sequential write 256k, first touch", "write", "256k", FRESH,
             io_mib=512, tries=3, target=f"0.95 {SPARSE}"),
    Workload("write-1M-first", "sequential write 1M, first touch", "write", "1M", FRESH,
             io_mib=512, tries=3, target=f"0.95 {SPARSE}"),
    Workload("randwrite-4k-fsync", "random write 4k, first touch, fsync every 32", "randwrite",
             "4k", FRESH, io_mib=16, fsync=32,
             target=f"0.65 {SPARSE}; 1.5 times the best durable peer"),
    Workload("randwrite-4k-flush", "random write 4k, first touch, final flush counted",
             "randwrite", "4k", FRESH, io_mib=64, final_flush=True,
             target=f"0.90 {SPARSE}, more than any peer"),
    Workload("write-4k-flush", "sequential write 4k, first touch, final flush counted", "write",
             "4k", FRESH, io_mib=512, final_flush=True, target="0.75"),
    Workload("randread-4k-allocated", "random read 4k, allocated", "randread", "4k", FILLED,
             target="0.95"),
    Workload("randwrite-4k-allocated", "random write 4k, allocated", "randwrite", "4k", FILLED,
             target="0.95"),
    Workload("read-1M-allocated", "sequential read 1M, allocated", "read", "1M", FILLED,
             target="0.95"),
    Workload("read-1M", "sequential read 1M, unallocated", "read", "1M", FRESH, target="0.95"),
    Workload("read-1M-alternating", "sequential read 1M, every other 4k written at random",
             "read", "1M", ALTERNATE, target="0.45"),
)}


def fio_missing():
    """Why fio cannot do it, or None."""
    if not shutil.which("fio"):
        return "fio is not installed"
    engines = subprocess.run(["fio", "--enghelp"], capture_output=True, text=True, check=False)
    return None if "nbd" in engines.stdout.split() else "fio has no nbd engine"


def fio(uri, folder, arguments):
    """Runs one job and gives its part of fio's JSON."""
    command = ["fio", "--name=bench", "--ioengine=nbd", f"--uri={uri}", "--iodepth=16",
               "--randseed=1", "--output-format=json", *arguments]
    text = run(command, cwd=folder)
    try:
        job = json.loads(text[text.index("{"):])["jobs"][0]
    except (ValueError, LookupError) as error:
        raise Failed(f"fio: its output cannot be read: {error}") from error
    if job["error"]:
        raise Failed(f"fio: error {job['error']}")
    return job


def sample(job, side):
    """Bytes and seconds out of fio's JSON."""
    return {"bytes": job[side]["io_bytes"], "seconds": max(job[side]["runtime"], 1) / 1000}


def missing(workload):
    """Why it cannot be done here, or None."""
    return client.missing() if workload.state == ALTERNATE else None


def used_size(state, settings):
    """The first part of the disk, which a workload on that state uses."""
    return {FRESH: settings.size, FILLED: min(ALLOCATED, settings.size // 4),
            ALTERNATE: min(ALTERNATING, settings.size // 8)}[state]


def prepare(state, uri, folder, settings):
    """Has that part allocated, or every other block of it, and on the disk."""
    size = used_size(state, settings)
    if state == FILLED:
        fio(uri, folder, ["--rw=write", "--bs=1M", f"--size={size}", "--end_fsync=1"])
    else:
        client.call("alternate", uri, size)


def written(workload, settings):
    """Bytes that a workload with a fixed number of them writes."""
    return min(settings.scaled(workload.io_mib * MIB), settings.size)


def arguments_of(workload, settings):
    arguments = [f"--rw={workload.pattern}", f"--bs={workload.block}",
                 f"--size={used_size(workload.state, settings)}"]
    if workload.io_mib:
        arguments.append(f"--io_size={written(workload, settings)}")
    else:
        arguments += ["--time_based=1", f"--runtime={max(1, round(settings.seconds * 1000))}ms"]
    if workload.fsync:
        arguments.append(f"--fsync={workload.fsync}")
    if workload.final_flush:
        arguments.append("--end_fsync=1")
    return arguments


def raw_image(workload, server, settings, scratch):
    """The file that the raw limit serves, see servers.Raw."""
    if workload.first_touch():
        return server.backing.raw
    if workload.state == FRESH:
        return server.backing.path
    path = os.path.join(scratch, f"{workload.state}.img")
    if not os.path.exists(path):
        with open(path, "wb") as file, open(server.backing.path, "rb") as base:
            if workload.state == ALTERNATE:  # the other blocks are in no backing file here
                for _ in range(used_size(ALTERNATE, settings) // MIB):
                    file.write(base.read(MIB))
            file.truncate(settings.size)
    return path


def take_memory(path, size):
    """Uses that much of the page cache for a moment. A virtual machine may have
    given what is free back to its host, and who needs it first would pay for
    getting it again: a second for a GiB."""
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(bytes(MIB))
    os.unlink(path)


def warm(*paths):
    """Has the files' data in the page cache. Before each measurement: what the
    last ones did not read may be gone, and the first server to read it would pay."""
    buffer = bytearray(MIB)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            position = 0
            while True:
                try:
                    position = file.seek(position, os.SEEK_DATA)
                except OSError:  # only a hole follows
                    break
                hole = file.seek(position, os.SEEK_HOLE)
                file.seek(position)
                while position < hole:
                    position += file.readinto(buffer)


def measure(workload, server, settings, scratch):
    """One sample: that of the fastest try, where there are several. Memory that
    has to come from a hypervisor can make one several times slower."""
    tries = [measure_once(workload, server, settings, scratch) for _ in range(workload.tries)]
    return min(tries, key=lambda sample: sample["seconds"] / sample["bytes"])


def measure_once(workload, server, settings, scratch):
    """One measurement, on an overlay in the state that the workload wants."""
    image = raw_image(workload, server, settings, scratch)
    folder = os.path.join(scratch, "overlay")
    throw_away = workload.state == FRESH or not server.keeps
    if not throw_away:
        folder = os.path.join(scratch, f"{workload.state}-{server.name}")
        if not os.path.isdir(folder):
            os.mkdir(folder)
            server.make(folder, image)
            with server.serve(folder) as uri:
                prepare(workload.state, uri, folder, settings)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        server.make(folder, image)
    try:
        with server.serve(folder, throw_away) as uri:
            if workload.state != FRESH and not server.keeps:
                prepare(workload.state, uri, folder, settings)
            if workload.first_touch():
                take_memory(os.path.join(scratch, "memory"),
                            written(workload, settings) + 128 * MIB)
            warm(server.backing.path,
                 *(file.path for file in os.scandir(folder) if file.is_file()))
            job = fio(uri, folder, arguments_of(workload, settings))
    finally:
        server.settle(folder)
        shutil.rmtree(os.path.join(scratch, "overlay"), ignore_errors=True)
    return sample(job, workload.side())
