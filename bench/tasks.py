# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tasks that are not requests of fio, of the groups "tools" and "live": which there
are, and their rounds.

A task makes its files once, in a folder of its own, and gives a list of
(program, function that measures it); the functions are called round by round."""

import os
import shutil

import layers
import live
from servers import Failed
from small_writes import FlushBesideFua, Status, Storage
from task_files import Skip
from tools import (Flatten, Map, MapHuge, NbdCopy, Open4kEmpty, Open4kFull, OpenEmpty, OpenFull,
                   QemuConvert, ResidentEmpty, ResidentFull)

TASKS = {"nbdcopy": NbdCopy, "convert": QemuConvert, "open-empty": OpenEmpty,
         "open-full": OpenFull,
         "open-4k-empty": Open4kEmpty, "open-4k-full": Open4kFull,
         "resident-empty": ResidentEmpty, "resident-full": ResidentFull, "map": Map,
         "map-huge": MapHuge, "flatten": Flatten, "storage": Storage, "status": Status,
         "flush": FlushBesideFua, **layers.TASKS}


GROUPS = {"tools": TASKS, "live": live.TASKS}


def run_task(name, settings, folder, result, say):
    task = GROUPS[settings.group][name](settings, folder)
    try:
        programs = task.programs_to_time()
        for number in range(settings.rounds):
            start = number % max(1, len(programs))
            for program, function in programs[start:] + programs[:start]:
                try:
                    found = function()
                except Skip as reason:
                    skip(f"{name}, {program}", reason, result, say)
                    programs.remove((program, function))
                    continue
                for part, value in (found if isinstance(found, dict) else {"": found}).items():
                    result["samples"].append({"task": name, "program": program, "part": part,
                                              "round": number + 1, "value": round(value, 6)})
                    what = f"{program}, {part}" if part else program
                    say(f"round {number + 1}, {name}, {what}: {value:.3f} {task.unit}")
    finally:
        task.close()


def skip(name, reason, result, say):
    result["skipped"].append([name, str(reason)])
    say(f"SKIP: {name}: {reason}")


def run_group(settings, scratch, result, say):
    """All chosen tasks, one after the other; the rounds of one are interleaved."""
    result["size"], result["map size"] = settings.size, settings.map_size
    for name in settings.workloads:
        kind = GROUPS[settings.group][name]
        result["tasks"].append({"name": name, "title": kind.titled(settings), "unit": kind.unit,
                                "reference": kind.reference, "target": kind.target})
        folder = os.path.join(scratch, name)
        os.mkdir(folder)
        try:
            run_task(name, settings, folder, result, say)
        except Skip as reason:
            skip(name, reason, result, say)
        except (Failed, OSError) as error:
            result["failed"].append(f"{name}: {error}")
            say(f"FAILED: {name}: {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
