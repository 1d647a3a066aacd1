#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# nbdkit addcow --help and --dump-plugin tell parameters, the revisions of the format
# and capabilities.

. "$(dirname "$0")/../functions.sh"

nbdkit addcow --help >help
for parameter in file image backing layer readonly lock confine allow timeout identity reflink subclusters sync-interval copy-on-read fetch-size control; do
    grep -q "^$parameter=" help || fail "--help does not show $parameter="
done
awk '/^file=/ { ours = 1 } ours && length > 80' help >long
[ ! -s long ] || fail "more than 80 columns: $(cat long)"
nbdkit addcow --dump-plugin >dump
grep -qx 'addcow_revisions=1 20' dump
grep -qx 'addcow_cluster_size_min=4096' dump
grep -qx 'addcow_cluster_size_max=2097152' dump
grep -qx 'addcow_subcluster_size=4096' dump
grep -qx 'addcow_backing_formats=raw add-cow qcow2 qed vmdk vdi vhdx vpc parallels dmg qcow bochs cloop' dump
grep -qx 'addcow_backing_uris=nbd nbds nbd+unix nbds+unix' dump
grep -qx 'addcow_parameters=file image backing layer readonly lock confine identity reflink subclusters sync-interval timeout allow copy-on-read fetch-size control' dump
grep -q '^addcow_capabilities=.*fua.*extents.*multi_conn' dump
grep -qx 'magic_config_key=file' dump
grep -qx 'thread_model=parallel' dump
grep -qx 'has_extents=1' dump
