#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fio writes blocks that carry checksums at random places and reads them back,
# while they are written and again after the server was restarted.

. "$(dirname "$0")/../functions.sh"
requires fio
fio --enghelp 2>/dev/null | has -w nbd || skip "fio has no nbd engine"

random_file base.img 64M
before="$(sha base.img)"
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
seed="${ADDCOW_SEED:-$RANDOM}"
echo "seed $seed (set ADDCOW_SEED to repeat)"

run_fio() {
    fio --name=verify --ioengine=nbd --uri="$(uri sock)" --size=64M --rw=randwrite \
        --bsrange=512-64k --bs_unaligned=1 --iodepth=16 --verify=crc32c --randseed="$seed" \
        --io_size=16M --fsync=64 --verify_state_save=0 "$@" >fio.log 2>&1 ||
        { cat fio.log >&2; fail "fio: verification failed"; }
}

start_server sock addcow x.add-cow
run_fio --do_verify=1
stop_server "$server_pid"
addcow check x.add-cow
start_server sock addcow x.add-cow
run_fio --verify_only=1
stop_server "$server_pid"
expect_equal "$before" "$(sha base.img)" "the backing file changed"
