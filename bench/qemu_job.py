# SPDX-License-Identifier: LGPL-2.1-or-later
"""The peer of a fill: qemu-storage-daemon with an overlay of qcow2 that is served,
and a block-stream job that fills it from its backing file. QEMU keeps how far the
job is in memory only; the overlay stays a qcow2."""

import contextlib
import json
import os
import socket
import subprocess
import time

from servers import Failed, run, stop


class Monitor:
    """A connection to QEMU's monitor (QMP)."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.events = []
        self.lines.readline()  # the greeting
        self.execute("qmp_capabilities")

    def read(self):
        line = self.lines.readline()
        if not line:
            raise Failed("qemu-storage-daemon: its monitor is closed")
        return json.loads(line)

    def execute(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command,
                                        "arguments": arguments}).encode() + b"\n")
        while True:
            answer = self.read()
            if "error" in answer:
                raise Failed(f"qemu-storage-daemon: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def wait_for(self, event):
        while True:
            for known in self.events:
                if known.get("event") == event:
                    return known["data"]
            self.events = [self.read()]

    def close(self):
        self.lines.close()
        self.socket.close()


@contextlib.contextmanager
def serving(folder, base):
    """An overlay on `base`, a file's name or an NBD URI, on the socket of the folder,
    for the length of a "with" statement. Gives the URI and a Monitor."""
    overlay, log = f"{folder}/x.qcow2", f"{folder}/qemu.log"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay])
    with open(log, "w+", encoding="utf-8", errors="replace") as words:
        process = subprocess.Popen(
            ["qemu-storage-daemon",
             "--blockdev", f"driver=file,node-name=file,filename={overlay}",
             "--blockdev", "driver=qcow2,node-name=disk,file=file,discard=unmap",
             "--nbd-server", f"addr.type=unix,addr.path={folder}/qemu.sock",
             "--export", "type=nbd,id=disk,node-name=disk,name=,writable=on",
             "--chardev", f"socket,id=monitor,path={folder}/qemu.qmp,server=on,wait=off",
             "--monitor", "chardev=monitor", "--pidfile", f"{folder}/qemu.pid"],
            stdout=words, stderr=words, stdin=subprocess.DEVNULL)
        try:
            limit = time.monotonic() + 60
            while not os.path.exists(f"{folder}/qemu.pid"):
                if process.poll() is not None or time.monotonic() > limit:
                    words.seek(0)
                    raise Failed(f"no qemu-storage-daemon: {words.read().strip()}")
                time.sleep(0.01)
            monitor = Monitor(f"{folder}/qemu.qmp")
            try:
                yield f"nbd+unix:///?socket={folder}/qemu.sock", monitor
            finally:
                monitor.close()
        finally:
            stop(process)


def stream(monitor, speed=0):
    """Begins to fill; `speed` in bytes a second, 0: any."""
    monitor.execute("block-stream", **{"job-id": "fill", "device": "disk", "speed": speed})


def wait_until_filled(monitor):
    data = monitor.wait_for("BLOCK_JOB_COMPLETED")
    if "error" in data:
        raise Failed(f"block-stream: {data['error']}")


def is_filling(monitor):
    return any(job["device"] == "fill" for job in monitor.execute("query-block-jobs"))
