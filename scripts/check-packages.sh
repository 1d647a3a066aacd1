#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# scripts/check-packages.sh DIRECTORY
#
# Tries the Debian packages in DIRECTORY, as "make deb" leaves them, on the
# system that it runs on, which is changed by it: run it as root in a clean root
# (mmdebstrap, chroot, with /proc, /dev and /sys), never on a machine in use.
#
#   lintian    no errors, no warnings
#   alone      the packages with just what they depend on
#   use        server, man pages, completion, ./quickstart --installed
#   upgrade    to a higher version, beneath a server that serves
#   remove     nothing is left, nothing else is gone
#
# Goes on after a problem. Prints each, and exits with status 1 if there was one.

set -u -o pipefail
called_in="$PWD"
cd "$(dirname "$(realpath "$0")")/.." || exit 1
# prepare.sh has the list of the packages that quickstart uses, and -e.
. scripts/prepare.sh
. scripts/packaged-files.sh
set +e

case "$#,${1:-}" in
1,--help | 1,-h) sed -n '3,/^$/s/^# \{0,1\}//p' "$0"; exit 0 ;;
1,*) ;;
*) echo "usage: scripts/check-packages.sh DIRECTORY" >&2; exit 2 ;;
esac
[ "$(id -u)" -eq 0 ] || die "run it as root, in a root of its own"
# Somebody's machine, and not a fresh root: there is a boot loader or an init.
[ ! -d /run/systemd/system ] || [ "${ADDCOW_CHECK_HERE:-}" = yes ] ||
    die "this system runs systemd: use a clean root, or set ADDCOW_CHECK_HERE=yes"
directory="$(cd "$called_in" && realpath -e "$1")" || exit 2
source="$PWD"
our_packages=(addcow nbdkit-plugin-addcow)
for package in "${our_packages[@]}"; do
    ! dpkg-query -W "$package" >/dev/null 2>&1 || die "$package is installed already: use a clean root"
done

export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
scratch="$(mktemp -d)"
problems=0
server_pid=
finish() {
    [ -z "$server_pid" ] || { kill "$server_pid"; wait "$server_pid"; } 2>/dev/null
    cd / && rm -rf "$scratch"
}
trap finish EXIT
cd "$scratch" || exit 1

problem() { echo "PROBLEM: $*"; problems=$((problems + 1)); }

# must WHAT COMMAND...: it succeeds; if not, that is a problem, with its output.
must() {
    local what="$1"
    shift
    if "$@" >must.log 2>&1; then return 0; fi
    problem "$what: $*"
    sed 's/^/    /' must.log | tail -n 40
    return 1
}
apt() { apt-get -q -y --no-install-recommends "$@"; }

# tree FILE: all that is in the file systems, but what packaging itself keeps, and
# fusermount3, which quickstart calls.
tree() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /run -o -path "$source" \
        -o -path "$directory" -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log \
        -o -path /root -o -path /var/tmp -o -path /etc/mtab.fuselock \) -prune -o -printf '%p %y %m %u:%g %l\n' | sort >"$1"
}

# versioned_debs SUFFIX: the same packages with a higher version, in ./SUFFIX.
versioned_debs() {
    local deb
    mkdir "$1"
    for deb in "${debs[@]}"; do
        rm -rf unpacked
        dpkg-deb -R "$deb" unpacked &&
            sed -i "s/^Version: .*/&$1/" unpacked/DEBIAN/control &&
            dpkg-deb -b unpacked "$1/$(basename "$deb")" || return 1
    done
}

say "The packages"
debs=()
for package in "${our_packages[@]}"; do
    mapfile -t found < <(find "$directory" -maxdepth 1 -name "${package}_*.deb")
    [ "${#found[@]}" -eq 1 ] || die "$directory has ${#found[@]} packages $package, not one"
    debs+=("${found[0]}")
    echo "${found[0]##*/}: $(dpkg-deb -f "${found[0]}" Version), $(dpkg-deb -f "${found[0]}" Depends)"
done
plugin="$(dpkg-deb --fsys-tarfile "${debs[1]}" | tar -t | sed -n 's,^\.\(/usr/lib/.*/nbdkit-addcow-plugin.so\)$,\1,p')"
for i in 0 1; do
    package="${our_packages[i]}"
    dpkg-deb --fsys-tarfile "${debs[i]}" | tar -t | sed -n -e 's/^\.//' -e '/\/$/d' -e 's/\.gz$//' -e p |
        grep -v -x -E "/usr/share/doc/$package/(copyright|changelog|changelog\.Debian)" | sort >files
    expected_files deb "$package" "${plugin%/*}" >expected
    compare_files expected files "scripts/packages.list, $package" || problem "$package does not have the files that it should"
done

say "lintian"
must "apt-get update" apt update
must "install lintian" apt install lintian
mapfile -t checked < <(find "$directory" -maxdepth 1 -name 'addcow_*.changes')
[ "${#checked[@]}" -gt 0 ] || checked=("${debs[@]}")
lintian --allow-root --fail-on error,warning "${checked[@]}" >lintian.log 2>&1 ||
    problem "lintian is not content"
sed 's/^/    /' lintian.log
lintian --version

say "Alone: with what they depend on, and nothing else"
must "install" apt install "${debs[@]}" || die "they cannot be installed: the rest is not tried"
must "the tool" addcow --version
must "the plugin" nbdkit addcow --dump-plugin
[ "${plugin%/*}" = "$(nbdkit --dump-config | sed -n 's/^plugindir=//p')" ] ||
    problem "the plugin is $plugin, not where nbdkit looks"
for package in "${our_packages[@]}"; do
    must "the files of $package" dpkg --verify "$package"
done
must "purge" apt purge "${our_packages[@]}"

say "Use"
must "install what is used with them" apt install "${use_packages[@]}" \
    nbdkit bash-completion groff-base libc6-dev man-db procps
tree before
must "install" apt install "${debs[@]}"
must "nbdkit --dump-plugin" nbdkit addcow --dump-plugin
nbdkit addcow --dump-plugin | grep -q -x 'addcow_revisions=1 20' || problem "nbdkit addcow --dump-plugin: no revisions"
nbdkit addcow --help | grep -q 'sync-interval=<' || problem "nbdkit addcow --help does not have the parameters"

for page in addcow nbdkit-addcow-plugin; do
    must "man -w $page" man -w "$page"
    MANROFFOPT=-ww MANWIDTH=80 man --warnings -P cat "$page" >page 2>warnings
    [ "$(wc -l <page)" -gt 50 ] || problem "man $page shows $(wc -l <page) lines"
    [ ! -s warnings ] || { problem "man $page has warnings"; head -n 5 warnings; }
done

# The framework loads what is asked for by its name, as at a first TAB.
cat >complete.bash <<'INNER'
. /usr/share/bash-completion/bash_completion
command="$1"
loader="$(complete -p -D | sed -n 's/.* -F \([^ ]*\).*/\1/p')"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*"
COMP_LINE="${COMP_LINE// = /=}" COMP_POINT=${#COMP_LINE}
"$loader" "$command" "" "$command"
function="$(complete -p "$command" | sed -n 's/.* -F \([^ ]*\).*/\1/p')"
COMPREPLY=()
"$function" "$command" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
INNER
# completes OFFER WORD...: bash offers OFFER for the last word.
completes() {
    local offer="$1"
    shift
    bash complete.bash "$@" >offered 2>completion.log
    grep -q -x -- "$offer" offered || { problem "bash does not offer $offer for: $*"; head -n 3 completion.log; }
}
completes flatten addcow ""
completes --force addcow create --f
completes json addcow info --output = j
completes sync-interval= nbdkit addcow sync

mkdir demo
(cd demo && must "quickstart" "$source/quickstart" --installed) || problems=$((problems + 1))

say "Upgrade"
must "make packages of a higher version" versioned_debs +1
truncate -s 1M base.img
must "create" addcow create -q -b base.img -F raw -i disk.raw x.add-cow
nbdkit -f -U "$PWD/sock" -P "$PWD/pid" addcow x.add-cow 2>server.log &
server_pid=$!
for _ in $(seq 100); do [ -s pid ] && break; sleep 0.1; done
uri="nbd+unix:///?socket=$PWD/sock"
must "write before" nbdsh -u "$uri" -c 'h.pwrite(b"a" * 512, 0)'
must "upgrade" apt install "$PWD"/+1/*.deb
for package in "${our_packages[@]}"; do
    [[ "$(dpkg-query -W -f '${Version}' "$package")" = *+1 ]] || problem "$package was not upgraded"
done
must "write after" nbdsh -u "$uri" -c 'h.pwrite(b"b" * 512, 65536)'
kill "$server_pid"
wait "$server_pid" || problem "the server that served while it was upgraded: exit status $?"
server_pid=
must "check" addcow check -q x.add-cow
must "read what was written before and after" nbdkit -U - addcow x.add-cow \
    --run "nbdsh -u \"\$uri\" -c 'assert h.pread(512, 0) == b\"a\" * 512 and h.pread(512, 65536) == b\"b\" * 512'"

say "Remove"
dpkg-query -L "${our_packages[@]}" | sort -u >listed
tree during
must "remove" apt remove "${our_packages[@]}"
while read -r file; do
    [ ! -e "$file" ] || [ -d "$file" ] || problem "$file is left after removing"
done <listed
must "purge" dpkg --purge "${our_packages[@]}"
tree after
diff before after >difference || { problem "purging leaves or takes something"; head -n 20 difference; }
# What was there in between is the packages' own; that the comparison sees it.
comm -13 before during | cut -d' ' -f1 | grep -v -x -F -f listed >strange &&
    { problem "files that belong to no package"; head -n 20 strange; }
[ "$(comm -13 before during | wc -l)" -gt 4 ] || problem "the packages have put nothing into the tree"
left="$(find / -xdev -name '*addcow*' -not -path '/proc/*' -not -path "$source*" -not -path "$directory*" \
    -not -path "$scratch*" -not -path '/var/cache/man/*' -not -path '/root/*' -not -path '/tmp/*' -not -path '/var/tmp/*' 2>/dev/null)"
[ -z "$left" ] || problem "left: $left"

echo
if [ "$problems" -gt 0 ]; then
    echo "$problems problems with the packages"
    exit 1
fi
echo "The packages are good: lintian, installed, used, upgraded, removed."
