# SPDX-License-Identifier: LGPL-2.1-or-later
"""From samples to the table, the JSON and the plot. Does no measuring, so that
a test can give it samples of its own.

A ratio is taken within one round, against the raw limit measured in the same
round; what is shown is the median of the rounds' ratios, not the ratio of
medians: what slows the machine for a while slows both sides of a ratio."""

import json
import os
import shutil
import statistics
import subprocess

TOP = os.path.dirname(os.path.abspath(__file__))


def speed(sample):
    """MB/s: millions of bytes."""
    return sample["bytes"] / sample["seconds"] / 1e6


def medians(samples):
    """{workload: {server: {"mbps": median, "ratio": median or None, "rounds": n}}}"""
    by_round = {}
    for sample in samples:
        key = (sample["workload"], sample["server"])
        by_round.setdefault(key, {})[sample["round"]] = speed(sample)
    result = {}
    for (workload, server), rounds in by_round.items():
        raw = by_round.get((workload, "raw"), {})
        ratios = [value / raw[number] for number, value in rounds.items() if number in raw]
        result.setdefault(workload, {})[server] = {
            "mbps": statistics.median(rounds.values()),
            "ratio": statistics.median(ratios) if ratios else None,
            "rounds": len(rounds),
        }
    return result


def cell(server, value, star):
    if value is None:
        return "–"
    if server == "raw":
        return f"{value['mbps']:.0f}"
    ratio = "?" if value["ratio"] is None else f"{value['ratio']:.2f}"
    return f"{ratio} ({value['mbps']:.0f}){star}"


def table(result):
    """The Markdown table of a "fio" run."""
    servers, workloads = result["servers"], result["workloads"]
    heads = ["workload"] + [f"{server['title']}, MB/s" if server["name"] == "raw"
                            else server["title"] for server in servers] + ["target for addcow"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    found = medians(result["samples"])
    for workload in workloads:
        row = found.get(workload["name"], {})
        cells = [cell(server["name"], row.get(server["name"]),
                      "" if server["durable"] or not workload["flushed"] else " \\*")
                 for server in servers]
        lines.append("| " + " | ".join([workload["title"], *cells, workload["target"]]) + " |")
    return "\n".join(lines) + "\n"


def tasks_table(result):
    """The Markdown table of a "tools" run: seconds, and times the reference's."""
    by_round = {}
    for sample in result["samples"]:
        by_round.setdefault((sample["task"], sample["program"]), {})[sample["round"]] = \
            sample["seconds"]
    lines = ["| task | program | seconds | times the reference | target for addcow |",
             "|---|---|---|---|---|"]
    for task in result["tasks"]:
        mine = [(program, rounds) for (name, program), rounds in by_round.items()
                if name == task["name"]]
        for program, rounds in mine:
            reference = by_round.get((task["name"], task["reference"]), {})
            ratios = [value / reference[number] for number, value in rounds.items()
                      if reference.get(number)]
            ratio = "reference" if program == task["reference"] else \
                f"{statistics.median(ratios):.2f}" if ratios else "–"
            target = task["target"] if program == "addcow" else ""
            lines.append(f"| {task['title']} | {program} | "
                         f"{statistics.median(rounds.values()):.3f} | {ratio} | {target} |")
    return "\n".join(lines) + "\n"


def machine_lines(result):
    machine = result["machine"]
    lines = [f"{machine['date']}, {machine['cores']} cores of {machine['cpu']}, "
             f"{machine['memory']} of memory, Linux {machine['kernel']}, "
             f"{machine['file system']}; {machine['nbdkit']}, {machine['qemu']}, "
             f"{machine['fio']}, {machine['libnbd']}. "
             f"Load average before the run: {machine['load before']}."]
    if result["note"]:
        lines += ["", result["note"]]
    lines += ["", f"Command: `{result['command']}`"]
    for name, reason in result["skipped"]:
        lines += ["", f"Skipped: {name}: {reason}"]
    for name in result["failed"]:
        lines += ["", f"FAILED: {name}"]
    return "\n".join(lines) + "\n"


def markdown(result):
    if result["group"] == "tools":
        words = "Medians of interleaved rounds; below 1 is faster than the reference.\n"
        return tasks_table(result) + "\n" + words + "\n" + machine_lines(result)
    words = ("Ratio to the raw limit of the same round, median of the rounds, in brackets MB/s "
             f"(millions of bytes), median; {result['rounds']} interleaved rounds.\n")
    if any(not server["durable"] for server in result["servers"]) and \
            any(workload["flushed"] for workload in result["workloads"]):
        words += "\\* This server ignores flush, so what it wrote is not durable.\n"
    return table(result) + "\n" + words + "\n" + machine_lines(result)


def plot_data(result):
    """What ratios.gp reads: a row for each workload, a column for each server
    but the raw limit; ? where nothing was measured."""
    servers = [server for server in result["servers"] if server["name"] != "raw"]
    found = medians(result["samples"])
    lines = ["\t".join(["workload"] + [f'"{server["title"]}"' for server in servers])]
    for workload in result["workloads"]:
        row = found.get(workload["name"], {})
        values = [row.get(server["name"]) for server in servers]
        title = workload["title"].replace(", ", ",\\n", 1)
        lines.append("\t".join([f'"{title}"'] + [
            f"{value['ratio']:.4f}" if value and value["ratio"] is not None else "?"
            for value in values]))
    return "\n".join(lines) + "\n"


def plot(result, base):
    """base.png and base.svg; gives the reason where it cannot."""
    if result["group"] != "fio":
        return "only the fio group has a plot"
    if len(result["servers"]) < 2:
        return "nothing was compared"
    if not shutil.which("gnuplot"):
        return "gnuplot is not installed"
    data = base + ".plot-data"
    with open(data, "w", encoding="utf-8") as out:
        out.write(plot_data(result))
    try:
        for terminal, ending in (("pngcairo", "png"), ("svg", "svg")):
            done = subprocess.run(
                ["gnuplot", "-e", f"data='{data}'; picture='{base}.{ending}'; "
                 f"kind='{terminal}'; servers={len(result['servers']) - 1}",
                 os.path.join(TOP, "ratios.gp")], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return f"gnuplot: {done.stderr.strip().splitlines()[-1:]}"
    finally:
        os.unlink(data)
    return None


def write(result, directory, name):
    """Writes name.json, name.md and the plot; gives the Markdown."""
    base = os.path.join(directory, name)
    reason = plot(result, base)
    if reason:
        result["skipped"].append(["plot", reason])
    text = markdown(result)
    with open(base + ".json", "w", encoding="utf-8") as out:
        json.dump(result, out, indent=1)
        out.write("\n")
    with open(base + ".md", "w", encoding="utf-8") as out:
        out.write(text)
    return text
