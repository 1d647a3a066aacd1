#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures addcow and the servers that a user could take instead, side by side
on this machine: bench/README.md.

Rounds are interleaved: each does each workload once on each server, and the
next begins with another server. Everything is made in one scratch folder, which
is removed, and each server is stopped, however this ends."""

import os
import shlex
import shutil
import signal
import sys
import tempfile

sys.dont_write_bytecode = True  # the sources may lie in a folder that is read only

# pylint: disable=wrong-import-position
import bases
import report
import tasks
from servers import SERVERS, Failed, sync_file
from settings import Settings, machine, wrong
from workloads import ALTERNATE, FILLED, WORKLOADS, fio_missing, measure, missing, used_size

GIB = 1 << 30


def say(text):
    print(text, file=sys.stderr, flush=True)


class Backing:
    """The backing file of all overlays, and a raw file like it for the limit:
    noise, so that no layer can make it smaller."""

    def __init__(self, scratch, size):
        self.path = os.path.join(scratch, "base.img")
        self.raw = os.path.join(scratch, "raw.img")
        with open(self.path, "wb") as base, open(self.raw, "wb") as raw:
            for _ in range(size >> 20):
                piece = os.urandom(1 << 20)
                base.write(piece)
                raw.write(piece)
        sync_file(self.path)
        sync_file(self.raw)


def room_needed(settings):
    kept = used_size(FILLED, settings) + used_size(ALTERNATE, settings)
    return settings.size * 4 + kept * len(settings.servers) + (settings.size >> 3)


def skip(result, name, reason):
    result["skipped"].append([name, reason])
    say(f"SKIP: {name}: {reason}")


def servers_here(settings, backing, scratch, result):
    """Those that can run: each is started once, on an overlay of its own."""
    found = []
    for name in settings.servers:
        server = SERVERS[name](settings, backing)
        reason = server.missing()
        if not reason:
            folder = os.path.join(scratch, "overlay")
            os.mkdir(folder)
            try:
                server.make(folder)
                with server.serve(folder):
                    pass
            except Failed as error:
                reason = str(error)
            finally:
                shutil.rmtree(folder)
        if reason and name in ("raw", "addcow", "addcow-other"):
            # Nothing is left to be compared, or it is broken.
            wrong(f"{server.title}: {reason}")
        if reason:
            skip(result, server.title, reason)
        else:
            found.append(server)
    return found


def run_fio_group(settings, scratch, result):
    reason = fio_missing()
    if reason:
        skip(result, "all workloads", reason)
        return
    free = shutil.disk_usage(scratch).free
    if free < room_needed(settings):
        wrong(f"{settings.directory} has {free / GIB:.1f} GiB of room, "
              f"{room_needed(settings) / GIB:.1f} are needed: set BENCH_DIR or BENCH_SIZE")
    say(f"bench: makes two files of {settings.size >> 20} MiB in {settings.directory}")
    backing = Backing(scratch, settings.size)
    servers = servers_here(settings, backing, scratch, result)
    result["servers"] = [{"name": server.name, "title": server.title, "durable": server.durable}
                         for server in servers]
    chosen = [WORKLOADS[name] for name in settings.workloads]
    for workload in chosen:
        if reason := missing(workload):
            skip(result, workload.title, reason)
    chosen = [workload for workload in chosen if not missing(workload)]
    say(f"bench: measures {len(chosen)} workloads on {len(servers)} servers, "
        f"{settings.rounds} rounds")
    result["workloads"] = [{"name": each.name, "title": each.title, "target": each.target,
                            "flushed": each.flushed()} for each in chosen]
    for number in range(settings.rounds):
        start = number % len(servers)
        for workload in chosen:
            for server in servers[start:] + servers[:start]:
                if not server.does(workload):
                    continue
                what = f"round {number + 1}, {workload.title}, {server.title}"
                try:
                    sample = measure(workload, server, settings, scratch)
                except Failed as error:
                    result["failed"].append(f"{what}: {error}")
                    say(f"FAILED: {what}: {error}")
                    continue
                result["samples"].append({"workload": workload.name, "server": server.name,
                                          "round": number + 1, **sample})
                say(f"{what}: {report.speed(sample):.0f} MB/s in {sample['seconds']:.2f} s")


def interrupted(number, _frame):
    raise SystemExit(128 + number)


def main():
    if len(sys.argv) > 1:
        print(__doc__)
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, interrupted)
    settings = Settings(SERVERS, {"fio": WORKLOADS, **tasks.GROUPS,
                                  "bases": bases.READINGS}, bases.BASES)
    told = [f"{name}={shlex.quote(value) if name != 'BENCH_OTHER' else 'BUILD'}"
            for name, value in sorted(os.environ.items())
            if name.startswith("BENCH_")
            and name not in ("BENCH_DIR", "BENCH_OUTPUT", "BENCH_NOTE", "BENCH_NAME")]
    result = {
        "group": settings.group, "rounds": settings.rounds,
        "command": " ".join(["make bench", *told]), "note": settings.note,
        "machine": machine(settings.directory), "skipped": [], "failed": [], "servers": [],
        "workloads": [], "tasks": [], "samples": [],
    }
    with tempfile.TemporaryDirectory(prefix="addcow-bench.", dir=settings.directory) as scratch:
        try:
            if settings.group == "fio":
                run_fio_group(settings, scratch, result)
            elif settings.group == "bases":
                bases.run_group(settings, scratch, result, skip, say)
            else:
                tasks.run_group(settings, scratch, result, say)
        except SystemExit:
            result["failed"].append("the run was interrupted: not all rounds are complete")
            raise
        finally:
            if result["samples"]:
                text = report.write(result, settings.output, settings.name)
    if not result["samples"]:
        say("bench: nothing was measured")
        return 1 if result["failed"] else 0
    print(text)
    say(f"bench: written to {settings.output}/{settings.name}.*")
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
