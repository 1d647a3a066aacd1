#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# System calls that fail under a real server: for each request what its client
# gets, which is EIO or ENOSPC whatever the system said; the request after it
# works, nothing is lost, and no descriptor stays open.

. "$(dirname "$0")/../functions.sh"
requires nbdsh

truncate -s 1M base.img
random_file noise 800000
dd if=noise of=base.img conv=notrunc status=none
# A hole at each cluster's end: where data goes on, the server does not ask again.
for cluster in {1..15}; do
    fallocate -p -o $((cluster * 65536 - 4096)) -l 4096 base.img
done
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
with_faults start_server sock addcow x.add-cow
# Of files; a connection's may be there a little longer than its client.
descriptors() { find "/proc/$server_pid/fd" -lname "$scratch/*" | wc -l; }
before="$(descriptors)"

cat >requests.py <<'EOF'
import errno, os

def fault(line):
    with open("fault.new", "w") as f:
        f.write(line + "\n")
    os.rename("fault.new", "fault")

def no_fault():
    os.unlink("fault")

model = bytearray(open("base.img", "rb").read())
K = 65536
fresh = iter(range(1, 16))  # clusters that are not allocated yet

def put(offset, data, flags=0):
    h.pwrite(data, offset, flags)
    model[offset:offset + len(data)] = data

def zero(offset, count, flags=0):
    h.zero(count, offset, flags)
    model[offset:offset + count] = bytes(count)

def trim(offset, count):
    h.trim(count, offset)
    model[offset:offset + count] = bytes(count)

def extents(offset):
    h.block_status(K, offset, lambda *args: None)

put(0, b"first" * 100)
h.flush()
zero(0, 100)  # the file system can punch holes, or it cannot: known from now on

ALL = ["EIO", "ENOSPC", "EDQUOT", "EFBIG", "EINVAL", "EACCES", "ENXIO", "ENODEV", "EBADF",
       "ENOMEM", "EROFS"]
# EINVAL and its like have a meaning there, and something else is done.
SEEK = [e for e in ALL if e not in ("EINVAL", "ENXIO")]
PUNCH = [e for e in ALL if e not in ("EINVAL", "ENODEV")]
WIRE = {"ENOSPC": "ENOSPC", "EDQUOT": "ENOSPC", "EFBIG": "ENOSPC", "ENOMEM": "ENOMEM",
        "EROFS": "EPERM"}  # all others: EIO

new = lambda: next(fresh) * K + 1000
cases = [
    ("pread", "/disk.raw", ALL, lambda at: h.pread(100, 0), 0),
    ("pread", "/base.img", ALL, lambda at: h.pread(100, 15 * K), 0),
    ("pwrite", "/disk.raw", ALL, lambda at: put(at, b"a" * 300), 0),
    ("pread", "/base.img", ALL, lambda at: put(at, b"b" * 300), None),
    ("lseek", "/base.img", SEEK, lambda at: trim(at, 4096), None),
    ("pwrite", "/disk.raw", ALL, lambda at: put(at, b"d" * 300), None),
    ("fallocate", "/disk.raw", PUNCH, lambda at: zero(at, 4096), 0),
    ("fallocate", "/disk.raw", PUNCH, lambda at: zero(at, 4096, nbd.CMD_FLAG_FAST_ZERO), 0),
    ("fallocate", "/disk.raw", PUNCH, lambda at: trim(at, 4096), 0),
    ("fallocate", "/disk.raw", PUNCH, lambda at: trim(at, 4096), None),
    ("lseek", "/disk.raw", SEEK, lambda at: extents(at), 0),
    ("lseek", "/base.img", SEEK, lambda at: extents(15 * K), None),
    ("posix_fadvise", "/disk.raw", ALL, lambda at: h.cache(100, at), 0),
    ("posix_fadvise", "/base.img", ALL, lambda at: h.cache(100, 15 * K), None),
    ("pwrite", "/x.add-cow", ALL, lambda at: put(at, b"e" * 10, nbd.CMD_FLAG_FUA), None),
]
tried = 0
for call, part, errors, request, place in cases:
    at = new() if place is None else place
    for error in errors:
        # Where it was already written, only a copy of the model may be changed.
        saved = bytes(model)
        fault(f"{call} 1+ {getattr(errno, error)} {part}")
        try:
            request(at)
            raise SystemExit(f"{call} {part} failed with {error}, and no client was told")
        except nbd.Error as got:
            want = WIRE.get(error, "EIO")
            if got.errno != want:
                raise SystemExit(f"{call} {part}: {error} came as {got.errno}, not {want}")
        assert model == saved
        no_fault()
        tried += 1
    request(at)
    h.flush()
    assert h.pread(len(model), 0) == model, (call, part)
print(tried, "faults")
assert tried > 100
EOF
nbdsh --base-allocation -u "$(uri sock)" -c 'exec(open("requests.py").read(), globals())'
expect_equal "$before" "$(descriptors)" "open descriptors"
grep -q 'base.img.*: ' sock.log || fail "the log does not name the file"
stop_server "$server_pid"
sound x.add-cow
