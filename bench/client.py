#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests that fio cannot send: places that are chosen one by one. A program of
its own, since libnbd's module belongs to the system's Python, which need not be
the one that runs the benchmark.

  client.py alternate URI SIZE       writes every even 4 KiB block of the first SIZE bytes
  client.py scatter URI COUNT SIZE   writes COUNT blocks of a disk of SIZE bytes
  client.py status URI COUNT SIZE    times block status after that, before a flush and after
  client.py flush URI COUNT SIZE     times flushes after that, without and beside FUA writes
  client.py first URI COUNT TIME     times the way from connecting to the first COUNT bytes
  client.py born URI COUNT           tells when the first COUNT bytes of a server were there
                                     that is to start meanwhile
  client.py part URI COUNT TIME      times reading the first COUNT bytes in small pieces

Blocks are of 4 KiB and none is written twice. Places are random, and the same in
each run. What was done, or how long it took, is printed as JSON."""

import contextlib
import functools
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time

from servers import Failed, run, stop

try:
    import nbd
except ImportError:  # the benchmark's own Python, which only starts this program
    nbd = None

BLOCK, MIB = 4096, 1 << 20


@functools.cache
def python():
    """A Python that has libnbd, or None."""
    for program in (sys.executable, "/usr/bin/python3"):
        if os.access(program, os.X_OK) and subprocess.run(
                [program, "-c", "import nbd"], capture_output=True, check=False).returncode == 0:
            return program
    return None


def missing():
    """Why nothing can be sent, or None."""
    return None if python() else "Python's module nbd (python3-libnbd) is not installed"


def program(command, uri, *numbers):
    if not python():
        raise Failed(missing())
    return [python(), "-B", os.path.abspath(__file__), command, uri, *map(str, numbers)]


def call(command, uri, *numbers):
    """Runs the program; gives what it prints."""
    return json.loads(run(program(command, uri, *numbers)))


def first_byte(server, uri):
    """Starts `server`, which goes on; gives it, and the seconds until the first 4 KiB."""
    with subprocess.Popen(program("born", uri, BLOCK), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as reader:
        reader.stderr.readline()
        start = time.monotonic_ns()
        process = subprocess.Popen(server, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        answer = reader.stdout.readline()
        if not answer:
            stop(process)
            raise Failed(f"{server[0]}: nothing was read: {reader.stderr.read().strip()}")
    return process, (int(answer) - start) / 1e9


def connected(uri):
    handle = nbd.NBD()
    handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    handle.connect_uri(uri)
    return handle


def write(handle, blocks):
    """Noise into each of the blocks, in that order, one after the other."""
    noise = random.Random(0).randbytes(BLOCK)
    for block in blocks:
        handle.pwrite(noise, block * BLOCK)


def alternate(uri, size):
    """Each even block once: a shuffled list of them has no block twice and leaves
    out none. (fio's blockalign= would: it writes some twice.)"""
    handle = connected(uri)
    blocks = list(range(0, size // BLOCK, 2))
    random.Random(1).shuffle(blocks)
    write(handle, blocks)
    handle.flush()
    return {"blocks": len(blocks)}


def places(count, size, first=0):
    """Blocks from `first` on, at random and each once."""
    return random.Random(1).sample(range(first, size // BLOCK), count)


def scatter(uri, count, size):
    handle = connected(uri)
    write(handle, places(count, size))
    handle.flush()
    return {"bytes": count * BLOCK}


def milliseconds(function):
    start = time.monotonic()
    function()
    return (time.monotonic() - start) * 1000


def status(uri, count, size):
    """Milliseconds of a call that asks for one extent of all that follows; some 200
    calls all over the disk."""
    handle = connected(uri)
    write(handle, places(count, size))

    offsets = range(0, size, size // 200 // BLOCK * BLOCK)

    def ask():
        for offset in offsets:
            handle.block_status(min(size - offset, 1 << 31), offset, lambda *_: 0,
                                nbd.CMD_FLAG_REQ_ONE)

    ask()  # whatever the first calls have to look up
    before = milliseconds(ask) / len(offsets)
    handle.flush()
    return {"before a flush": before, "after it": milliseconds(ask) / len(offsets)}


class FuaWrites:
    """A connection of its own that writes the first block with FUA, again and again,
    for the length of a "with" statement."""

    def __init__(self, uri):
        self.handle, self.ends, self.runs = connected(uri), threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.write)

    def write(self):
        while not self.ends.is_set():
            self.handle.pwrite(bytes(BLOCK), 0, nbd.CMD_FLAG_FUA)
            self.runs.set()

    def __enter__(self):
        self.thread.start()
        self.runs.wait(10)

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()


def flush(uri, count, size, flushes=5):
    """Milliseconds of a flush after `count` writes, medians. What FUA writes go to is
    durable before: else each of them would be a flush of all by itself."""
    handle = connected(uri)
    handle.pwrite(bytes(MIB), 0)
    handle.flush()
    blocks = places(2 * flushes * count, size, MIB // BLOCK)
    found = {"alone": [], "beside FUA writes": []}
    for _ in range(flushes):
        for part, times in found.items():
            write(handle, [blocks.pop() for _ in range(count)])
            with FuaWrites(uri) if part != "alone" else contextlib.nullcontext():
                times.append(milliseconds(handle.flush))
    return {part: statistics.median(times) for part, times in found.items()}


def wait_for(nanoseconds):
    """Until that time of the system's monotonic clock, which many clients can wait for."""
    time.sleep(max(0, nanoseconds - time.monotonic_ns()) / 1e9)


def first(uri, count, start):
    """Seconds from the time `start`, when it connects, to the answer."""
    wait_for(start)
    handle = nbd.NBD()
    handle.connect_uri(uri)
    handle.pread(count, handle.get_size() // 2)
    return (time.monotonic_ns() - start) / 1e9


def born(uri, count):
    """The time of the answer, of time.monotonic_ns()."""
    print("ready", file=sys.stderr, flush=True)
    while True:
        handle = nbd.NBD()
        try:
            handle.connect_uri(uri)
            break
        except nbd.Error:
            time.sleep(0.0002)
    handle.pread(count, 0)
    return time.monotonic_ns()


def part(uri, count, start):
    """Seconds for the first `count` bytes in pieces of 4 to 64 KiB, one after the other,
    which begin anywhere: for everybody in the same order."""
    chance, pieces, offset = random.Random(2), [], 0
    while offset < count:
        length = min(count - offset, BLOCK << chance.randrange(5))
        pieces.append((length, offset))
        offset += length
    chance.shuffle(pieces)
    handle = connected(uri)
    wait_for(start)
    for length, offset in pieces:
        handle.pread(length, offset)
    return (time.monotonic_ns() - start) / 1e9


COMMANDS = {"alternate": alternate, "scatter": scatter, "status": status, "flush": flush,
            "first": first, "born": born, "part": part}


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in COMMANDS:
        print(__doc__)
        return 2
    print(json.dumps(COMMANDS[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
