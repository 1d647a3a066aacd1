#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The same operations on an add-cow image and on a qcow2 overlay, each over its own copies of the same
# bases: writes, zeroes, commit, rebase with and without data and to no base, resize, compare. The
# same exit status and the same disk after each, in MATRIX_SEQUENCES random sequences (30).
# ADDCOW_SEED repeats a run.

. "$(dirname "$0")/../functions.sh"
requires python3 qemu-img qemu-io qemu-nbd

MATRIX_SEQUENCES="${MATRIX_SEQUENCES:-30}" python3 - "$ADDCOW_RUN" <<'END_OF_PYTHON'
import collections
import os
import random
import shutil
import subprocess
import sys

RUN = sys.argv[1]
SEED = int(os.environ.get("ADDCOW_SEED", random.randrange(1 << 32)))
print("seed:", SEED, flush=True)
MIB = 1 << 20
CLUSTER = 64 << 10  # of qcow2
done = collections.Counter()


class Failed(Exception):
    pass


def run(*words):
    """Exit status; what it says goes to the log of the sequence."""
    ended = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    log.append(f"{' '.join(words)}\n  -> {ended.returncode} {ended.stdout.decode(errors='replace').strip()}")
    return ended.returncode


def must(*words):
    if run(*words) != 0:
        raise Failed("failed: " + " ".join(words))


class Pair:
    """An image of each kind. Sizes are whole sectors, as qcow2 has them."""

    def __init__(self, chance):
        self.chance = chance
        self.size = 512 * chance.randrange(1, 3 * MIB // 512)
        self.bases = 0
        self.base = None
        first = self.make_base(512 * chance.randrange(1, 3 * MIB // 512))
        options = chance.choice([[], [], ["--revision=20", "--cluster-size=4k"],
                                 ["--revision=20", "--cluster-size=256k"],
                                 ["--subclusters=off"]])
        must(RUN, "addcow", "create", "-q", "-b", first + ".ours", "-F", "raw", "-i", "x.raw", "-s",
             str(self.size), *options, "x.add-cow")
        must("qemu-img", "create", "-q", "-f", "qcow2", "-b", first + ".theirs", "-F", "raw", "x.qcow2",
             str(self.size))
        self.base = first

    def make_base(self, size):
        """Two equal files; some of the last base's bytes, if there is one."""
        self.bases += 1
        name = f"base{self.bases}"
        if self.base and self.chance.random() < 0.6:
            shutil.copy(self.base + ".ours", name + ".ours")
        with open(name + ".ours", "ab"):
            pass
        with open(name + ".ours", "r+b") as file:
            file.truncate(size)
            for _ in range(self.chance.randrange(5)):
                at = self.chance.randrange(size)
                file.seek(at)
                file.write(self.chance.randbytes(self.chance.randrange(1, 200000))[:size - at])
        shutil.copy(name + ".ours", name + ".theirs")
        return name

    def io(self, *commands):
        words = [word for command in commands for word in ("-c", command)]
        must("qemu-io", "-f", "qcow2", *words, "x.qcow2")
        quoted = " ".join(f"'{word}'" for word in words)
        must(RUN, "nbdkit", "-U", "-", "addcow", "x.add-cow", "--run", f"qemu-io -f raw {quoted} $uri")

    def range(self):
        unit = self.chance.choice([1, 1, 512, 4096, 65536])
        offset = self.chance.randrange(self.size) // unit * unit
        length = min(self.chance.randrange(1, 4 if unit > 512 else 70000) * unit, self.size - offset)
        return offset, length

    def both(self, ours, theirs):
        statuses = run(RUN, "addcow", *ours), run("qemu-img", *theirs)
        if statuses[0] != statuses[1]:
            raise Failed(f"exit status {statuses[0]} and {statuses[1]} of qemu-img")
        return statuses[0]

    def compare_disks(self):
        must(RUN, "addcow", "compare", "-q", "x.add-cow", "-F", "qcow2", "x.qcow2")
        if run(RUN, "addcow", "check", "-q", "x.add-cow") not in (0, 3):
            raise Failed("not sound")
        shown = subprocess.run([RUN, "addcow", "info", "--output=json", "x.add-cow"],
                               capture_output=True, text=True, check=True).stdout
        if f'"virtual-size": {self.size},' not in shown:
            raise Failed(f"the size is not {self.size}: {shown}")

    # The operations.

    def write(self):
        commands = []
        for _ in range(self.chance.randrange(1, 4)):
            offset, length = self.range()
            commands.append(f"write -P {self.chance.randrange(1, 256)} {offset} {length}")
        self.io(*commands)

    def zero(self):
        offset, length = self.range()
        self.io(f"write -z {self.chance.choice(['', '-u '])}{offset} {length}")

    def commit(self):
        self.both(["commit", "-q", "x.add-cow"], ["commit", "-q", "-f", "qcow2", "x.qcow2"])
        if self.base:
            must(RUN, "addcow", "compare", "-q", self.base + ".ours", self.base + ".theirs")

    def rebase(self):
        name = self.make_base(512 * self.chance.randrange(1, 4 * MIB // 512))
        self.both(["rebase", "-q", "-b", name + ".ours", "-F", "raw", "x.add-cow"],
                  ["rebase", "-q", "-f", "qcow2", "-b", name + ".theirs", "-F", "raw", "x.qcow2"])
        self.base = name

    def rebase_names(self):
        if not self.base:
            return
        name = f"moved{self.bases}"
        self.bases += 1
        for kind in (".ours", ".theirs"):
            shutil.copy(self.base + kind, name + kind)
        self.both(["rebase", "-q", "-u", "-b", name + ".ours", "-F", "raw", "x.add-cow"],
                  ["rebase", "-q", "-u", "-f", "qcow2", "-b", name + ".theirs", "-F", "raw",
                   "x.qcow2"])
        self.base = name

    def rebase_to_nothing(self):
        self.both(["rebase", "-q", "-b", "", "x.add-cow"],
                  ["rebase", "-q", "-f", "qcow2", "-b", "", "x.qcow2"])
        self.base = None

    def resize(self):
        size = 512 * self.chance.randrange(1, 4 * MIB // 512)
        shrink = ["--shrink"] if self.chance.random() < 0.7 else []
        if self.both(["resize", "-q", *shrink, "x.add-cow", str(size)],
                     ["resize", "-q", "-f", "qcow2", *shrink, "x.qcow2", str(size)]) == 0:
            # qemu-img 7.2 copies whole clusters in a rebase, of a base that is longer than the disk
            # also what lies past its end, and shows that when the disk grows. New bytes are zeroes.
            end = min(size, -(-self.size // CLUSTER) * CLUSTER)
            if end > self.size:
                must("qemu-io", "-f", "qcow2", "-c", f"write -z {self.size} {end - self.size}", "x.qcow2")
            self.size = size

    def compare(self):
        with open("other.img", "wb") as file:
            file.truncate(self.size)
        if self.chance.random() < 0.5:
            must("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "x.qcow2", "other.img")
        self.both(["compare", "-q", "x.add-cow", "other.img"],
                  ["compare", "-q", "-f", "qcow2", "-F", "raw", "x.qcow2", "other.img"])


OPERATIONS = ["write"] * 4 + ["zero"] * 2 + ["commit"] * 2 + ["rebase"] * 2 + [
    "rebase_names", "rebase_to_nothing", "resize", "resize", "compare"]
for number in range(int(os.environ["MATRIX_SEQUENCES"])):
    log = []
    chance = random.Random(SEED * 1000003 + number)
    folder = f"sequence{number}"
    os.mkdir(folder)
    os.chdir(folder)
    try:
        pair = Pair(chance)
        for _ in range(chance.randrange(3, 9)):
            operation = chance.choice(OPERATIONS)
            log.append(f"== {operation}")
            getattr(pair, operation)()
            done[operation] += 1
            pair.compare_disks()
    except Failed as failed:
        print("\n".join(log))
        sys.exit(f"FAIL: sequence {number} of seed {SEED}: {failed}")
    os.chdir("..")
    shutil.rmtree(folder)
print(", ".join(f"{count} {name}" for name, count in sorted(done.items())))
END_OF_PYTHON
