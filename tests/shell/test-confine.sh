#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# confine=DIR and --confine: what the header names must lie beneath DIR once
# symbolic links are followed. Also: what is no file is refused without waiting.

. "$(dirname "$0")/../functions.sh"
requires nbdinfo

mkdir -p vm/sub outside
random_file vm/base.img 200000
random_file outside/secret 200000
ln -s ../outside vm/way-out
ln -s "$scratch/vm/base.img" vm/absolute
ln -s base.img vm/relative

# make NAME IMAGE BACKING: the add-cow file vm/NAME.
make() {
    [ -e "vm/$2" ] || [ "${2:0:1}" = / ] || truncate -s 200000 "vm/$2"
    addcow create -q --reuse-image -b "$3" -F raw -i "$2" "vm/$1"
}
serve() { nbdkit -U - addcow "$@" --run 'nbdinfo --size "$uri"' >/dev/null; }
# refused WHY COMMAND...
refused() {
    local why="$1" before after
    shift
    before="$(cat vm/*.add-cow outside/* | sha256sum)"
    expect_fails 1 "$@"
    expect_equal 1 "$(wc -l <stderr)" "lines of: $*: $(cat stderr)"
    grep -q -- "$why" stderr || fail "$*: expected '$why': $(cat stderr)"
    after="$(cat vm/*.add-cow outside/* | sha256sum)"
    expect_equal "$before" "$after" "files after: $*"
}
serve_refused() { refused "$1" "$ADDCOW_RUN" nbdkit -U - addcow "${@:2}" --run 'touch started'; }
# all_refuse X NAME: plugin and tool, each naming the file and the directory.
all_refuse() {
    local why="names the file '$2', which is not beneath $scratch/vm"
    serve "vm/$1" || fail "$1 should be served without confine="
    serve_refused "$why" "vm/$1" confine=vm
    refused "$why" addcow map --confine=vm "vm/$1"
    refused "$why" addcow check --confine=vm "vm/$1"
    refused "$why" addcow check -r all --confine=vm "vm/$1"
    refused "$why" addcow flatten --confine=vm "vm/$1"
    [ ! -e started ] || fail "it was served: $1"
}

make good.add-cow disk.raw base.img
serve vm/good.add-cow confine=vm
serve vm/good.add-cow "confine=$scratch/vm"
serve vm/good.add-cow confine=.
(cd vm && serve good.add-cow confine=.) || fail "confine=. in the directory itself"
addcow info --confine=vm vm/good.add-cow >/dev/null
addcow map --confine=vm vm/good.add-cow >/dev/null
addcow check -q --confine=vm vm/good.add-cow
make link.add-cow disk.raw relative
serve vm/link.add-cow confine=vm || fail "a symbolic link inside"
make named.add-cow "$scratch/vm/disk.raw" "$scratch/vm/base.img"
serve vm/named.add-cow confine=vm || fail "an absolute name beneath the directory"
ln -s vm alias
make alias.add-cow "$scratch/alias/disk.raw" base.img
serve vm/alias.add-cow "confine=$scratch/alias" || fail "an absolute name as the user spells the directory"
make sub/up.add-cow ../disk.raw ../base.img
serve vm/sub/up.add-cow confine=vm || fail "a way up that stays inside"

make dots.add-cow disk.raw ../outside/secret
all_refuse dots.add-cow ../outside/secret
make full.add-cow disk.raw "$scratch/outside/secret"
all_refuse full.add-cow "$scratch/outside/secret"
make way-out.add-cow disk.raw way-out/secret
all_refuse way-out.add-cow way-out/secret
make inner-dots.add-cow disk.raw sub/../../outside/secret
all_refuse inner-dots.add-cow sub/../../outside/secret
make absolute.add-cow disk.raw absolute
all_refuse absolute.add-cow absolute
make image.add-cow way-out/secret base.img
all_refuse image.add-cow way-out/secret
refused "not beneath" addcow info --confine=vm vm/image.add-cow
serve_refused "not beneath" vm/sub/up.add-cow confine=vm/sub
exec 8<vm/base.img
make magic.add-cow disk.raw /dev/fd/8
exec 8<&-
serve_refused "not beneath" vm/magic.add-cow confine=vm
serve_refused "nowhere: the directory of confine= cannot be found: No such file" vm/good.add-cow confine=nowhere
# What the user names is the user's business.
serve vm/dots.add-cow confine=vm backing=outside/secret || fail "backing= is not from the header"
serve_refused "not beneath" vm/image.add-cow confine=vm backing=outside/secret

# A file that is none: refused at once, whatever it would do when opened.
mkfifo vm/fifo
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("vm/socket")'
ln -s /dev/zero vm/zero
for odd in fifo socket zero; do
    expect_fails 1 timeout 20 "$ADDCOW_RUN" nbdkit -U - addcow vm/good.add-cow "backing=vm/$odd" --run true
    grep -q "vm/$odd: not a regular file or a block device" stderr || fail "$odd: $(cat stderr)"
    expect_fails 1 timeout 20 "$ADDCOW_RUN" nbdkit -U - addcow vm/good.add-cow "image=vm/$odd" --run true
    grep -q "vm/$odd: not a regular file or a block device" stderr || fail "$odd: $(cat stderr)"
    expect_fails 1 timeout 20 "$ADDCOW_RUN" addcow info "vm/$odd"
    grep -q "not a regular file or a block device" stderr || fail "$odd: $(cat stderr)"
done
