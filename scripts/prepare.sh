# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced by ./quickstart and ./runtests: installs the Debian packages that
# are missing and builds the tree in place. Both are silent where there is
# nothing to do.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the lists are for the scripts that source this

set -e -u -o pipefail

build_packages=(
    autoconf autoconf-archive automake g++ gcc libc6-dev libtool make perl pkgconf xz-utils
    nbdkit nbdkit-plugin-dev libnbd-dev libgtest-dev
    libcli11-dev libexpected-dev libfmt-dev libxxhash-dev nlohmann-json3-dev
)
use_packages=(e2fsprogs fuse3 jq libnbd-bin python3-libnbd qemu-utils)
test_packages=(
    acl bash-completion binutils btrfs-progs clang clang-format-19 exfat-fuse exfatprogs fio git
    gnutls-bin
    libclang-rt-dev libfuse3-dev shellcheck util-linux valgrind xfsprogs
)
deb_packages=(build-essential debhelper dpkg-dev)

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
usage_error() { printf '%s: %s, see ./%s --help\n' "${0##*/}" "$*" "${0##*/}" >&2; exit 2; }

# install_packages PACKAGE...: those that are missing, with apt.
install_packages() {
    local package missing=() as_root=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "no apt-get here; on another system, install what these packages are called there: ${missing[*]}"
    say "Installing ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "run it as root once, or install sudo: packages are missing"
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# configure_tree [CONFIGURE-ARGUMENT...]: this folder, which is the top of the
# tree. One that is configured keeps its configuration, unless it lacks what
# --enable-developer brings and that is wanted: then all is made anew.
configure_tree() {
    if [ ! -x configure ]; then
        say "Making ./configure"
        autoreconf -fi >autoreconf.log 2>&1 || { cat autoreconf.log >&2; die "autoreconf failed"; }
    fi
    if [ -f Makefile ] && [ "${1:-}" = --enable-developer ] &&
        ! ./config.status --config | grep -e "--enable-developer" >/dev/null; then
        say "Configured for use, not for tests: starting afresh"
        make -s distclean
    fi
    if [ ! -f Makefile ]; then
        say "Configuring"
        ./configure --quiet "$@"
    fi
}

# build [CONFIGURE-ARGUMENT...]: the same, and makes it.
build() {
    configure_tree "$@"
    say "Building"
    make -s -j"$(nproc)"
}
