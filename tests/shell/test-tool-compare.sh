#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# addcow compare: what it says of disks of any kind, beside qemu-img compare; that what both
# call zero is not read; its exit statuses.

. "$(dirname "$0")/../functions.sh"
requires python3 jq

# compared STATUS WORDS ARGUMENT...: exit status and what is printed.
compared() {
    local status=0 said
    said="$(addcow compare "${@:3}" 2>stderr)" || status=$?
    expect_equal "$1, $2" "$status, $said" "compare ${*:3}"
}

random_file base.img 1M
truncate -s 3M base.img
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
compared 0 "Images are identical." base.img x.add-cow
compared 0 "Images are identical." x.add-cow base.img
compared 0 "" -q x.add-cow base.img
nbdkit -U - addcow x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"w\", 2000001)" -c "h.pwrite(b\"w\", 2500000)"'
compared 1 "Content mismatch at offset 2000001!" x.add-cow base.img
compared 1 "" -q base.img x.add-cow
addcow compare --output=json base.img x.add-cow >json || expect_equal 1 $? "status with JSON"
jq -e '.identical == false and .difference == "data" and .offset == 2000001' json >/dev/null || fail "$(cat json)"

# Other lengths, and holes.
cp base.img longer.img
truncate -s 4M longer.img
compared 0 "Images are identical." longer.img base.img
has 'compared with zeroes' <stderr || fail "$(cat stderr)"
compared 1 "Strict mode: Image size mismatch! (4194304 and 3145728 bytes)" -s longer.img base.img
printf x | dd of=longer.img bs=1 seek=4194303 conv=notrunc status=none
compared 1 "Content mismatch at offset 4194303!" base.img longer.img
head -c 3M base.img >full.img
compared 0 "Images are identical." base.img full.img
compared 1 "Strict mode: Offset 1048576 block status mismatch!" -s base.img full.img
compared 0 "Images are identical." -s base.img base.img

# A server, and a format of QEMU's; only by what is said, not by what is in it.
if command -v qemu-img >/dev/null && command -v qemu-nbd >/dev/null && ! built_with_sanitizer; then
    qemu-img convert -f raw -O qcow2 base.img base.qcow2
    compared 0 "Images are identical." base.img -F qcow2 base.qcow2
    compared 1 "Content mismatch at offset 0!" base.img base.qcow2
    start_server sock addcow x.add-cow
    compared 1 "Content mismatch at offset 2000001!" "$(uri sock)" base.img
    stop_server "$server_pid"
    # The same answers, but that QEMU counts in sectors.
    python3 - "$ADDCOW_RUN" <<'END_OF_PYTHON'
import os, random, subprocess, sys
seed = int(os.environ.get("ADDCOW_SEED", random.randrange(1 << 32)))
print("seed:", seed)
chance = random.Random(seed)
def disk(name):
    with open(name, "wb") as f:
        f.truncate(chance.choice([1 << 20, 1 << 20, (1 << 20) + 512, 2 << 20]))
        for _ in range(chance.randrange(3)):
            f.seek(512 * chance.randrange(2000))
            f.write(chance.choice([b"\0" * 4096, b"a" * 700, b"a" * 512]))
            f.truncate()
def run(*words):
    return subprocess.run(words, capture_output=True, text=True)
seen = set()
for number in range(100):
    disk("a"), disk("b")
    theirs = run("qemu-img", "compare", "-f", "raw", "-F", "raw", "a", "b")
    ours = run(sys.argv[1], "addcow", "compare", "a", "b")
    assert ours.returncode == theirs.returncode, (number, ours, theirs)
    seen.add(ours.returncode)
    if ours.returncode == 1:
        at = int(ours.stdout.split()[-1].rstrip("!"))
        assert at // 512 * 512 == int(theirs.stdout.split()[-1].rstrip("!")), (number, ours, theirs)
assert seen == {0, 1}, seen
END_OF_PYTHON
else
    echo "SKIP of a part: no servers: qemu-img or qemu-nbd is not installed, or the sanitizer is here"
fi

# What both say is zero is not read: it would take minutes.
truncate -s 1T huge.img
cp --sparse=always huge.img huge2.img
timeout 60 "$ADDCOW_RUN" addcow compare -q huge.img huge2.img

# It fails with 2, and names what is wrong.
compared 2 "" nosuch base.img
has 'nosuch: No such file' <stderr || fail "$(cat stderr)"
compared 2 "" -f nosuch base.img base.img
has "format 'nosuch' is not read here, it must be" <stderr || fail "$(cat stderr)"
compared 64 "" base.img
start_server sock addcow x.add-cow
compared 2 "" x.add-cow base.img
has -- '-U looks at it all the same' <stderr || fail "$(cat stderr)"
compared 1 "Content mismatch at offset 2000001!" -U x.add-cow base.img
stop_server "$server_pid"
if [ -c /dev/full ]; then
    if addcow compare base.img base.img >/dev/full 2>stderr; then fail "nobody was told"; fi
fi
# A read that fails is no difference.
with_faults true
fault pread 1+ 5 full.img
status=0
with_faults addcow compare base.img full.img >stdout 2>stderr || status=$?
no_fault
expect_equal 2 "$status" "a read that fails"
has 'full.img' <stderr || fail "$(cat stderr)"
