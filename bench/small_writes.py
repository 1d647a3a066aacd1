# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tasks of small writes: the storage that they take, and what many of them
that no flush has seen cost other requests. Each number is from a new overlay."""

import os
import shutil

import client
from servers import (CowFilter, Qcow2DataFile, Qcow2Subclusters, Qcow2Threads, RawSparse, builds)
from task_files import MIB, Files, Skip, Task, need, sparse


class SmallWrites(Task):
    """COUNT writes of 4 KiB at random to a disk of BENCH_SIZE, on a backing file of
    noise; fewer where BENCH_SIZE is smaller than by default."""

    count = 0
    command = ""
    backing_has_data = True

    def __init__(self, settings, folder):
        need("nbdkit")
        if client.missing():
            raise Skip(client.missing())
        self.settings, self.folder = settings, folder
        self.files = Files(folder)
        sparse(self.files.path, settings.size,
               range(0, settings.size, MIB) if self.backing_has_data else ())

    @classmethod
    def titled(cls, settings):
        return super().titled(settings).replace("COUNT", f"{settings.portion(cls.count):,}")

    def kinds(self):
        return [RawSparse, *builds(self.settings)]

    def send(self, uri):
        return client.call(self.command, uri, self.settings.portion(self.count),
                           self.settings.size)

    def measured(self, server, own):
        with server.serve(own, throw_away=True) as uri:
            return self.send(uri)

    def once(self, server):
        if server.missing():
            raise Skip(server.missing())
        own = os.path.join(self.folder, "overlay")
        os.mkdir(own)
        try:
            server.make(own)
            return self.measured(server, own)
        finally:
            shutil.rmtree(own)

    def programs_to_time(self):
        servers = [kind(self.settings, self.files) for kind in self.kinds()]
        return [(server.title, lambda server=server: self.once(server)) for server in servers]


class Storage(SmallWrites):
    """After a flush and the server's clean stop."""

    title = "storage after COUNT random writes of 4k, first touch"
    unit, reference, target = "times the bytes written", "raw, sparse", "1.1 times the bytes"
    count, command = 10000, "scatter"

    def kinds(self):
        return [*super().kinds(), CowFilter, Qcow2Threads, Qcow2Subclusters, Qcow2DataFile]

    def measured(self, server, own):
        with server.serve(own) as uri:
            written = self.send(uri)["bytes"]
            stored = server.stored(own)
        if server.keeps:
            server.settle(own)
            stored = server.stored(own)
        return stored / written


class Status(SmallWrites):
    """The backing file is empty: what was written are the extents."""

    title = "block status, one extent a call, after COUNT random writes of 4k"
    unit, reference, target = "ms", "after it", "1.00 at most"
    count, command = 65000, "status"
    backing_has_data = False


class FlushBesideFua(SmallWrites):
    """Of addcow only: where a FUA write is a sync of all that was written, as in
    nbdkit's file plugin and QEMU, the first of them leaves nothing to the flush."""

    title = "flush of COUNT random writes of 4k, first touch"
    unit, reference, target = "ms", "alone", "1.20 at most"
    count, command = 3000, "flush"

    def kinds(self):
        return builds(self.settings)
