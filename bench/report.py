# SPDX-License-Identifier: LGPL-2.1-or-later
"""From samples to the tables, the JSON and the plots. Does no measuring, so that
a test can give it samples of its own.

  report.py RESULT.json...   draws the plots of a run that is kept anew, beside it,
                             and prints the short table, which README.md has

A ratio is taken within one round, against the raw limit measured in the same
round; what is shown is the median of the rounds' ratios, not the ratio of
medians: what slows the machine for a while slows both sides of a ratio."""

import json
import os
import shutil
import statistics
import subprocess
import sys

TOP = os.path.dirname(os.path.abspath(__file__))

# What README.md shows: one row for each thing that a user does, the good and the
# bad, in words that leave room for all servers in less than a hundred columns.
SHORT = {
    "randread-4k": "random read 4k, unallocated",
    "randwrite-4k-first": "random write 4k, first touch",
    "randwrite-4k-flush": "random write 4k, first touch, flushed",
    "write-1M-first": "sequential write 1M, first touch",
    "randwrite-4k-allocated": "random write 4k, allocated",
}
SHORT_SERVERS = {
    "raw": "MB/s", "addcow": "addcow", "cow": "cow", "qcow2-threads": "qcow2",
    "qcow2-io_uring": "io_uring", "qcow2-subclusters": "subclusters",
    "qcow2-data_file": "data_file", "raw-sparse": "raw, sparse",
}


def speed(sample):
    """MB/s: millions of bytes."""
    return sample["bytes"] / sample["seconds"] / 1e6


def medians(samples, reference="raw"):
    """{workload: {server: {"mbps": median, "ratio": median or None, "rounds": n}}}"""
    by_round = {}
    for sample in samples:
        key = (sample["workload"], sample["server"])
        by_round.setdefault(key, {})[sample["round"]] = speed(sample)
    result = {}
    for (workload, server), rounds in by_round.items():
        other = by_round.get((workload, reference), {})
        ratios = [value / other[number] for number, value in rounds.items() if number in other]
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


def against(result):
    """The Markdown table of addcow's speed as a ratio to each of the others; empty
    where there is nothing but the raw limit, which table() has."""
    others = [server for server in result["servers"] if server["name"] not in ("raw", "addcow")]
    if not others or all(sample["server"] != "addcow" for sample in result["samples"]):
        return ""
    found = [medians(result["samples"], server["name"]) for server in others]
    lines = ["| addcow's speed, times that of | " +
             " | ".join(server["title"] for server in others) + " |",
             "|---" * len(others) + "|---|"]
    for workload in result["workloads"]:
        ratios = [each.get(workload["name"], {}).get("addcow", {}).get("ratio") for each in found]
        lines.append(f"| {workload['title']} | " + " | ".join(
            "–" if ratio is None else f"{ratio:.2f}" for ratio in ratios) + " |")
    return "\n".join(lines) + "\n"


def short(result):
    """The same result with the workloads of SHORT only, in that order, and the servers
    of SHORT_SERVERS; None where it has none of these workloads."""
    have = {workload["name"]: workload for workload in result["workloads"]}
    workloads = [{**have[name], "title": title} for name, title in SHORT.items() if name in have]
    servers = [server for server in result["servers"] if server["name"] in SHORT_SERVERS]
    return {**result, "workloads": workloads, "servers": servers} if workloads else None


def short_table(result):
    """The Markdown table of README.md: ratios only."""
    chosen = short(result)
    if not chosen:
        return ""
    servers = chosen["servers"]
    heads = ["workload"] + [SHORT_SERVERS[server["name"]] for server in servers]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    found = medians(chosen["samples"])
    for workload in chosen["workloads"]:
        row = found.get(workload["name"], {})
        cells = [cell(server["name"], row.get(server["name"]), "").split(" ")[0] +
                 ("" if server["durable"] or not workload["flushed"] else " \\*")
                 for server in servers]
        lines.append("| " + " | ".join([workload["title"], *cells]) + " |")
    return "\n".join(lines) + "\n"


def tasks_table(result):
    """The Markdown table of a "tools" or "live" run: what was measured, and how many times the
    reference it is, which is another program or another part of the same one."""
    by_round = {}
    for sample in result["samples"]:
        key = (sample["task"], sample["program"], sample["part"])
        by_round.setdefault(key, {})[sample["round"]] = sample["value"]
    lines = ["| task | program | measured | times the reference | target for addcow |",
             "|---|---|---|---|---|"]
    for task in result["tasks"]:
        name, reference = task["name"], task["reference"]
        for (where, program, part), rounds in by_round.items():
            if where != name:
                continue
            is_reference = reference in (program, part)
            base = by_round.get((name, reference, "")) or \
                by_round.get((name, program, reference), {})
            ratios = [value / base[number] for number, value in rounds.items() if base.get(number)]
            ratio = "reference" if is_reference else \
                f"{statistics.median(ratios):.2f}" if ratios else "–"
            target = task["target"] if program == "addcow" and not is_reference else ""
            lines.append(f"| {task['title']} | {program}{', ' if part else ''}{part} | "
                         f"{statistics.median(rounds.values()):.3f} {task['unit']} | "
                         f"{ratio} | {target} |")
    return "\n".join(lines) + "\n"


def bases_table(result):
    """The Markdown table of a "bases" run: straight, through addcow, and through its peer."""
    by_round = {}
    for sample in result["samples"]:
        key = (sample["base"], sample["reading"], sample["side"])
        by_round.setdefault(key, {})[sample["round"]] = speed(sample)
    lines = ["| base | reading | straight, MB/s | through addcow, MB/s | ratio | target | "
             "through nbdkit nbd, MB/s | ratio |",
             "|---|---|---|---|---|---|---|---|"]
    for reading in result["readings"]:
        for base in result["bases"]:
            if not any(key[:2] == (base["name"], reading["name"]) for key in by_round):
                continue
            straight, through, peer = (
                by_round.get((base["name"], reading["name"], side), {})
                for side in ("straight", "through addcow", "through nbdkit nbd"))

            def rate(rounds):
                return f"{statistics.median(rounds.values()):.0f}" if rounds else "–"

            def ratio(rounds, straight=straight):
                ratios = [rounds[number] / straight[number] for number in rounds
                          if number in straight]
                return f"{statistics.median(ratios):.2f}" if ratios else "–"

            lines.append("| " + " | ".join([
                base["title"], reading["title"], rate(straight), rate(through), ratio(through),
                reading["target"], rate(peer), ratio(peer)]) + " |")
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
    if result["group"] in ("tools", "live"):
        words = "Medians of interleaved rounds; below 1 is less than the reference.\n"
        return tasks_table(result) + "\n" + words + "\n" + machine_lines(result)
    if result["group"] == "bases":
        words = ("Medians of interleaved rounds; the ratio is the median of the ratios within a "
                 "round. MB/s are millions of bytes.\n")
        return bases_table(result) + "\n" + words + "\n" + machine_lines(result)
    words = ("Ratios within the same round, median of the rounds, to the raw limit where nothing "
             "else is said; in brackets MB/s "
             f"(millions of bytes), median; {result['rounds']} interleaved rounds.\n")
    if any(not server["durable"] for server in result["servers"]) and \
            any(workload["flushed"] for workload in result["workloads"]):
        words += "\\* This server ignores flush, so what it wrote is not durable.\n"
    beside = against(result)
    return table(result) + "\n" + (beside + "\n" if beside else "") + words + "\n" + \
        machine_lines(result)


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
    """base.png and base.svg, and base-short.png and .svg of the workloads of SHORT;
    gives the reason where it cannot."""
    if result["group"] != "fio":
        return "only the fio group has a plot"
    if len(result["servers"]) < 2:
        return "nothing was compared"
    if not shutil.which("gnuplot"):
        return "gnuplot is not installed"
    chosen = short(result)
    return draw(result, base) or (draw(chosen, base + "-short") if chosen else None)


def draw(result, base):
    data = base + ".plot-data"
    with open(data, "w", encoding="utf-8") as out:
        out.write(plot_data(result))
    try:
        for terminal, ending in (("pngcairo", "png"), ("svg", "svg")):
            done = subprocess.run(
                ["gnuplot", "-e", f"data='{data}'; picture='{base}.{ending}'; "
                 f"kind='{terminal}'; servers={len(result['servers']) - 1}; "
                 f"workloads={len(result['workloads'])}",
                 os.path.join(TOP, "ratios.gp")], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return f"gnuplot: {done.stderr.strip().splitlines()[-1:]}"
    finally:
        os.unlink(data)
    return None


def write(result, directory, name):
    """Writes name.json, name.md and the plots; gives the Markdown."""
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


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return 0 if sys.argv[1:2] in (["-h"], ["--help"]) else 2
    for name in sys.argv[1:]:
        with open(name, encoding="utf-8") as source:
            result = json.load(source)
        reason = plot(result, name.removesuffix(".json"))
        if reason:
            print(f"{name}: no plot: {reason}", file=sys.stderr)
            return 1
        print(short_table(result), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
