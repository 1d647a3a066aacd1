#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The benchmark works: its arithmetic, on samples made up here, and a run with
# very little in it. No time that is measured here can fail the test.

. "$(dirname "$0")/../functions.sh"
requires python3

PYTHONPATH="$srcdir/bench"
PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH PYTHONDONTWRITEBYTECODE

# The median of the rounds' ratios, which is not the ratio of the medians: in
# round 2 the whole machine was slow. The cow filter was not there in round 3,
# and the second workload had no raw limit.
cat >result.json <<'END_OF_JSON'
{"group": "fio", "rounds": 3, "command": "make bench", "note": "", "skipped": [["qcow2", "gone"]],
 "failed": [], "tasks": [],
 "machine": {"date": "2000-01-02", "cores": 2, "cpu": "abacus", "memory": "1 GiB", "kernel": "6",
  "file system": "ext4", "load before": 0.1, "nbdkit": "nbdkit 1", "qemu": "qemu 2", "fio": "fio 3",
  "libnbd": "libnbd 4"},
 "servers": [{"name": "raw", "title": "raw limit", "durable": true},
  {"name": "addcow", "title": "addcow", "durable": true},
  {"name": "cow", "title": "cow filter", "durable": false}],
 "workloads": [{"name": "w", "title": "write, flushed", "flushed": true, "target": "0.80"},
  {"name": "r", "title": "read", "flushed": false, "target": "0.95"}],
 "samples": [
  {"workload": "w", "server": "raw", "round": 1, "bytes": 1000000000, "seconds": 1.0},
  {"workload": "w", "server": "raw", "round": 2, "bytes": 1000000000, "seconds": 10.0},
  {"workload": "w", "server": "raw", "round": 3, "bytes": 1000000000, "seconds": 2.0},
  {"workload": "w", "server": "addcow", "round": 1, "bytes": 1000000000, "seconds": 4.0},
  {"workload": "w", "server": "addcow", "round": 2, "bytes": 1000000000, "seconds": 20.0},
  {"workload": "w", "server": "addcow", "round": 3, "bytes": 1000000000, "seconds": 2.5},
  {"workload": "w", "server": "cow", "round": 1, "bytes": 1000000000, "seconds": 2.0},
  {"workload": "w", "server": "cow", "round": 2, "bytes": 1000000000, "seconds": 5.0},
  {"workload": "r", "server": "addcow", "round": 1, "bytes": 2000000, "seconds": 0.5}]}
END_OF_JSON
cat >want <<'END_OF_TABLE'
| workload | raw limit, MB/s | addcow | cow filter | target for addcow |
|---|---|---|---|---|
| write, flushed | 500 | 0.50 (250) | 1.25 (350) \* | 0.80 |
| read | – | ? (4) | – | 0.95 |
END_OF_TABLE
python3 - <<'END_OF_PYTHON'
import json, report, workloads
result = json.load(open("result.json"))
open("table", "w").write(report.table(result))
open("against", "w").write(report.against(result))
open("plot", "w").write(report.plot_data(result))
text = report.markdown(result)
assert "ignores flush" in text and "Skipped: qcow2: gone" in text and "abacus" in text, text

job = {"read": {"io_bytes": 0, "runtime": 0}, "write": {"io_bytes": 4096, "runtime": 250}}
assert workloads.sample(job, "write") == {"bytes": 4096, "seconds": 0.25}

# What a number is compared to is another program, another part of the same one, or nothing.
tasks = [{"name": name, "title": title, "unit": unit, "reference": reference, "target": "1.00"}
         for name, title, unit, reference in (("t", "task", "s", "cp"), ("p", "parts", "ms", "alone"),
                                              ("n", "nothing", "s", None))]
times = {("t", "cp", ""): (1.0, 8.0, 2.0), ("t", "addcow", ""): (3.0, 4.0, 1.0),
         ("p", "raw", "alone"): (1, 1, 1), ("p", "raw", "beside"): (2, 2, 2),
         ("p", "addcow", "alone"): (2, 4, 6), ("p", "addcow", "beside"): (6, 4, 3), ("n", "addcow", ""): (5,)}
open("tasks", "w").write(report.tasks_table({"tasks": tasks, "samples": [
    {"task": name, "program": program, "part": part, "round": number, "value": value}
    for (name, program, part), values in times.items() for number, value in enumerate(values)]}))

# A base from both sides; one that was never measured through addcow.
mbps = {("s", "straight"): (100, 10, 200), ("s", "through addcow"): (50, 10, 150), ("t", "straight"): (7,)}
open("bases", "w").write(report.bases_table({
    "bases": [{"name": "s", "title": "socket"}, {"name": "t", "title": "TCP"}],
    "readings": [{"name": "r", "title": "read", "target": "0.90"}], "samples": [
    {"base": base, "reading": "r", "side": side, "round": number, "bytes": value * 1000000, "seconds": 1.0}
    for (base, side), values in mbps.items() for number, value in enumerate(values)]}))
END_OF_PYTHON
diff -u want table
cat >want <<'END_OF_TABLE'
| addcow's speed, times that of | cow filter |
|---|---|
| write, flushed | 0.38 |
| read | – |
END_OF_TABLE
diff -u want against
cat >want <<'END_OF_TABLE'
| task | program | measured | times the reference | target for addcow |
|---|---|---|---|---|
| task | cp | 2.000 s | reference |  |
| task | addcow | 3.000 s | 0.50 | 1.00 |
| parts | raw, alone | 1.000 ms | reference |  |
| parts | raw, beside | 2.000 ms | 2.00 |  |
| parts | addcow, alone | 4.000 ms | reference |  |
| parts | addcow, beside | 4.000 ms | 1.00 | 1.00 |
| nothing | addcow | 5.000 s | – | 1.00 |
END_OF_TABLE
diff -u want tasks
cat >want <<'END_OF_TABLE'
| base | reading | straight, MB/s | through addcow, MB/s | ratio | target | through nbdkit nbd, MB/s | ratio |
|---|---|---|---|---|---|---|---|
| socket | read | 100 | 50 | 0.75 | 0.90 | – | – |
| TCP | read | 7 | – | – | 0.90 | – | – |
END_OF_TABLE
diff -u want bases
printf 'workload\t"addcow"\t"cow filter"\n"write,\\nflushed"\t0.5000\t1.2500\n"read"\t?\t?\n' >want
diff -u want plot

# The short table and the short plot have the workloads that README.md shows. What it
# shows is what the run had that docs/performance.md is about.
python3 - "$srcdir" <<'END_OF_PYTHON'
import json, os, re, shutil, sys, report
result = json.load(open("result.json"))
assert report.short(result) is None and report.short_table(result) == ""
result["workloads"][0]["name"] = "randwrite-4k-flush"
for sample in result["samples"]:
    sample["workload"] = sample["workload"].replace("w", "randwrite-4k-flush")
assert report.short_table(result) == (
    "| workload | MB/s | addcow | cow |\n|---|---|---|---|\n"
    "| random write 4k, first touch, flushed | 500 | 0.50 | 1.25 \\* |\n"), report.short_table(result)
top = sys.argv[1]
readme = open(os.path.join(top, "README.md")).read()
names = set(re.findall(r"bench/results/([0-9-]+)-short[.]png", readme))
assert len(names) == 1, names
kept = json.load(open(os.path.join(top, "bench/results", names.pop() + ".json")))
assert len(report.short(kept)["workloads"]) == 5
assert report.short_table(kept) in readme, "README.md has not this table:\n" + report.short_table(kept)
pages = open(os.path.join(top, "docs/performance.md")).read()
for line in report.table(kept).splitlines()[2:]: # without the column of targets
    assert line.rsplit("|", 2)[0] in pages, "docs/performance.md has not this row: " + line
if shutil.which("gnuplot"):
    # No bar is cut off: the axis goes up to the highest one.
    for sample in result["samples"]:
        if sample["server"] == "cow": sample["seconds"] /= 40
    assert report.plot(result, "high") is None
    for name in ("high.svg", "high-short.svg"):
        labels = [float(each) for each in re.findall(r"<tspan[^>]*> ?([0-9.]+)</tspan>", open(name).read())]
        assert max(labels) >= 50, (name, labels)
END_OF_PYTHON

requires fio
fio --enghelp 2>/dev/null | has -w nbd || skip "the arithmetic is right, but fio has no nbd engine"
python3 -c 'import nbd' || skip "the arithmetic is right, but python3-libnbd is not installed"

# The final flush is in the time that fio counts, and only where it should be.
nbdkit -U - eval get_size='echo 1M' pwrite='cat >/dev/null' flush='sleep 0.2' \
    can_write='exit 0' can_flush='exit 0' \
    --run 'python3 - "$uri"' <<'END_OF_PYTHON'
import sys, workloads
def seconds(*more):
    arguments = ["--rw=write", "--bs=64k", "--size=1M", *more]
    return workloads.sample(workloads.fio(sys.argv[1], ".", arguments), "write")["seconds"]
assert seconds("--end_fsync=1") >= 0.2
# Five flushes of a fifth of a second each, two of them at least before the last write.
assert seconds("--fsync=3") >= 0.4
END_OF_PYTHON

# Every even block of 4 KiB is written, each once, and not in order.
nbdkit -U - --filter=log memory 4M logfile=written.log --run 'python3 - "$uri"' <<'END_OF_PYTHON'
import sys, client
assert client.call("alternate", sys.argv[1], 1 << 20) == {"blocks": 128}
END_OF_PYTHON
sed -n 's/.* Write .*offset=0x\([0-9a-f]*\) count=0x1000 .*/\1/p' written.log >places
for ((place = 0; place < 1 << 20; place += 8192)); do printf '%x\n' "$place"; done >want
diff -u <(sort want) <(sort places)
! cmp -s want places || fail "not at random"

mkdir data
small=(env ADDCOW_RUN="$ADDCOW_RUN" BENCH_DIR="$PWD/data" BENCH_OUTPUT="$PWD/out" BENCH_SIZE=16M
    BENCH_MAP_SIZE=16M BENCH_SECONDS=0.02)
bench=(python3 "$srcdir/bench/bench.py")
# What makes no sense is refused before anything is measured.
for setting in BENCH_ROUNDS=0 BENCH_SIZE=7x BENCH_SERVERS=addcow BENCH_WORKLOADS=nothing BENCH_DIR="$PWD/none" \
    BENCH_NAME=a/b BENCH_OUTPUT="$PWD/log/x" BENCH_OTHER="$PWD/data" BENCH_SERVERS='raw addcow-other' BENCH_BASES=none BENCH_GROUP=none; do
    status=0
    "${small[@]}" "$setting" timeout 60 "${bench[@]}" >table 2>log || status=$?
    expect_equal 2 "$status" "exit status with $setting"
    expect_equal 1 "$(wc -l <log)" "lines of the error with $setting"
done

# A run with nothing in it to speak of, each kind of workload once. The other build is this one.
mkdir other
ln -s "$(realpath "$ADDCOW_RUN")" other/run
"${small[@]}" BENCH_ROUNDS=2 BENCH_OTHER="$PWD/other" BENCH_SERVERS='raw addcow addcow-other' \
    BENCH_WORKLOADS='randread-4k randwrite-4k-fsync write-4k-flush randwrite-4k-allocated read-1M-alternating' \
    "${bench[@]}" >table 2>log || { cat log >&2; fail "a small run"; }
expect_equal 5 "$(grep -c '^| [rs].*| [0-9]* | [0-9.]* ([0-9]*) | ' table)" "rows with numbers"
has "times that of | addcow, other build |" <table || fail "nothing beside the other build"
cmp table <(cat out/latest.md; echo) || fail "what was printed is not what was written"
python3 - <<'END_OF_PYTHON'
import json
result = json.load(open("out/latest.json"))
assert len(result["samples"]) == 5 * 2 * 3, result
assert all(sample["bytes"] > 0 and sample["seconds"] > 0 for sample in result["samples"])
# First touch is the same work for everybody.
assert len({s["bytes"] for s in result["samples"] if s["workload"] == "write-4k-flush"}) == 1
assert not result["failed"], result["failed"]
END_OF_PYTHON
if command -v gnuplot >/dev/null; then
    for picture in latest.png latest.svg latest-short.png latest-short.svg; do
        [ -s "out/$picture" ] || fail "no $picture"
    done
else
    has 'Skipped: plot: gnuplot is not installed' <table || fail "a plot that is missing has no name"
fi
expect_equal "" "$(ls -A data)" "files left behind"

"${small[@]}" BENCH_ROUNDS=1 BENCH_OTHER="$PWD/other" BENCH_GROUP=tools \
    BENCH_WORKLOADS='map flatten storage status flush open-empty resident-empty map-huge commit compare rebase' \
    "${bench[@]}" >table 2>log || { cat log >&2; fail "a small run of tools"; }
# These three, and those that there is a file system for.
expect_equal 3 "$(grep -cE '^\| (nbdinfo|flatten|storage) .* \| addcow \| [0-9.]+ [a-z ]+ \| [0-9.]+ \| ' table)" \
    "tasks with numbers"
for part in 'before a flush' 'beside FUA writes'; do
    grep -qE "^\| .* \| addcow, $part \| [0-9.]+ ms \| [0-9.]+ \| 1" table || fail "no row $part: $(cat table)"
done
for name in open-empty resident-empty map-huge; do
    has "^Skipped: $name: no file system" <table || has "round 1, $name, addcow, other build: " <log ||
        fail "no $name: $(cat log)"
done
for name in commit compare rebase; do
    has "^| $name .* | addcow | [0-9.]* s | [0-9.]* | " <table || fail "no $name: $(cat table)"
done
# What is stored is at least what was written, and what a raw file takes is no more.
python3 - <<'END_OF_PYTHON'
import json
result = json.load(open("out/latest-tools.json"))
stored = {s["program"]: s["value"] for s in result["samples"] if s["task"] == "storage"}
assert all(value >= 1 for value in stored.values()) and stored["raw, sparse"] < 2, stored
END_OF_PYTHON

# Bases from both sides; what cannot be had here is named.
"${small[@]}" BENCH_ROUNDS=2 BENCH_GROUP=bases "${bench[@]}" >table 2>log ||
    { cat log >&2; fail "a small run of bases"; }
for base in file:2 file-tcp:2 file-tcp-2.5g:1 file-tcp-1ms:1 add-cow:2 qcow2:2 vdi:1; do
    case $base in qcow2:* | vdi:*) command -v qemu-nbd >/dev/null || continue ;; esac
    python3 - ${base/:/ } <<'END_OF_PYTHON'
import json, sys
result = json.load(open("out/latest-bases.json"))
found = [s for s in result["samples"] if s["base"] == sys.argv[1]]
assert len(found) == 2 * 3 * int(sys.argv[2]) and all(s["bytes"] > 0 and s["seconds"] > 0 for s in found), result
END_OF_PYTHON
done

# A fill by each program, clients beside it, and a start.
if command -v qemu-storage-daemon >/dev/null && ! built_with_sanitizer; then
    "${small[@]}" BENCH_SIZE=64M BENCH_ROUNDS=1 BENCH_GROUP=live BENCH_WORKLOADS='fill-local fill-nbd start' \
        "${bench[@]}" >table 2>log || { cat log >&2; fail "a small run of live"; }
    for row in 'local raw file, no clients | addcow' 'local raw file, no clients | qemu-storage-daemon' \
        '2 ms a read | addcow' '2 ms a read | nbdcopy' 'addcow, 20 ms a read'; do
        has "$row" <table || fail "no row $row: $(cat table)"
    done
fi

# Interrupted, it stops its server and removes its files.
"${small[@]}" BENCH_SECONDS=60 BENCH_SERVERS=raw BENCH_WORKLOADS=randread-4k "${bench[@]}" \
    >table 2>log &
bench_pid=$!
at_exit "kill $bench_pid 2>/dev/null; wait $bench_pid 2>/dev/null"
measuring() { has 'measures' <log && [ -s "$(echo data/*/overlay/pid)" ]; }
wait_until "$bench_pid" measuring || fail "nothing is measured: $(cat log)"
served_pid="$(cat data/*/overlay/pid)"
kill "$bench_pid"
ends_with 143 "$bench_pid" "a run that is interrupted"
wait_until '' is_gone "$served_pid" || fail "the server goes on: $(ps -o pid,ppid,stat,args -p "$served_pid")"
expect_equal "" "$(ls -A data)" "files left behind when interrupted"
