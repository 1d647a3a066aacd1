#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What docs/scaling.md prints is what is run here, with directories of the system in the
# scratch directory: certificates, keys, the servers of the base, a host. In name spaces of
# its own, where base.example.org is the loopback. And bench/fleet.py, with little in it.

. "$(dirname "$0")/../functions.sh"
if built_with_sanitizer; then
    skip "a strerror in libnbd leaves the C library's lock of locales wrong with the sanitizer preloaded, and nbdkit does not end"
fi
requires certtool psktool nbdcopy nbdinfo nbdsh qemu-nbd python3 ip
nbdkit --dump-config | grep -q '^tls=yes' || skip "this nbdkit has no TLS"
can_mount && unshare -n true 2>/dev/null || skip "no root, or no name spaces of mounts and networks"

if [ -z "${ADDCOW_TEST_INSIDE:-}" ]; then
    # Links and the network of the machine stay as they are, and so does /etc/hosts.
    ADDCOW_TEST_INSIDE=yes unshare -n -m bash "$srcdir/tests/shell/test-scaling.sh"
    # It makes name spaces of its own, and leaves none.
    ADDCOW_RUN="$ADDCOW_RUN" python3 "$srcdir/bench/fleet.py" --dir=. --hosts=1,2 --size=16M --read=1M \
        --rounds=1 --delay=1ms --tls >table 2>log || { cat log >&2; fail "bench/fleet.py"; }
    # Two hosts read a MiB each, and nobody less than that.
    grep -qE '^\| 2 \|.* [0-9.]+ ms .*\| ([2-9]|[1-9][0-9])\.[0-9] MiB \|' table || fail "no row: $(cat table)"
    if ip netns list | has '^addcow-fleet-'; then fail "name spaces are left: $(ip netns list)"; fi
    exit 0
fi
ip link set lo up
echo '127.0.0.1 localhost base.example.org' >hosts
mount --bind hosts /etc/hosts

# Each block that has a name, into a file of that name.
python3 - "$srcdir/docs/scaling.md" "$scratch" <<'END_OF_PYTHON'
import re, sys
for kind, name, text in re.findall(r"^```(sh|ini) (\S+)\n(.*?)^```$", open(sys.argv[1]).read(), re.M | re.S):
    text = text.replace("/etc/pki/", sys.argv[2] + "/pki/").replace("/srv/", sys.argv[2] + "/srv/")
    open(f"block.{name}", "w").write(text)
END_OF_PYTHON
mkdir -p bin pki/addcow srv/bases srv/vm01
for program in addcow nbdkit; do
    printf '#!/bin/sh\nPATH="%s"\nexec "%s" %s "$@"\n' "$PATH" "$ADDCOW_RUN" "$program" >"bin/$program"
done
printf '#!/bin/sh\necho "$@" >>"%s/rbd.log"\n' "$scratch" >bin/rbd
chmod +x bin/*
random_file srv/bases/debian-12 1M
truncate -s 16M srv/bases/debian-12
block() { # NAME: as printed
    [ -s "block.$1" ] || fail "docs/scaling.md has no block $1"
    PATH="$scratch/bin:$PATH" bash -e -u -o pipefail "block.$1"
}

block certificates >certificates.log 2>&1 || { cat certificates.log >&2; fail "certificates"; }
# The units, as systemd sees them, and what they start.
if command -v systemd-analyze >/dev/null && [ -x /usr/bin/nbdkit ]; then
    cp block.addcow-bases.service addcow-bases.service
    { echo '[Service]'; sed -n '/^ExecStart=./p' block.base.conf; } >addcow@.service
    for unit in addcow-bases addcow@; do
        systemd-analyze verify "$PWD/$unit.service" >verify.log 2>&1 || fail "$unit: $(cat verify.log)"
        ! grep -v '^/usr/lib/systemd/' verify.log | has . || fail "$unit: $(cat verify.log)"
    done
fi
command_of() { sed -n "s|^ExecStart=/usr/bin/|$scratch/bin/|p" "block.$1"; }
base_pid=
start_base() { # COMMAND...
    "$@" >base.log 2>&1 &
    base_pid=$!
    at_exit "kill $base_pid 2>/dev/null; wait $base_pid 2>/dev/null"
}
stop_base() { stop_server "$base_pid"; }
uri="nbds://base.example.org/debian-12?tls-certificates=$scratch/pki/addcow"
answers() { nbdinfo --size "$1" >/dev/null 2>&1; }
read -r -a words <<<"$(command_of addcow-bases.service)"
start_base "${words[@]}"
wait_until "$base_pid" answers "$uri" || { cat base.log >&2; fail "no server: ${words[*]}"; }
# Who has no certificate is not let in.
if answers nbd://base.example.org/debian-12; then fail "without TLS"; fi
mkdir none
cp pki/addcow/ca-cert.pem none
if answers "nbds://base.example.org/debian-12?tls-certificates=$scratch/none"; then fail "without a certificate"; fi
block host >/dev/null
addcow info --output=json srv/vm01/x.add-cow | has base.example.org

# What the unit starts, with an instance's name.
read -r -a words <<<"$(command_of base.conf | sed 's|%i|vm01|')"
if ! nbdkit addcow --help | has 'copy-on-read='; then
    echo "not tried: this build has no copy-on-read="
    mapfile -t words < <(printf '%s\n' "${words[@]}" | grep -v '^copy-on-read=')
fi
reads() {
    PATH="$scratch/bin:$PATH" "${words[0]}" -U - "${words[@]:2}" --run 'nbdcopy "$uri" -' | cmp - srv/bases/debian-12
}
expect_equal "-f" "${words[1]}" "the second word of the unit's command"
reads
nbdkit -U - addcow srv/vm01/x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(b\"x\" * 65536, 0)" -c "h.flush()"'
nbdkit -U - addcow srv/vm01/x.add-cow --run 'nbdsh -u "$uri" -c "h.pwrite(open(\"srv/bases/debian-12\", \"rb\").read(65536), 0)"'
stop_base

# qemu-nbd in the place of it, of a file and not of Ceph (tests/slow/test-rbd-base.sh).
sed -i "s|rbd:rbd/debian-12@golden|$scratch/srv/bases/debian-12|; s|^qemu-nbd|exec qemu-nbd|" block.rbd
start_base env PATH="$scratch/bin:$PATH" bash -e block.rbd
wait_until "$base_pid" answers "$uri" || { cat base.log >&2; fail "no qemu-nbd"; }
expect_equal 2 "$(grep -c 'snap .* rbd/debian-12@golden' rbd.log)" "commands for the snapshot"
reads
stop_base

# Keys.
sed -i 's|^nbdkit|exec nbdkit -f|' block.keys
start_base env PATH="$scratch/bin:$PATH" bash -e block.keys
uri="nbds://host7@base.example.org/debian-12?tls-psk-file=$scratch/pki/addcow/keys.psk"
grep -qF "nbds://host7@base.example.org/debian-12?tls-psk-file=/etc/pki/addcow/keys.psk" "$srcdir/docs/scaling.md"
wait_until "$base_pid" answers "$uri" || { cat base.log >&2; fail "no server with keys"; }
addcow rebase -q -u -b "$uri" -F raw srv/vm01/x.add-cow
reads
stop_base
