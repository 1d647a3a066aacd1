#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures many hosts that share one base over a network: an nbdkit that has the base,
and addcow servers of it, each in a network namespace of its own with a link to the
first one's. Prints a Markdown table of how long it takes until the first bytes are
there, and how much was read of the base. docs/scaling.md.

All hosts are started at once, and their clients connect at once. Then each client
reads the same part of the disk, pieces of 4 to 64 KiB in an order that looks like
chance, as a system that starts does. The servers are stopped, started again, and that
part is read again.

Wants root, `ip`, and python3-libnbd. All that it makes is removed."""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
import client
from servers import Failed, run, stop
from settings import machine, parse_size
from task_files import MIB, sparse

PORT = 10809
FIRST = 4096  # bytes


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="1,8,32", help="how many, one row each (%(default)s)")
    parser.add_argument("--size", default="2G", help="of the base (%(default)s)")
    parser.add_argument("--read", default="64M", help="of it, by each host (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="medians of (%(default)s)")
    parser.add_argument("--delay", default="0", metavar="TIME",
                        help="of each read at the base, as rdelay= of nbdkit's delay filter")
    parser.add_argument("--tls", action="store_true", help="between the hosts and the base, by PSK")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE",
                        help="of the addcow plugin, for instance copy-on-read=on; may be repeated")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR") or "/var/tmp")
    return parser.parse_args()


class Networks:
    """A namespace for the base with a bridge, and one for each host with a link to it:
    10.77.0.1 and 10.77.1.1, 10.77.1.2, ... Nothing of it can be seen from outside."""

    def __init__(self, hosts):
        self.prefix = f"addcow-fleet-{os.getpid()}"
        self.made = []
        try:
            self.make(hosts)
        except BaseException:
            self.remove()
            raise

    def make(self, hosts):
        self.store = self.add("store")
        self.ip(self.store, "link", "add", "br0", "type", "bridge")
        self.ip(self.store, "address", "add", "10.77.0.1/16", "dev", "br0")
        self.ip(self.store, "link", "set", "br0", "up")
        self.hosts = [self.host(number) for number in range(1, hosts + 1)]

    def add(self, name):
        name = f"{self.prefix}-{name}"
        run(["ip", "netns", "add", name])
        self.made.append(name)
        self.ip(name, "link", "set", "lo", "up")
        return name

    def host(self, number):
        name = self.add(f"host{number}")
        self.ip(name, "link", "add", "eth0", "type", "veth",
                "peer", "name", f"host{number}", "netns", self.store)
        self.ip(name, "address", "add", f"10.77.1.{number}/16", "dev", "eth0")
        self.ip(name, "link", "set", "eth0", "up")
        self.ip(self.store, "link", "set", f"host{number}", "master", "br0", "up")
        return name

    def ip(self, name, *words):
        run(["ip", "-n", name, *words])

    def remove(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def inside(name, command):
    return ["ip", "netns", "exec", name, *command]


class Fleet:
    """The base and its hosts. Everything started is in `running`, and is stopped."""

    def __init__(self, asked, scratch, base, hosts):
        self.asked, self.scratch, self.base = asked, scratch, base
        self.networks, self.running = None, []
        self.uri = f"nbd://10.77.0.1:{PORT}"
        self.hosts = hosts
        self.log = os.path.join(scratch, "base.log")

    def __enter__(self):
        try:
            self.networks = Networks(self.hosts)
            self.start_base()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            stop(process)
        if self.networks:
            self.networks.remove()

    def start(self, name, command):
        with open(os.path.join(self.scratch, "log"), "a", encoding="utf-8") as log:
            process = subprocess.Popen(inside(name, command), stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log)
        self.running.append(process)
        return process

    def start_base(self):
        pid = os.path.join(self.scratch, "base.pid")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(pid)  # of the one before, which says nothing of this one
        command = ["nbdkit", "-f", "-r", "-i", "10.77.0.1", "-p", str(PORT), "-P", pid,
                   "--filter=log"]
        plugin = ["file", self.base, f"logfile={self.log}", "logappend=true"]
        if self.asked.delay != "0":
            command.append("--filter=delay")
            plugin.append(f"rdelay={self.asked.delay}")
        if self.asked.tls:
            keys = os.path.join(self.scratch, "keys.psk")
            run(["psktool", "-u", "host", "-p", keys])
            command += ["--tls=require", f"--tls-psk={keys}"]
            self.uri = f"nbds://host@10.77.0.1:{PORT}/?tls-psk-file={keys}"
        self.wait(pid, self.start(self.networks.store, command + plugin))

    def wait(self, path, process):
        limit = time.monotonic() + 60
        while not (os.path.exists(path) and os.path.getsize(path)):
            if process.poll() is not None or time.monotonic() > limit:
                with open(os.path.join(self.scratch, "log"), encoding="utf-8") as log:
                    raise Failed(f"no server: {log.read().strip().splitlines()[-2:]}")
            time.sleep(0.001)

    def read_at_base(self):
        """Bytes since the last call."""
        with open(self.log, encoding="utf-8") as log:
            text = log.read()
        os.truncate(self.log, 0)
        return sum(int(count, 16) for count in re.findall(r" Read id=\d+ .* count=0x(\w+)", text))


class Hosts:
    """An addcow on each host of the fleet, all started and stopped together."""

    def __init__(self, asked, scratch, fleet):
        self.asked, self.fleet, self.servers = asked, fleet, []
        self.run = os.environ.get("ADDCOW_RUN") or "./run"
        self.places = [(name, os.path.join(scratch, name)) for name in fleet.networks.hosts]

    def create(self):
        """Nothing of the disk is on any host yet."""
        for name, folder in self.places:
            os.mkdir(folder)
            run(inside(name, [self.run, "addcow", "create", "-q", "-b", self.fleet.uri,
                              "-F", "raw", "-i", f"{folder}/disk.raw", f"{folder}/x.add-cow"]))

    def serve(self):
        """Gives the seconds until the last one of them can be connected to."""
        start = time.monotonic()
        self.servers = [self.fleet.start(name, [
            self.run, "nbdkit", "-f", "-U", f"{folder}/socket", "-P", f"{folder}/pid",
            "addcow", f"{folder}/x.add-cow", *self.asked.option])
            for name, folder in self.places]
        for server, (_, folder) in zip(self.servers, self.places):
            self.fleet.wait(f"{folder}/pid", server)
        return time.monotonic() - start

    def end(self):
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            stop(server)
        for _, folder in self.places:
            for name in ("pid", "socket"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{folder}/{name}")

    def ask(self, command, count):
        """The client's seconds at each host, all begun at the same moment."""
        begin = time.monotonic_ns() + int((0.5 + 0.1 * len(self.places)) * 1e9)
        clients = []
        for name, folder in self.places:
            clients.append(subprocess.Popen(inside(name, [
                client.python(), "-B", os.path.abspath(client.__file__), command,
                f"nbd+unix:///?socket={folder}/socket", str(count), str(begin)]),
                stdout=subprocess.PIPE, text=True))
        self.fleet.running += clients
        seconds = [json.loads(each.communicate(timeout=280)[0] or "null") for each in clients]
        if None in seconds:
            raise Failed("a client failed")
        return seconds


def measure(asked, scratch, base, count):
    """One row's figures, once: seconds, and bytes read at the base."""
    found, part = {}, parse_size(asked.read)
    with Fleet(asked, scratch, base, count) as fleet:
        hosts = Hosts(asked, scratch, fleet)
        hosts.create()
        found["serve"] = hosts.serve()
        found["first"] = hosts.ask("first", FIRST)
        found["first bytes"] = fleet.read_at_base()
        found["part"] = hosts.ask("part", part)
        hosts.end()
        found["part bytes"] = fleet.read_at_base()
        hosts.serve()
        found["again"] = hosts.ask("part", part)
        hosts.end()
        found["again bytes"] = fleet.read_at_base()
    for _, folder in hosts.places:
        shutil.rmtree(folder)
    return found


HEADS = ("hosts", "all serve after", "first 4 KiB", "at the slowest", "read at the base",
         "part read in", "read at the base", "again, servers restarted", "read at the base")


def row(hosts, rounds):
    """A line of the table: medians of the rounds; of the hosts the slowest."""
    def median(choose):
        return statistics.median(choose(each) for each in rounds)

    def slowest(name):
        return median(lambda each: max(each[name]))

    def mib(name):
        return f"{median(lambda each: each[name]) / MIB:.1f} MiB"

    first = median(lambda each: statistics.median(each["first"]))
    return "| " + " | ".join([
        str(hosts), f"{median(lambda each: each['serve']) * 1000:.0f} ms",
        f"{first * 1000:.1f} ms", f"{slowest('first') * 1000:.1f} ms", mib("first bytes"),
        f"{slowest('part'):.2f} s", mib("part bytes"), f"{slowest('again'):.2f} s",
        mib("again bytes")]) + " |"


def missing():
    if os.geteuid() != 0:
        return "network namespaces are made as root only"
    for program in ("ip", "nbdkit"):
        if not shutil.which(program):
            return f"{program} is not installed"
    if subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode:
        return "no network namespaces here"
    return client.missing()


def interrupted(number, _frame):
    raise SystemExit(128 + number)


def main():
    asked = arguments()
    if reason := missing():
        print(f"SKIP: {reason}")
        return 77
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, interrupted)
    counts = [int(each) for each in asked.hosts.split(",")]
    if not all(1 <= each <= 250 for each in counts):
        print("fleet: --hosts: 1 to 250", file=sys.stderr)
        return 2
    here = machine(asked.dir)
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    with tempfile.TemporaryDirectory(prefix="addcow-fleet.",
                                     dir=os.path.abspath(asked.dir)) as scratch:
        base = os.path.join(scratch, "base.img")
        size = parse_size(asked.size)
        sparse(base, size, range(0, size, MIB))
        rounds = {hosts: [] for hosts in counts}
        try:
            for _ in range(asked.rounds):
                for hosts in counts:
                    rounds[hosts].append(measure(asked, scratch, base, hosts))
                    print(f"{hosts} hosts: {row(hosts, rounds[hosts][-1:])}",
                          file=sys.stderr, flush=True)
        except Failed as error:
            print(f"fleet: {error}", file=sys.stderr)
            return 1
    lines += [row(hosts, found) for hosts, found in rounds.items()]
    print("\n".join(lines))
    told = " ".join([f"--size={asked.size}", f"--read={asked.read}", f"--delay={asked.delay}",
                     *(["--tls"] if asked.tls else []),
                     *(f"--option={each}" for each in asked.option)])
    print(f"\n{here['date']}, {here['cores']} cores of {here['cpu']}, Linux {here['kernel']}, "
          f"{here['nbdkit']}; {asked.rounds} rounds, load average before {here['load before']}. "
          f"Command: `bench/fleet.py {told}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
