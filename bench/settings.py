# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a run is told by its environment (see bench/README.md), and what the
table says about the machine. A setting that makes no sense ends the run before
anything is measured."""

import datetime
import os
import platform
import shutil
import subprocess
import sys
import tempfile

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def wrong(text):
    """Ends the program as a wrong use of it."""
    print(f"bench: {text}", file=sys.stderr)
    sys.exit(2)


def parse_size(text):
    """2G -> 2147483648."""
    number, unit = text.strip(), ""
    if number and number[-1].upper() in UNITS:
        number, unit = number[:-1], number[-1].upper()
    try:
        return int(number) * UNITS[unit]
    except ValueError:
        return wrong(f"not a size: {text!r} (for example 512M, 2G)")


def number(name, default, least):
    text = os.environ.get(name) or str(default)
    try:
        value = type(default)(text)
    except ValueError:
        return wrong(f"{name}={text}: not a number")
    return value if value >= least else wrong(f"{name}={text}: {least} or more is needed")


def chosen(name, known):
    """The names that the variable lists, in the order of `known`; all of them
    where it is not set."""
    text = os.environ.get(name, "").replace(",", " ").split()
    for word in text:
        if word not in known:
            wrong(f"{name}: no {word!r}; there are: {' '.join(known)}")
    return [word for word in known if not text or word in text]


class Settings:
    """All BENCH_* variables."""

    def __init__(self, servers, workloads, bases):
        """`workloads`: of each group; `bases`: of the group of that name."""
        self.group = os.environ.get("BENCH_GROUP") or "fio"
        if self.group not in workloads:
            wrong(f"BENCH_GROUP={self.group}: there are: {' '.join(workloads)}")
        self.rounds = number("BENCH_ROUNDS", 3, 1)
        self.seconds = number("BENCH_SECONDS", 2.0, 0.01)
        self.size = parse_size(os.environ.get("BENCH_SIZE") or "2G")
        self.map_size = parse_size(os.environ.get("BENCH_MAP_SIZE") or "2G")
        if self.size < 1 << 23 or self.size % (1 << 20):
            wrong("BENCH_SIZE: 8M or more, in whole MiB")
        self.directory = os.environ.get("BENCH_DIR") or os.environ.get("TMPDIR") or "/var/tmp"
        self.output = os.environ.get("BENCH_OUTPUT") or "bench/results"
        self.name = os.environ.get("BENCH_NAME") or \
            ("latest" if self.group == "fio" else f"latest-{self.group}")
        self.note = os.environ.get("BENCH_NOTE", "")
        self.run = os.environ.get("ADDCOW_RUN") or "./run"
        self.other = os.environ.get("BENCH_OTHER", "")
        if self.other and not os.access(os.path.join(self.other, "run"), os.X_OK):
            wrong(f"BENCH_OTHER={self.other}: not the folder of a build, it has no program 'run'")
        self.servers = chosen("BENCH_SERVERS", [name for name in servers
                                                if self.other or name != "addcow-other"])
        self.bases = chosen("BENCH_BASES", bases)
        self.workloads = chosen("BENCH_WORKLOADS", workloads[self.group])
        if self.group == "fio" and "raw" not in self.servers:
            wrong("BENCH_SERVERS: 'raw' is what the others are compared to, it cannot be left out")
        if not os.path.isdir(self.directory):
            wrong(f"BENCH_DIR={self.directory}: no such folder")
        # Now, not after half an hour.
        if "/" in self.name:
            wrong(f"BENCH_NAME={self.name}: a name only; the folder is BENCH_OUTPUT")
        try:
            os.makedirs(self.output, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.output):
                pass
        except OSError as error:
            wrong(f"BENCH_OUTPUT={self.output}: {error.strerror}")

    def portion(self, count):
        """`count` at the default BENCH_SIZE or above it, fewer below it."""
        return max(1, min(count, count * self.size >> 31))

    def scaled(self, count):
        """`count` bytes at the default BENCH_SECONDS, in whole MiB."""
        mib = 1 << 20
        return max(mib, int(count * self.seconds / 2.0) // mib * mib)


def first_line(*command):
    """The first line that a program prints, or "not installed"."""
    if not shutil.which(command[0]):
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[0]


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def file_system(directory):
    done = subprocess.run(["df", "--output=fstype", directory], capture_output=True, text=True,
                          check=False)
    return done.stdout.split("\n")[-2].strip() if done.returncode == 0 else "unknown"


def machine(directory):
    """What the numbers depend on. No host name, no paths."""
    with open("/proc/meminfo", encoding="utf-8") as lines:
        memory = int(lines.readline().split()[1]) // (1 << 20)
    return {
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu_model(),
        "memory": f"{memory} GiB",
        "kernel": platform.release(),
        "file system": file_system(directory),
        "load before": round(os.getloadavg()[0], 1),
        "nbdkit": first_line("nbdkit", "--version"),
        "qemu": first_line("qemu-nbd", "--version"),
        "fio": first_line("fio", "--version"),
        "libnbd": first_line("nbdcopy", "--version"),
    }
