# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tasks that are not requests of fio: which there are, and their rounds.

A task makes its files once, in a folder of its own, and gives a list of
(program, timed function); the functions are called round by round."""

import os
import shutil

from servers import Failed
from task_files import Skip
from tools import Flatten, Map, NbdCopy, OpenEmpty, OpenFull, QemuConvert

TASKS = {"nbdcopy": NbdCopy, "convert": QemuConvert, "open-empty": OpenEmpty,
         "open-full": OpenFull, "map": Map, "flatten": Flatten}


def run_task(name, settings, folder, result, say):
    task = None
    try:
        task = TASKS[name](settings, folder)
        programs = task.programs_to_time()
        for number in range(settings.rounds):
            start = number % len(programs)
            for program, function in programs[start:] + programs[:start]:
                seconds = function()
                result["samples"].append({"task": name, "program": program, "round": number + 1,
                                          "seconds": round(seconds, 6)})
                say(f"round {number + 1}, {name}, {program}: {seconds:.3f} s")
    finally:
        if hasattr(task, "close"):
            task.close()


def run_group(settings, scratch, result, say):
    """All chosen tasks, one after the other; the rounds of one are interleaved."""
    result["size"], result["map size"] = settings.size, settings.map_size
    for name in settings.workloads:
        kind = TASKS[name]
        title = kind.title.replace("BENCH_SIZE / 2", f"{settings.size // 2 >> 20} MiB")
        title = title.replace("BENCH_SIZE", f"{settings.size >> 20} MiB")
        title = title.replace("BENCH_MAP_SIZE", f"{settings.map_size >> 20} MiB")
        result["tasks"].append({"name": name, "title": title, "reference": kind.reference,
                                "target": kind.target})
        folder = os.path.join(scratch, name)
        os.mkdir(folder)
        try:
            run_task(name, settings, folder, result, say)
        except Skip as reason:
            result["skipped"].append([name, str(reason)])
            say(f"SKIP: {name}: {reason}")
        except (Failed, OSError) as error:
            result["failed"].append(f"{name}: {error}")
            say(f"FAILED: {name}: {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
