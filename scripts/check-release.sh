#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Does it work on another release of Debian? As root:
#
#   scripts/check-release.sh [OPTION...] SUITE [STEP...]
#
# SUITE is bookworm, trixie, sid, ... A fresh, minimal root of it is made with
# mmdebstrap, what is committed here is cloned into it, and there, in a chroot,
# each STEP is done as a newcomer would do it:
#
#   quickstart  ./quickstart
#   tests       ./runtests
#   packages    make deb, then scripts/check-packages.sh: the packages are
#               checked by lintian, installed in another fresh root, used,
#               upgraded, removed
#
# Without a STEP, all of them. What failed is printed, and at the end a line for
# each step; the exit status is 0 if nothing failed. Logs are left in
# release-logs/SUITE.
#
#   --mirror=URL   where packages come from, else where apt gets its own
#   --keep=DIR     make the root in DIR, and leave it there
set -e -u -o pipefail

top="$(cd "$(dirname "$(realpath "$0")")/.." && pwd)"
die() { printf 'check-release.sh: %s\n' "$*" >&2; exit 1; }
usage_error() { printf 'check-release.sh: %s, see --help\n' "$*" >&2; exit 64; }

mirror='' keep='' suite='' steps=()
while [ $# -gt 0 ]; do
    case "$1" in
    --help | -h) sed -n '3,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --mirror=*) mirror="${1#*=}" ;;
    --keep=*) keep="$(realpath -m "${1#*=}")" ;;
    -*) usage_error "unknown option '$1'" ;;
    *) if [ -z "$suite" ]; then suite="$1"; else steps+=("$1"); fi ;;
    esac
    shift
done
[ -n "$suite" ] || usage_error "a SUITE is missing"
[ "${#steps[@]}" -gt 0 ] || steps=(quickstart tests packages)
for step in "${steps[@]}"; do
    case "$step" in
    quickstart | tests | packages) ;;
    *) usage_error "unknown step '$step'" ;;
    esac
done
[ "$(id -u)" -eq 0 ] || die "run it as root: it makes a root file system and mounts in it"
for program in mmdebstrap unshare chroot git; do
    command -v "$program" >/dev/null || die "$program is not installed"
done

# In a mount namespace of its own, so that no mount is left behind, whatever happens.
if [ -z "${ADDCOW_IN_NAMESPACE:-}" ]; then
    export ADDCOW_IN_NAMESPACE=1
    exec unshare --mount --propagation private "$0" ${mirror:+"--mirror=$mirror"} \
        ${keep:+"--keep=$keep"} "$suite" "${steps[@]}"
fi
# shellcheck disable=SC2016  # apt-get expands them
[ -n "$mirror" ] || mirror="$(apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(REPO_URI)' |
    awk '$1 == "Debian" && $2 == "main" { print $3; exit }')"
[ -n "$mirror" ] || die "apt does not say where packages come from: give --mirror=URL"

scratch="$(mktemp -d "${TMPDIR:-/var/tmp}/addcow-release.XXXXXX")"
# shellcheck disable=SC2317,SC2329  # the trap calls it
clean_up() {
    local root
    for root in "${roots[@]}"; do umount -R -l "$root"; done
    cd / && rm -rf --one-file-system "$scratch"
}
roots=()
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
logs="$top/release-logs/$suite"
mkdir -p "$logs"

# make_root DIR: a minimal system of the suite. The mirror's lists may be older
# than what the suite's own dates allow.
make_root() {
    mmdebstrap --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
        "$suite" "$1" "$mirror" >"$logs/root.log" 2>&1 ||
        { tail -n 20 "$logs/root.log" >&2; die "no root of $suite from $mirror"; }
    # A mount point, so that the tests can make mount namespaces in the chroot.
    mount --bind "$1" "$1"
    roots+=("$1")
    mount -t proc proc "$1/proc"
    mount --rbind /sys "$1/sys"
    mount --rbind /dev "$1/dev"
    mount -t tmpfs tmpfs "$1/run"
    cp /etc/resolv.conf "$1/etc/resolv.conf"
}

# inside ROOT COMMAND: a shell command in a root, in its clone.
inside() {
    chroot "$1" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive bash -c "cd /addcow && $2"
}

root="${keep:-$scratch/root}"
[ ! -e "$root" ] || die "$root is there already"
make_root "$root"
git -c safe.directory='*' clone -q "$top" "$root/addcow"
git -C "$top" diff --quiet HEAD || echo "check-release.sh: what is not committed is not looked at" >&2
echo "$suite: $(git -C "$root/addcow" log -1 --format='%h %s')"

packages() {
    # shellcheck disable=SC2016  # for the shell inside
    inside "$root" '. scripts/prepare.sh
        install_packages "${build_packages[@]}" "${use_packages[@]}" "${deb_packages[@]}"
        configure_tree && make deb' || return
    make_root "$scratch/clean"
    mkdir "$scratch/clean/addcow"
    cp -r "$root/addcow/"{quickstart,README.md,scripts,packages} "$scratch/clean/addcow"
    inside "$scratch/clean" 'scripts/check-packages.sh packages/deb'
}

summary=() failed=0
for step in "${steps[@]}"; do
    started=$SECONDS status=0
    case "$step" in
    quickstart) inside "$root" ./quickstart ;;
    tests) inside "$root" ./runtests ;;
    packages) packages ;;
    esac >"$logs/$step.log" 2>&1 || status=$?
    if [ "$status" -ne 0 ]; then
        failed=1
        echo "--- the end of $logs/$step.log:"
        tail -n 60 "$logs/$step.log"
    fi
    summary+=("$suite: $step: $([ "$status" -eq 0 ] && echo passed || echo failed) in $((SECONDS - started)) s: $(tail -n 1 "$logs/$step.log")")
done
printf '%s\n' "" "${summary[@]}"
exit "$failed"
