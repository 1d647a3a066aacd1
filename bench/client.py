#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests that fio cannot send: places that are chosen one by one. A program of
its own, since libnbd's module belongs to the system's Python, which need not be
the one that runs the benchmark.

  client.py alternate URI SIZE    writes every even 4 KiB block of the first SIZE bytes

Places are random, and the same in each run. What was done is printed as JSON."""

import functools
import json
import os
import random
import subprocess
import sys

from servers import Failed, run

BLOCK = 4096


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


def call(command, uri, *numbers):
    """Runs the program; gives what it prints."""
    if not python():
        raise Failed(missing())
    return json.loads(run([python(), "-B", os.path.abspath(__file__), command, uri,
                           *map(str, numbers)]))


def connected(uri):
    import nbd  # pylint: disable=import-outside-toplevel
    handle = nbd.NBD()
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


COMMANDS = {"alternate": alternate}


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in COMMANDS:
        print(__doc__)
        return 2
    print(json.dumps(COMMANDS[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
