#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# nbdkit's sparse-random: a disk of noise and holes that checks what is
# written to it. Copied into an image and back to its maker.

. "$(dirname "$0")/../functions.sh"
requires nbdcopy
command nbdkit sparse-random --dump-plugin >/dev/null 2>&1 ||
    skip "nbdkit has no sparse-random plugin"

seed="${ADDCOW_SEED:-$RANDOM}"
echo "seed $seed (set ADDCOW_SEED to repeat)"
random_file base.img 64M
addcow create -q -b base.img -F raw -i disk.raw x.add-cow
start_server sock addcow x.add-cow
command nbdkit -U - sparse-random size=64M seed="$seed" \
    --run "nbdcopy \"\$uri\" '$(uri sock)'"
# Any byte that differs from what the seed makes is an error of the write.
command nbdkit -U - sparse-random size=64M seed="$seed" \
    --run "nbdcopy '$(uri sock)' \"\$uri\""
stop_server "$server_pid"
nbdkit -r -U - addcow x.add-cow --run \
    "nbdcopy \"\$uri\" out.img"
command nbdkit -U - sparse-random size=64M seed="$seed" --run 'nbdcopy out.img "$uri"'
addcow check x.add-cow
