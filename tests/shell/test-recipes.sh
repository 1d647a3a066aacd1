#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What OPERATIONS in nbdkit-addcow-plugin(1) and "Use it" in README.md print is what is
# run here: it is taken from there. Only directories that belong to the system are put
# into the scratch directory, and ssh and systemctl are stand-ins. Of the README also
# what a reader relies on: the length of its lines, its first screen, its links.

. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io nbdsh nbdinfo nbdcopy jq tar python3

# take_recipes POD DIRECTORY: each verbatim paragraph of OPERATIONS into a file with the
# name that the "=for recipe NAME" before it gives. One without a name fails the test.
take_recipes() {
    python3 - "$@" <<'END_OF_PYTHON'
import os, re, sys
pages = open(sys.argv[1], encoding="utf-8").read()
part = re.search(r"^=head1 OPERATIONS\n(.*?)^=head1 ", pages, re.M | re.S).group(1)
name = None
for paragraph in re.split(r"\n{2,}", part.strip("\n")):
    if paragraph.startswith("=for recipe "):
        name = paragraph.split()[2]
        last = os.path.join(sys.argv[2], name)
        assert not os.path.exists(last), f"two recipes are called {name}"
        open(last, "w").close()
    elif paragraph.startswith(" "):
        assert name, "no =for recipe before:\n" + paragraph
        with open(last, "a", encoding="utf-8") as out: # paragraphs in a row are one
            out.write(re.sub(r"^ ", "", paragraph, flags=re.M) + "\n\n")
    else:
        name = None
END_OF_PYTHON
}
mkdir recipes bin
pod="$srcdir/plugin/nbdkit-addcow-plugin.pod"
take_recipes "$pod" recipes || fail "$pod"
# It does find what has no name.
printf '=head1 OPERATIONS\n\nText\n\n rm x\n\n=head1 NEXT\n' >wrong.pod
mkdir wrong
expect_fails 1 take_recipes wrong.pod wrong

for program in addcow nbdkit; do
    # Without bin in PATH: ./run starts the nbdkit that it finds there.
    printf '#!/bin/sh\nPATH="%s"\nexec "%s" %s "$@"\n' "$PATH" "$ADDCOW_RUN" "$program" >"bin/$program"
done
# The other host is a directory.
printf '#!/bin/sh\nset -e\ntest "$1" = host2\nmkdir -p "%s/host2"\ncd "%s/host2"\nexec sh -c "$2"\n' \
    "$scratch" "$scratch" >bin/ssh
# Starts nothing: notes what it was asked for.
printf '#!/bin/sh\necho "$@" >>"%s/systemctl.log"\n' "$scratch" >bin/systemctl
chmod +x bin/*

# here <TEXT: with the directories of the system in the scratch directory.
here() {
    sed -e "s|/run/addcow|$scratch/run|g" -e "s|/srv/|$scratch/srv/|g" \
        -e "s|/usr/bin/nbdkit|$scratch/bin/nbdkit|g"
}
touch used
# recipe NAME: its text, as it is run.
recipe() { echo "$1" >>"$scratch/used"; here <"$scratch/recipes/$1"; }
# run NAME: in the working directory, as a user would with set -e.
run() {
    [ -s "$scratch/recipes/$1" ] || fail "the manual has no recipe $1"
    recipe "$1" >"$scratch/recipe.sh"
    PATH="$scratch/bin:$PATH" bash -e -u -o pipefail "$scratch/recipe.sh"
}
part_skipped() { echo "SKIP of a part: $*"; }
# disk X.add-cow: the sum of what a client reads.
disk() { nbdkit -r -U - addcow "$1" --run 'nbdcopy "$uri" - | sha256sum' | cut -d' ' -f1; }
write() { nbdsh -u "$1" -c "h.pwrite(b'$2' * 70000, $3)"; }
# image DIRECTORY: base.img, 4 MiB in 8, and an image on top with some writes.
image() {
    mkdir -p "$1"
    random_file "$1/base.img" 4M
    truncate -s 8M "$1/base.img"
    addcow create -q -b base.img -F raw -i disk.raw "$1/x.add-cow"
    nbdkit -U - addcow "$1/x.add-cow" --run 'nbdsh -u "$uri" -c "h.pwrite(b\"m\" * 70000, 1000000)"'
}

# By hand, as the manual says, and the README.
image hand
(cd hand && run by-hand >out && grep -q 'export-size: 8388608' out && grep -q 'No errors' out) || fail "by hand: $(cat hand/out)"
[ ! -e hand/sock ] || fail "the socket is there"

mkdir readme
cp hand/base.img readme
awk '/^```console$/ { on = 1; next } /^```/ { on = 0 } on && sub(/^\$ /, "")' "$srcdir/README.md" >readme.sh
[ "$(wc -l <readme.sh)" -ge 10 ] || fail "README.md: no commands"
(cd readme && PATH="$scratch/bin:$PATH" bash -e -u -o pipefail ../readme.sh >out 2>&1) ||
    fail "README.md: $(cat readme/out)"
expect_equal "$(sha readme/base.img)" "$(sha readme/disk.raw)" "the disk of the README"
python3 - "$srcdir/README.md" <<'END_OF_PYTHON' || fail "README.md"
import os, re, sys
text = open(sys.argv[1], encoding="utf-8").read()
lines = text.splitlines()
long = [f"line {n} has {len(line)} characters" for n, line in enumerate(lines, 1) if len(line) >= 100]
assert not long, long
first = "\n".join(lines[:40])
assert "./quickstart" in first and "./runtests" in first, "no ./quickstart and ./runtests in 40 lines"
for link in re.findall(r"\]\(([^)#:]+)", text):
    assert os.path.exists(os.path.join(os.path.dirname(sys.argv[1]), link)), link
END_OF_PYTHON

# The units. Known to systemd to the letter: it prints what it does not know.
mkdir units run
for unit in addcow@.socket addcow@.service; do cp "recipes/$unit" units; recipe "$unit" >"here.$unit"; done
if command -v systemd-analyze >/dev/null && [ -x /usr/bin/nbdkit ]; then
    for unit in socket service; do
        status=0
        systemd-analyze verify "$PWD/units/addcow@.$unit" >verify.log 2>&1 || status=$?
        # It looks at what is needed as well, which is not ours.
        expect_equal "0 " "$status $(grep -v '^/usr/lib/systemd/' verify.log)" \
            "systemd-analyze verify addcow@.$unit"
    done
    sed -i 's/^TimeoutStopSec/TimeoutStopSeconds/' units/addcow@.service
    systemd-analyze verify "$PWD/units/addcow@.service" 2>&1 | has TimeoutStopSeconds ||
        fail "systemd-analyze finds nothing"
else
    part_skipped "systemd-analyze or /usr/bin/nbdkit is not installed, so nothing verifies the units"
fi
run enable
run stop
expect_equal "enable --now addcow@vm01.socket stop addcow@vm01.socket addcow@vm01.service" \
    "$(tr '\n' ' ' <systemctl.log | sed 's/ $//')" "what systemctl was asked for"

# Started by a connection, as systemd does it: the socket is descriptor 3.
image srv/vm01
socket="$(sed -n 's/^ListenStream=//p' here.addcow@.socket | sed 's/%i/vm01/')"
command="$(sed -n 's/^ExecStart=//p' here.addcow@.service | sed 's/%i/vm01/')"
[ -n "$socket" ] && [ -n "$command" ] || fail "units: $(cat here.*)"
cat >activate.py <<'END_OF_PYTHON'
import os, socket, sys
listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listening.bind(sys.argv[1])
listening.listen(5)
with open(sys.argv[2], "w") as ready: ready.write("ready\n")
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execvp(sys.argv[3], sys.argv[3:])
END_OF_PYTHON
# shellcheck disable=SC2086  # words, as systemd splits them
python3 activate.py "$socket" ready $command 2>service.log &
service=$!
at_exit "kill $service 2>/dev/null; wait $service 2>/dev/null"
wait_for ready "$service" || fail "no socket: $(cat service.log)"

# The guest's disk is that socket, and what a guest has written is copied from it.
recipe disk.xml >disk.xml
python3 - "$socket" <<'END_OF_PYTHON' || fail "disk.xml"
import sys, xml.etree.ElementTree as tree
disk = tree.parse("disk.xml").getroot()
assert disk.find("source/host").get("socket") == sys.argv[1]
assert disk.find("source").get("protocol") == "nbd" and disk.find("driver").get("type") == "raw"
END_OF_PYTHON
cat - disk.xml <(echo '</devices></domain>') >domain.xml <<'END_OF_XML'
<domain type='kvm'><name>vm01</name><memory>1048576</memory>
<os><type arch='x86_64'>hvm</type></os><devices>
END_OF_XML
if command -v virt-xml-validate >/dev/null; then
    virt-xml-validate domain.xml domain >xml.log 2>&1 || fail "virt-xml-validate: $(cat xml.log)"
else
    part_skipped "virt-xml-validate is not installed, so no schema checks the XML"
fi
write "nbd+unix:///?socket=$socket" w 2000000
run copy-running
run copy-running-qcow2
qemu-img compare -q -f raw -F qcow2 copy.raw copy.qcow2
expect_equal "$(printf 'w%.0s' {1..10})" "$(dd if=copy.raw bs=1 skip=2000000 count=10 status=none)" "what the guest wrote"
if (cd srv/vm01 && run backup) 2>stderr; then fail "a backup of a disk in use"; fi
grep -q 'is in use' stderr || fail "the backup of a disk in use: $(cat stderr)"
stop_server "$service"
expect_equal "$(sha copy.raw)" "$(disk srv/vm01/x.add-cow)" "the disk after a clean stop"

# Backup and restore.
(cd srv/vm01 && run backup)
mkdir restored
cp -p srv/vm01/base.img srv/vm01/backup.tar restored
(cd restored && run restore >/dev/null)
expect_equal "$(disk srv/vm01/x.add-cow)" "$(disk restored/x.add-cow)" "the restored disk"
[ "$(used_bytes restored/disk.raw)" -le 1000000 ] || fail "restored: $(used_bytes restored/disk.raw) bytes"

# Leaks, and storage for all.
image leak
random_file noise 64K
dd if=noise of=leak/disk.raw bs=64K seek=50 conv=notrunc status=none
before="$(disk leak/x.add-cow)"
expect_fails 3 addcow check leak/x.add-cow
(cd leak && run leaks >/dev/null)
addcow check -q leak/x.add-cow
(cd leak && run reserve)
[ "$(used_bytes leak/disk.raw)" -ge 8388608 ] || fail "reserved: $(used_bytes leak/disk.raw) bytes"
addcow check -q leak/x.add-cow
expect_equal "$before" "$(disk leak/x.add-cow)" "the disk with reserved storage"

# To another host; and a base elsewhere.
(cd srv/vm01 && run move >/dev/null)
expect_equal "$(disk srv/vm01/x.add-cow)" "$(disk host2/vm01/x.add-cow)" "the disk on the other host"
for file in x.add-cow disk.raw base.img; do
    expect_equal "$(stat -c %.9Y "srv/vm01/$file")" "$(stat -c %.9Y "host2/vm01/$file")" "the time of $file"
done
mkdir srv/bases
mv host2/vm01/base.img srv/bases
(cd host2/vm01 && run moved-base && nbdcopy 'nbd+unix:///?socket=sock' copy.raw &&
    kill "$(cat pid)" && "$ADDCOW_RUN" addcow check --wait -q x.add-cow)
expect_equal "$(disk srv/vm01/x.add-cow)" "$(sha host2/vm01/copy.raw)" "the disk with a base elsewhere"

# A qcow2 overlay: larger than its base, with data, and with zeroes over data.
mkdir import
cp hand/base.img import
before="$(sha import/base.img)"
qemu-img create -q -f qcow2 -b base.img -F raw import/overlay.qcow2 12M
qemu-io -f qcow2 -c 'write -P 0x71 100000 300000' -c 'write -z 1M 256k' -c 'write -P 0x72 11M 64k' import/overlay.qcow2 >/dev/null
qemu-img convert -f qcow2 -O raw import/overlay.qcow2 want.raw
(cd import && run import >/dev/null && run import-compare >/dev/null)
expect_equal "$(sha want.raw)" "$(disk import/x.add-cow)" "the imported disk"
expect_equal "$before" "$(sha import/base.img)" "the base of the imported disk"
qemu-img convert -f qcow2 -O raw import/overlay.qcow2 again.raw
cmp want.raw again.raw

# What needs file systems of its own.
# mounted DIRECTORY MOUNT-ARGUMENT...
mounted() {
    local where="$1"
    shift
    mkdir "$where"
    [ "$(id -u)" -eq 0 ] && mount "$@" "$where" 2>mount.log || return 1
    at_exit "umount -l '$scratch/$where'"
}
if mounted small -t tmpfs -o size=8M none; then
    random_file base.img 16M
    addcow create -q -b "$scratch/base.img" -F raw -i disk.raw small/x.add-cow
    start_server sock addcow small/x.add-cow
    nbdsh -u "$(uri sock)" -c '
done = 0
try:
    while done < 16: h.pwrite(b"f" * 1048576, done * 1048576); done += 1
except nbd.Error as error: assert error.errno == "ENOSPC", error
assert 0 < done < 16, done
with open("done", "w") as out: out.write(str(done))'
    (cd small && run disk-full >../out)
    grep -q '100%' out && grep -q 'disk.raw$' out || fail "the full disk: $(cat out)"
    mount -o remount,size=64M small
    nbdsh -u "$(uri sock)" -c '
for i in range(int(open("done").read()), 16): h.pwrite(b"f" * 1048576, i * 1048576)'
    stop_server "$server_pid"
    expect_equal "$(head -c 16M /dev/zero | tr '\0' f | sha256sum | cut -d' ' -f1)" "$(disk small/x.add-cow)" "after it was full"
else
    part_skipped "no small file system can be mounted here: $(cat mount.log 2>/dev/null)"
    recipe disk-full >/dev/null
fi
truncate -s 64M ext4.img
truncate -s 1G xfs.img
if /sbin/mke2fs -q -t ext4 -b 4096 ext4.img 2>mount.log && mounted ext4 -o loop ext4.img; then
    expect_fails 1 addcow create -i disk.raw -s 16T ext4/x.add-cow
    grep -q 'does not take such a large file (ext4: less than 16 TiB)' stderr || fail "16 TiB on ext4: $(cat stderr)"
    addcow create -q -i disk.raw -s $(((16 << 40) - 4096)) ext4/x.add-cow
else
    part_skipped "no ext4 can be mounted here: $(cat mount.log)"
fi
if mkfs.xfs -q xfs.img 2>mount.log && mounted xfs -o loop xfs.img; then
    (cd xfs && run limits >/dev/null)
    expect_equal $((20 << 40)) "$(addcow info --output=json xfs/x.add-cow | jq '."virtual-size"')" "20 TiB on XFS"
else
    part_skipped "no XFS can be mounted here: $(cat mount.log)"
    recipe limits >/dev/null
fi

echo table >>used
for name in recipes/*; do
    has -x "${name#recipes/}" <used || fail "nothing runs the recipe ${name#recipes/}"
done
