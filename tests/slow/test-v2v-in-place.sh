#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The conversion in place of docs/recipes.md, as printed there: dropped and made again, then
# kept. The source stays as it was, and what is kept boots without addcow.

# shellcheck source=tests/functions.sh
source "$(dirname "$0")/../functions.sh"
requires virt-v2v-in-place guestfish qemu-system-x86_64 nbdcopy e2fsck python3
# shellcheck source=tests/slow/guest.sh
source "$srcdir/tests/slow/guest.sh"
take_guest

python3 - "$srcdir/docs/recipes.md" "$scratch" <<'END_OF_PYTHON'
import re, sys
for name, text in re.findall(r"^```sh (convert\S*)\n(.*?)^```$", open(sys.argv[1]).read(), re.M | re.S):
    open(f"block.{name}", "w").write(text.replace("/srv/", sys.argv[2] + "/srv/"))
END_OF_PYTHON
mkdir -p bin srv/imports srv/vm03
for program in addcow nbdkit; do
    printf '#!/bin/sh\nPATH="%s"\nexec "%s" %s "$@"\n' "$PATH" "$ADDCOW_RUN" "$program" >"bin/$program"
done
chmod +x bin/*
block() { PATH="$scratch/bin:$PATH" bash -e -u -o pipefail "block.$1"; }

cp --sparse=always "$base" srv/imports/vm03.img
guestfish --format=raw -a srv/imports/vm03.img -i write /etc/hostname "addcow-migrated"
source_sum="$(sha256sum <srv/imports/vm03.img)"
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
sed -i "s/10809/$port/" block.convert
guest_xml "name='localhost' port='$port'"
mv guest.xml srv/vm03/vm03.xml

# Killed in its middle, it is dropped.
sed 's/virt-v2v-in-place/timeout -s KILL 20 &/' block.convert >block.convert-killed
(expect_fails 137 block convert-killed) >killed.log 2>&1 || { cat killed.log >&2; fail "the conversion that is killed"; }
[ -e srv/vm03/x.add-cow ] || fail "$(cat killed.log)"
block convert-drop
expect_equal "$source_sum" "$(sha256sum <srv/imports/vm03.img)" "the source's hash"

block convert >v2v.log 2>&1 || { cat v2v.log >&2; fail "the conversion"; }
grep '^\[' v2v.log
has 'Finishing off' <v2v.log || { cat v2v.log >&2; fail "the conversion did not finish"; }
addcow info srv/vm03/x.add-cow
expect_equal "$source_sum" "$(sha256sum <srv/imports/vm03.img)" "the source's hash"
block convert-keep
rm srv/imports/vm03.img
e2fsck -fn "srv/vm03/disk.raw?offset=$partition" || fail "the file system is not clean"
boots srv/vm03/disk.raw
