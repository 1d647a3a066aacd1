#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures reads like those of a system that starts, of a base that answers slowly:
the time from connecting to the first 4 KiB, and a trace of 2,000 reads of 4 to 128
KiB, clustered, four in flight; once, again with the same server, and again after that
was stopped and started. Prints a Markdown table, with what was read at the base.

The base is nbdkit with a delay for each read and each block status. addcow with
copy-on-read and without it stands beside nbdkit's cow filter with cow-on-read, over
its nbd plugin, and QEMU's copy-on-read over a qcow2 overlay.

Wants nbdkit, qemu-nbd, and python3-libnbd."""

import argparse
import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
import client
from servers import Failed, run, serving
from settings import machine, parse_size
from task_files import MIB, sparse

READS, IN_FLIGHT = 2000, 4
FIRST = 4096  # bytes


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1G", help="of the base (%(default)s)")
    parser.add_argument("--delay", default="20ms", help="of each answer (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="medians of (%(default)s)")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR") or "/var/tmp")
    parser.add_argument("--play", nargs=2, metavar=("URI", "SIZE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def trace(size):
    """The same in each run: groups of reads near each other, as of files that lie
    together; some places are read twice."""
    chance = random.Random(20)
    reads = []
    while len(reads) < READS:
        place = chance.randrange(0, size - 8 * MIB) // 4096 * 4096
        for _ in range(chance.randrange(5, 60)):
            length = 4096 * chance.choice((1, 1, 1, 2, 4, 4, 8, 16, 32))
            reads.append((place, length))
            place += length if chance.random() < 0.6 else chance.randrange(0, 256) * 4096
            place = min(place, size - MIB)
    return reads[:READS]


def play(uri, size):
    """In a Python that has libnbd: prints the seconds."""
    import nbd  # pylint: disable=import-outside-toplevel,import-error
    handle = nbd.NBD()
    start = time.monotonic()
    handle.connect_uri(uri)
    handle.pread(FIRST, 0)
    first = time.monotonic() - start
    begun = time.monotonic()
    flying = []

    def finish(cookie):
        while not handle.aio_command_completed(cookie):
            handle.poll(-1)

    for offset, length in trace(size):
        if len(flying) == IN_FLIGHT:
            finish(flying.pop(0))
        flying.append(handle.aio_pread(nbd.Buffer(length), offset))
    for cookie in flying:
        finish(cookie)
    print(json.dumps([first, time.monotonic() - begun]))
    handle.shutdown()


class Addcow:
    title, options = "addcow copy-on-read=on", ("copy-on-read=on",)

    def make(self, folder, base):
        run([self.run(), "addcow", "create", "-q", "-b", base, "-F", "raw",
             "-i", "disk.raw", os.path.join(folder, "x.add-cow")])

    @staticmethod
    def run():
        return os.environ.get("ADDCOW_RUN") or "./run"

    def command(self, folder, _base):
        return [self.run(), "nbdkit", "-f", "-U", f"{folder}/socket", "-P", f"{folder}/pid",
                "addcow", f"{folder}/x.add-cow", *self.options]


class AddcowPlain(Addcow):
    title, options = "addcow", ()


class Cow:
    title = "nbdkit's nbd plugin, cow filter, cow-on-read"

    def make(self, _folder, _base):
        """Its overlay lives as long as the server."""

    def command(self, folder, base):
        return ["nbdkit", "-f", "-U", f"{folder}/socket", "-P", f"{folder}/pid",
                "--filter=cow", "nbd", f"uri={base}", "cow-on-read=true"]


class Qemu:
    title = "qemu-nbd, copy-on-read over qcow2"

    def make(self, folder, base):
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw",
             f"{folder}/x.qcow2"])

    def command(self, folder, _base):
        return ["qemu-nbd", "-t", f"--socket={folder}/socket", f"--pid-file={folder}/pid",
                "--image-opts", "driver=copy-on-read,file.driver=qcow2,file.file.driver=file,"
                f"file.file.filename={folder}/x.qcow2"]


SERVERS = (Addcow(), AddcowPlain(), Cow(), Qemu())


class Base:
    """The slow server, and how much it has read since it was asked last."""

    def __init__(self, scratch, image, delay):
        self.folder, self.log = os.path.join(scratch, "base"), os.path.join(scratch, "base.log")
        os.mkdir(self.folder)
        self.command = ["nbdkit", "-f", "-r", "-t", "64", "-U", f"{self.folder}/socket",
                        "-P", f"{self.folder}/pid", "--filter=log", "--filter=delay", "file",
                        image, f"logfile={self.log}", "logappend=true", f"rdelay={delay}",
                        f"delay-extents={delay}"]

    def serve(self):
        return serving(self.command, self.folder)

    def read(self):
        with open(self.log, encoding="utf-8") as log:
            text = log.read()
        os.truncate(self.log, 0)
        return sum(int(count, 16) for count in re.findall(r" Read id=\d+ .* count=0x(\w+)", text))


def measure(server, scratch, base, uri, size):
    """Seconds and bytes of the three passes."""
    folder = os.path.join(scratch, "overlay")
    os.mkdir(folder)
    server.make(folder, uri)
    base.read()
    found = []

    def one(overlay):
        seconds = json.loads(run([client.python(), "-B", os.path.abspath(__file__),
                                  "--play", overlay, str(size)]))
        found.append((*seconds, base.read()))

    with serving(server.command(folder, uri), folder) as overlay:
        one(overlay)
        one(overlay)
    with serving(server.command(folder, uri), folder) as overlay:
        one(overlay)
    subprocess.run(["rm", "-rf", folder], check=True)
    return found


HEADS = ("server", "first 4 KiB", "trace", "read at the base", "again", "read at the base",
         "again, restarted", "read at the base")


def row(title, rounds):
    cells = [title, f"{statistics.median(each[0][0] for each in rounds) * 1000:.0f} ms"]
    for number in range(3):
        cells += [f"{statistics.median(each[number][1] for each in rounds):.2f} s",
                  f"{statistics.median(each[number][2] for each in rounds) / MIB:.1f} MiB"]
    return "| " + " | ".join(cells) + " |"


def main():
    asked = arguments()
    if asked.play:
        play(asked.play[0], int(asked.play[1]))
        return 0
    if reason := client.missing():
        print(f"SKIP: {reason}")
        return 77
    size, here = parse_size(asked.size), machine(asked.dir)
    rounds = {server: [] for server in SERVERS}
    with tempfile.TemporaryDirectory(prefix="addcow-trace.",
                                     dir=os.path.abspath(asked.dir)) as scratch:
        image = os.path.join(scratch, "base.img")
        sparse(image, size, range(0, size, MIB))
        base = Base(scratch, image, asked.delay)
        try:
            with base.serve() as uri:
                for _ in range(asked.rounds):
                    for server in SERVERS:
                        rounds[server].append(measure(server, scratch, base, uri, size))
                        print(row(server.title, rounds[server][-1:]), file=sys.stderr,
                              flush=True)
        except Failed as error:
            print(f"boot_trace: {error}", file=sys.stderr)
            return 1
    wanted = sum(length for _, length in trace(size)) / MIB
    print("| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS))
    for server, found in rounds.items():
        print(row(server.title, found))
    print(f"\nThe trace reads {wanted:.1f} MiB. {here['date']}, {here['cores']} cores of "
          f"{here['cpu']}, Linux {here['kernel']}, {here['nbdkit']}; {asked.rounds} rounds, load "
          f"average before {here['load before']}. Command: `bench/boot_trace.py "
          f"--size={asked.size} --delay={asked.delay} --rounds={asked.rounds}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
