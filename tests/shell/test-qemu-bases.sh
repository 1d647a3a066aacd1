#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Bases of QEMU's formats, by a qemu-nbd that ends with the server, however that ends: what
# they read, their holes, what they name and must say of it, confine=, and what a user is
# told where it cannot be.

. "$(dirname "$0")/../functions.sh"
if built_with_sanitizer; then
    skip "a strerror in libnbd leaves the C library's lock of locales wrong with the sanitizer preloaded, and nbdkit does not end"
fi
requires jq nbdcopy nbdinfo nbdsh qemu-img qemu-io qemu-nbd python3

mkdir vm
cd vm
random_file src.raw 1M
truncate -s 8M src.raw
random_file tail 64K
dd if=tail of=src.raw bs=64K seek=100 conv=notrunc status=none

# refused WORDS COMMAND...: fails, and says so in one line.
refused() {
    local words="$1"
    shift
    if "$@" >out 2>err; then fail "not refused: $*"; fi
    [ "$(wc -l <err)" -eq 1 ] || fail "not one line: $(cat err)"
    grep -q -F -- "$words" err || fail "'$words' is not in: $(cat err)"
}

# qemu_nbds FILE: how many serve it, and have not ended.
qemu_nbds() {
    local count=0 process state
    for process in /proc/[0-9]*; do
        tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -q "^qemu-nbd .*file.filename=$1 " || continue
        state="$(sed -n 's/^State:\s*//p' "$process/status" 2>/dev/null)"
        case "$state" in Z* | '') ;; *) count=$((count + 1)) ;; esac
    done
    echo "$count"
}
ended() { [ "$(qemu_nbds "$1")" -eq 0 ]; }

# Every format that this qemu-img can write: served byte for byte with its holes, written
# to, and changed in no way.
for format in qcow2 qed vmdk vdi vhdx vpc parallels; do
    if ! qemu-img convert -f raw -O "$format" src.raw "base.$format" 2>err; then
        echo "this qemu-img writes no $format: $(cat err)"
        [ "$format" != qcow2 ] || fail "not even that"
        continue
    fi
    before="$(sha256sum <"base.$format")"
    addcow create -q -b "base.$format" -F "$format" -i "$format.raw" "$format.add-cow"
    nbdkit -U - addcow "$format.add-cow" --run 'nbdcopy "$uri" copy.raw'
    # Some formats have whole cylinders, or megabytes, of more zeroes.
    truncate -s "$(stat -c %s copy.raw)" src.raw
    cmp src.raw copy.raw
    # As many holes as QEMU itself knows of.
    nbdkit -U - addcow "$format.add-cow" --run 'nbdinfo --map --totals "$uri"' >ours
    nbdinfo --map --totals -- [ qemu-nbd -r -f "$format" "base.$format" ] >theirs
    diff theirs ours
    nbdkit -U - addcow "$format.add-cow" --run \
        'nbdsh -u "$uri" -c "h.pwrite(b\"x\" * 1000, 70000)" -c "assert h.pread(1, 71000) != b\"x\""'
    nbdkit -U - addcow "$format.add-cow" --run 'nbdcopy "$uri" copy.raw'
    [ "$(dd if=copy.raw bs=1000 skip=70 count=1 status=none)" = "$(printf 'x%.0s' {1..1000})" ]
    [ "$(sha256sum <"base.$format")" = "$before" ] || fail "$format: the base has changed"
    wait_until '' ended "$PWD/base.$format" || fail "$format: a qemu-nbd is left"
    truncate -s 8M src.raw
done

# The whole of it, and then without the base.
addcow flatten -q qcow2.add-cow
mv base.qcow2 away.qcow2
nbdkit -r -U - addcow qcow2.add-cow --run 'nbdcopy "$uri" copy.raw'
nbdkit -r -U - file qcow2.raw --run 'nbdcopy "$uri" raw.raw'
cmp copy.raw raw.raw
mv away.qcow2 base.qcow2

# A chain whose every file says its format; and one that does not.
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
qemu-io -f qcow2 -c 'write -q -P 7 4M 64k' top.qcow2
addcow create -q -b top.qcow2 -F qcow2 -i chain.raw chain.add-cow
nbdkit -r -U - addcow chain.add-cow --run 'qemu-img compare -f raw -F qcow2 "$uri" top.qcow2'
addcow info --backing-chain --output=json chain.add-cow >info.json
jq -e '[.[].format] == ["add-cow", "qcow2", "qcow2"] and (.[2]."virtual-size" == 8388608) and
    (.[2].filename | endswith("/base.qcow2"))' info.json >/dev/null || fail "$(cat info.json)"
# The header extension with the format gets a type that nobody knows.
forget_format() {
    python3 - "$1" <<'END'
import sys
with open(sys.argv[1], "r+b") as file:
    head = file.read(65536)
    at = head.index(bytes.fromhex("e2792aca"))
    file.seek(at)
    file.write(bytes.fromhex("0badcafe"))
END
}
cp top.qcow2 guess.qcow2
forget_format guess.qcow2
refused "names the backing file 'base.qcow2' without saying its format" \
    addcow create -q -b guess.qcow2 -F qcow2 -i guess.raw guess.add-cow
grep -q "qemu-img rebase -u -F FORMAT -b base.qcow2 $PWD/guess.qcow2" err
[ ! -e guess.raw ] || fail "something was made"
qemu-img create -q -f qcow2 -b guess.qcow2 -F qcow2 above.qcow2 2>/dev/null ||
    qemu-img create -q -u -f qcow2 -b guess.qcow2 -F qcow2 above.qcow2 8M
refused "guess.qcow2: names the backing file" \
    addcow create -q -b above.qcow2 -F qcow2 -i guess.raw guess.add-cow

# What is not of the format, not known, not there or in use.
refused "Image is not in qcow2 format" addcow create -q -b src.raw -F qcow2 -i g.raw g.add-cow
refused "'vhd'" addcow create -q -b src.raw -F vhd -i g.raw g.add-cow
refused "none.qcow2" addcow create -q -b none.qcow2 -F qcow2 -i g.raw g.add-cow
mkdir bin
for program in sh bash env sed grep; do ln -s "$(command -v "$program")" bin/; done
refused "qemu-utils" env PATH="$PWD/bin" "$(command -v bash)" -c '"$0" addcow "$@"' "$ADDCOW_RUN" \
    create -q -b base.qcow2 -F qcow2 -i g.raw g.add-cow
mkfifo in
qemu-io -f qcow2 top.qcow2 <in >out &
writer=$!
at_exit "kill $writer 2>/dev/null"
exec 9>in
echo 'read 0 512' >&9
wait_for out "$writer"
refused "top.qcow2: is in use by another program that may write to it" \
    nbdkit -U - addcow chain.add-cow --run true
nbdkit -r -U - addcow lock=off chain.add-cow --run 'nbdinfo --size "$uri"' >/dev/null
exec 9>&-
wait "$writer"
rm -f g.raw

# With confine= the format has to be allowed, and all that it names has to be beneath.
refused "allow=formats" nbdkit -U - addcow chain.add-cow confine="$PWD" --run true
nbdkit -U - addcow chain.add-cow confine="$PWD" allow=formats --run true
mkdir ../outside
cp base.qcow2 ../outside/secret.qcow2
qemu-img create -q -f qcow2 -b ../outside/secret.qcow2 -F qcow2 out.qcow2
addcow create -q -b out.qcow2 -F qcow2 -i out.raw out.add-cow
nbdkit -U - addcow out.add-cow --run true
refused "outside/secret.qcow2', which is not beneath" \
    nbdkit -U - addcow out.add-cow confine="$PWD" allow=formats --run true
# So does a data file, which QEMU opens as well.
if qemu-img create -q -f qcow2 -o data_file=../outside/data.raw,data_file_raw=on data.qcow2 1M 2>/dev/null; then
    addcow create -q -b data.qcow2 -F qcow2 -i data.raw data.add-cow
    nbdkit -U - addcow data.add-cow --run true
    refused "outside/data.raw', which is not beneath" \
        nbdkit -U - addcow data.add-cow confine="$PWD" allow=formats --run true
    # From wherever it is served, the data file is the one that was looked at.
    env -C / "$ADDCOW_RUN" nbdkit -U - addcow "$scratch/vm/data.add-cow" --run true
fi

# The extents of a vmdk are opened by QEMU at once, so that no other file may be one.
qemu-img create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 1M
qemu-img create -q -f vmdk one.vmdk 1M
for vmdk in flat one; do addcow create -q -b $vmdk.vmdk -F vmdk -i $vmdk.raw $vmdk.add-cow; done
nbdkit -U - addcow flat.add-cow --run true
nbdkit -U - addcow one.add-cow confine="$PWD" allow=formats --run true
refused "flat.vmdk: is a vmdk of several files" \
    nbdkit -U - addcow flat.add-cow confine="$PWD" allow=formats --run true
qemu-img create -q -f qcow2 -b flat.vmdk -F vmdk onflat.qcow2
addcow create -q -b onflat.qcow2 -F qcow2 -i onflat.raw onflat.add-cow
refused "flat.vmdk: is a vmdk of several files" \
    nbdkit -U - addcow onflat.add-cow confine="$PWD" allow=formats --run true

# A name that says more than where a file is can hide a format that is guessed: here that
# of what a guest wrote, which names a file of the host.
head -c 64K /dev/zero | tr '\0' 's' >secret
qemu-img create -q -f qcow2 -b secret -F raw guest.img
qemu-img create -q -f qcow2 -b guest.img -F raw middle.qcow2
forget_format middle.qcow2
json='{"driver":"raw","file":{"driver":"qcow2","file":{"driver":"file","filename":"'"$PWD"'/middle.qcow2"}}}'
for name in "json:$json" "blkverify:$PWD/secret:$PWD/secret"; do
    qemu-img create -q -f qcow2 -u -b "$name" -F raw odd.qcow2 64K
    refused "in which a format may be guessed" addcow create -q -b odd.qcow2 -F qcow2 -i g.raw g.add-cow
done

# What is outside is not even opened. A server has to be allowed as well, also where there
# is a file of that name.
qemu-img create -q -f qcow2 -b ../outside/top.qcow2 -F qcow2 -u far.qcow2 8M
cp guess.qcow2 ../outside/top.qcow2
ln -s "$PWD/base.qcow2" ../outside/base.qcow2
refused "names the backing file" addcow create -q -b far.qcow2 -F qcow2 -i far.raw far.add-cow
cp far.qcow2 out.qcow2
refused "outside/top.qcow2', which is not beneath" \
    nbdkit -U - addcow out.add-cow confine="$PWD" allow=formats --run true
mkdir -p nbd:/nowhere.invalid
truncate -s 8M nbd:/nowhere.invalid/disk
for name in nbd://nowhere.invalid/disk nbd:nowhere.invalid:10809; do
    qemu-img create -q -f qcow2 -u -b "$name" -F raw out.qcow2 8M
    refused "nowhere.invalid" nbdkit -U - addcow out.add-cow confine="$PWD" allow=formats --run true
    grep -q confine= err || fail "$name: $(cat err)"
done

# A base that is named by a link: what it names starts, as QEMU has it, from there, and that
# is the file that is looked at, locked, and has to be beneath.
mkdir a b
for dir in a b; do
    truncate -s 8M $dir/base.img
    printf '%s' $dir | dd of=$dir/base.img conv=notrunc status=none
done
qemu-img create -q -f qcow2 -F raw -b base.img b/real.qcow2
ln -s ../b/real.qcow2 a/link.qcow2
first_byte() { nbdkit -r -U - addcow "$@" --run 'nbdsh -u "$uri" -c "print(h.pread(1, 0).decode())"'; }
addcow create -q -b a/link.qcow2 -F qcow2 -i link.raw link.add-cow
expect_equal a "$(first_byte link.add-cow)" "the base of the link"
expect_equal a "$(first_byte link.add-cow confine="$PWD" allow=formats)" "the same, confined"
expect_equal b "$(first_byte link.add-cow backing=b/real.qcow2 identity=ignore)" "the base of the file"
expect_equal a "$(cd b && first_byte ../link.add-cow backing=../a/link.qcow2)" "the base of a link that is given"
addcow info --backing-chain --output=json link.add-cow | jq -e '.[2].filename | endswith("/a/base.img")' >/dev/null ||
    fail "$(addcow info --backing-chain link.add-cow)"
addcow compare -q -f qcow2 a/link.qcow2 a/base.img || fail "compare takes another base"
qemu_writes() { qemu-io -f "$1" -c 'write -q -P 7 5M 64k' "$2" >out 2>&1; }
writes() { nbdkit -r -U - addcow link.add-cow --run "qemu-io -f raw -c 'write -q -P 7 5M 64k' $1" >out 2>&1; }
writes b/base.img || fail "b/base.img is locked: $(cat out)"
if writes a/base.img; then fail "a/base.img is not locked"; fi
grep -q 'Failed to get "write" lock' out || fail "$(cat out)"
# Beneath the file itself there is one, but not beneath the link.
mkdir ../outside/a
ln -s "$PWD/b/real.qcow2" ../outside/a/link.qcow2
cp a/base.img ../outside/a/
rm b/base.img
ln -s ../../outside/a/base.img b/base.img
refused "b/base.img', which is not beneath" nbdkit -r -U - addcow link.add-cow confine="$PWD" allow=formats \
    backing=b/real.qcow2 identity=ignore --run true
nbdkit -r -U - addcow link.add-cow confine="$PWD" allow=formats --run true

# Who may not read all files of the base may not read the image either.
cp --no-preserve=mode base.qcow2 private.qcow2
chmod 600 private.qcow2
qemu-img create -q -f qcow2 -b private.qcow2 -F qcow2 public.qcow2
chmod 644 public.qcow2
addcow create -q -b public.qcow2 -F qcow2 -i rights.raw rights.add-cow
expect_equal 600 "$(stat -c %a rights.raw)" "the rights of rights.raw"

# An image must not stand on itself by way of QEMU either.
qemu-img create -q -f qcow2 -b loop.raw -F raw -u loop.qcow2 8M
truncate -s 8M loop.raw
addcow create -q -b base.qcow2 -F qcow2 -i loop.raw loop.add-cow
mv base.qcow2 away.qcow2
cp loop.qcow2 base.qcow2
refused "stands on itself" nbdkit -U - addcow loop.add-cow --run true
mv away.qcow2 base.qcow2

# However it ends, nothing is left; and one that is killed is started again.
cd "$scratch"
top="$PWD/vm/top.qcow2"
start_daemon sock addcow vm/chain.add-cow
[ "$(qemu_nbds "$top")" -eq 1 ] || fail "$(qemu_nbds "$top") qemu-nbds"
nbdcopy "nbd+unix:///?socket=$scratch/sock" copy.raw
qemu-img compare -f raw -F qcow2 copy.raw "$top"
pid_of_qemu() {
    local process
    for process in /proc/[0-9]*; do
        if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -q "^qemu-nbd .*file.filename=$1 "; then
            echo "${process#/proc/}"
        fi
    done
}
kill -9 "$(pid_of_qemu "$top")"
nbdcopy "nbd+unix:///?socket=$scratch/sock" copy.raw
qemu-img compare -f raw -F qcow2 copy.raw "$top"
# Nobody writes to it meanwhile either: the lock is not only that of qemu-nbd.
frozen="$server_pid"
for round in 1 2; do
    before="$(sha256sum <"$top")"
    if qemu_writes qcow2 "$top"; then fail "$top is not locked in round $round"; fi
    grep -q 'Failed to get "write" lock' out || fail "$(cat out)"
    [ "$(sha256sum <"$top")" = "$before" ] || fail "$top has changed"
    # From here on without a qemu-nbd: who would start another one is stopped.
    kill -STOP "$frozen"
    at_exit "kill -CONT $frozen 2>/dev/null"
    if [ "$round" = 1 ]; then kill -9 "$(pid_of_qemu "$top")"; fi
    wait_until '' ended "$top" || fail "a qemu-nbd is left"
done
kill -CONT "$frozen"
nbdcopy "nbd+unix:///?socket=$scratch/sock" copy.raw
qemu-img compare -f raw -F qcow2 copy.raw "$top"
kill_daemon "$server_pid"
wait_until '' ended "$top" || fail "kill -9 leaves a qemu-nbd"
start_daemon sock addcow vm/chain.add-cow
kill "$server_pid"
wait_until '' ended "$top" || fail "a clean stop leaves a qemu-nbd"

# One that finds another file by that name is not read, and what copy-on-read has kept is of
# the first one: the image is served again where the file is back.
random_file new.raw 8M
qemu-img convert -f raw -O qcow2 new.raw vm/new.qcow2
qemu-img convert -f qcow2 -O qcow2 "$top" vm/swapped.qcow2
swapped="$PWD/vm/swapped.qcow2"
addcow create -q -b swapped.qcow2 -F qcow2 -i swapped.raw vm/swapped.add-cow
start_server sock addcow vm/swapped.add-cow copy-on-read=on
at() { nbdsh -u "nbd+unix:///?socket=$scratch/sock" -c "print(h.pread(4096, $1).hex())"; }
of() { od -An -v -tx1 -j "$1" -N 4096 "$2" | tr -d ' \n'; }
expect_equal "$(of 0 copy.raw)" "$(at 0)" "what it reads"
mv "$swapped" vm/first.qcow2
mv vm/new.qcow2 "$swapped"
kill -9 "$(pid_of_qemu "$swapped")"
for offset in 6553600 6553600; do
    if at $offset >out 2>err; then fail "another file is read: $(cut -c1-40 out)"; fi
    grep -q 'Input/output error' err || fail "$(cat err)"
done
grep -q "$swapped: was replaced by another file: it is not the same any more, and so not read again" sock.log ||
    fail "$(cat sock.log)"
expect_equal "$(of 0 copy.raw)" "$(at 0)" "what was kept"
[ "$(qemu_nbds "$swapped")" -eq 0 ] || fail "a qemu-nbd serves the other file"
stop_server "$server_pid"
mv vm/first.qcow2 "$swapped"
nbdkit -r -U - addcow vm/swapped.add-cow --run 'nbdcopy "$uri" copy.raw'
qemu-img compare -f raw -F qcow2 copy.raw "$top"

# So does one that is frozen, and cannot see that its last client has gone.
for how in -KILL -TERM; do
    start_daemon sock addcow vm/chain.add-cow
    frozen="$(pid_of_qemu "$top")"
    at_exit "kill -9 $frozen 2>/dev/null"
    kill -STOP "$frozen"
    kill "$how" "$server_pid"
    wait_until '' ended "$top" || fail "kill $how leaves a qemu-nbd that is frozen"
done

# So does one that starts, and that nobody will connect to any more.
mkdir slow
cat >slow/qemu-nbd <<END
#!/bin/sh
echo \$\$ >"$scratch/slow.pid"
sleep 1
exec "$(command -v qemu-nbd)" "\$@"
END
chmod +x slow/qemu-nbd
PATH="$PWD/slow:$PATH" "$ADDCOW_RUN" nbdkit -f -U "$scratch/slow.sock" addcow vm/chain.add-cow 2>slow.log &
starting=$!
wait_for slow.pid "$starting"
kill -9 "$starting"
status=0
wait "$starting" || status=$?
expect_equal 137 "$status" "exit status of a server that was killed"
slow="$(cat slow.pid)"
at_exit "kill -9 $slow 2>/dev/null"
wait_until '' is_gone "$slow" || fail "kill -9 leaves a qemu-nbd that starts"

# And the shell that becomes it, which may see nothing of us any more: it stops at its
# first step, until there is nobody to start qemu-nbd for.
with_faults true
fault chdir 1 -19 "$PWD/vm"
start_one() {
    "$ADDCOW_RUN" nbdkit -f -U "$scratch/slow.sock" addcow vm/chain.add-cow 2>slow.log &
    starting=$!
}
with_faults start_one
wait_for fault.hits "$starting"
stopped_child() { # PID
    local process
    for process in /proc/[0-9]*; do
        if grep -q '^State:	T' "$process/status" 2>/dev/null &&
            grep -q "^PPid:	$1\$" "$process/status" 2>/dev/null; then
            echo "${process#/proc/}"
            return 0
        fi
    done
    return 1
}
wait_until "$starting" stopped_child "$starting" >/dev/null || fail "no shell: $(cat slow.log)"
slow="$(stopped_child "$starting")"
at_exit "kill -9 $slow 2>/dev/null"
no_fault
kill -9 "$starting"
ends_with 137 "$starting" "a server that was killed"
kill -CONT "$slow"
wait_until '' is_gone "$slow" || fail "kill -9 leaves a qemu-nbd that a shell starts"

# It is not of our process group, which a terminal sends Ctrl-C to.
start_server sock addcow vm/chain.add-cow
if command -v setsid >/dev/null; then
    [ "$(cut -d' ' -f5 "/proc/$(pid_of_qemu "$top")/stat")" != "$(cut -d' ' -f5 "/proc/$server_pid/stat")" ] ||
        fail "qemu-nbd is in our process group"
fi
stop_server "$server_pid"
wait_until '' ended "$top" || fail "a clean stop leaves a qemu-nbd"

# By another user than the one who opened it; and without /proc.
if [ "$(id -u)" -eq 0 ] && getent passwd nobody >/dev/null; then
    chmod 777 .
    chmod -R a+rwX vm
    start_daemon sock -u nobody addcow vm/chain.add-cow timeout=10
    kill -9 "$(pid_of_qemu "$top")"
    nbdcopy "nbd+unix:///?socket=$scratch/sock" copy.raw
    qemu-img compare -f raw -F qcow2 copy.raw "$top"
    kill_daemon "$server_pid"
    wait_until '' ended "$top" || fail "kill -9 leaves a qemu-nbd of another user"
fi
if can_mount; then
    without_proc "$ADDCOW_RUN" nbdkit -r -U - addcow vm/chain.add-cow --run 'nbdcopy "$uri" copy.raw'
    qemu-img compare -f raw -F qcow2 copy.raw "$top"
fi

# A name that QEMU could read as something else.
cd vm
mkdir 'a,b:c'
cp base.qcow2 'a,b:c/nbd:x,file.driver=null-co'
addcow create -q -b 'a,b:c/nbd:x,file.driver=null-co' -F qcow2 -i odd.raw odd.add-cow
nbdkit -r -U - addcow odd.add-cow --run 'qemu-img compare -f raw -F raw "$uri" src.raw'
