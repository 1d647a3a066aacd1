#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# When the last cluster becomes allocated, ALL_ALLOCATED is set at the next
# flush or close; from then on the backing file may be gone.

. "$(dirname "$0")/../functions.sh"
requires nbdsh jq

all_allocated() { addcow info --output=json "$1" | jq '."all-allocated"'; }

# A byte in each subcluster of the other half. The last cluster has one.
change='
for i in range(17): h.pwrite(b"y", 131072 + i * 4096)
'
random_file base.img 200000
for how in flush close; do
    addcow create -q --force --discard -b base.img -F raw -i "$how.raw" x.add-cow
    expect_equal false "$(all_allocated x.add-cow)" "after create"
    start_server sock addcow x.add-cow sync-interval=0
    nbdsh -u "$(uri sock)" -c 'h.pwrite(b"x" * 131072, 0)' -c 'h.flush()'
    expect_equal false "$(all_allocated x.add-cow)" "after half of the disk"
    if [ "$how" = flush ]; then
        nbdsh -u "$(uri sock)" -c "$change" -c 'h.flush()'
        expect_equal true "$(all_allocated x.add-cow)" "after the flush"
    else
        nbdsh -u "$(uri sock)" -c "$change"
    fi
    stop_server "$server_pid"
    expect_equal true "$(all_allocated x.add-cow)" "after $how"
    addcow check x.add-cow
    mv base.img gone.img
    nbdkit -r -U - addcow x.add-cow --run 'nbdcopy "$uri" got.img'
    cmp got.img "$how.raw" || fail "the image file alone is not the disk"
    for i in 0 8 16; do
        cmp -i $((131073 + i * 4096)) -n 3391 gone.img got.img ||
            fail "bytes that nobody wrote have changed"
    done
    mv gone.img base.img
done

# Read only, the flag is not set though every bit is.
cp --sparse=never x.add-cow y.add-cow
printf '\003' | dd of=y.add-cow bs=1 seek=28 conv=notrunc status=none
before="$(sha y.add-cow)"
nbdkit -r -U - addcow y.add-cow --run 'nbdsh -u "$uri" -c "h.flush()"'
expect_equal "$before" "$(sha y.add-cow)" "-r wrote to the add-cow file"
# A writer's flush sets it.
nbdkit -U - addcow y.add-cow --run 'nbdsh -u "$uri" -c "h.flush()"'
expect_equal true "$(all_allocated y.add-cow)" "after a writer's flush"
