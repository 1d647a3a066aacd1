#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# debian/ and addcow.spec say what "make install" installs and what the build
# needs, file by file and package by package: what is new cannot be forgotten.

. "$(dirname "$0")/../functions.sh"
. "$srcdir/scripts/packaged-files.sh"
requires make
wrong=0
complain() { echo "$*" >&2; wrong=1; }

# What "make install" installs for a package: below /usr.
plugindir=/usr/lib/some-arch/nbdkit/plugins
make -C "$ADDCOW_BUILDDIR" install DESTDIR="$scratch/root" prefix=/usr exec_prefix=/usr bindir=/usr/bin \
    datarootdir=/usr/share datadir=/usr/share mandir=/usr/share/man docdir=/usr/share/doc/addcow \
    bashcompdir=/usr/share/bash-completion/completions plugindir="$plugindir" >install.log 2>&1 ||
    { cat install.log >&2; fail "make install"; }
(cd root && find . ! -type d | sed 's/^\.//' | sort) >installed
[ "$(wc -l <installed)" -gt 6 ] || { cat installed >&2; fail "make install has installed too little"; }
expected_files all '*' "$plugindir" >patterns
compare_files patterns installed scripts/packages.list >&2 || wrong=1

# The packages of debian/control, and their lists, which name files as the shell
# does. What no package has is in not-installed.
debs="$(sed -n 's/^Package: //p' "$srcdir/debian/control" | sort)"
expect_equal "$(awk '!/^#/ && $1 != "-" { print $1 }' "$packages_list" | sort -u)" "$debs" "packages of debian/control"
for package in $debs -; do
    list="$srcdir/debian/$package.install"
    [ "$package" != - ] || list="$srcdir/debian/not-installed"
    sed -e '/^#/d' -e '/^$/d' -e 's,^,/,' "$list" >named
    expected_files deb "$package" "$plugindir" >patterns
    matching patterns installed >belongs
    compare_files named belongs "${list#"$srcdir"/}" >&2 || wrong=1
done

# The same of addcow.spec: its %files, with its macros replaced, and what it
# removes after "make install".
spec_path() {
    sed -e "s,%{plugindir},$plugindir," -e 's,%{_bindir},/usr/bin,' -e 's,%{_mandir},/usr/share/man,' \
        -e 's,%{_docdir},/usr/share/doc,' -e 's,%{bash_completions_dir},/usr/share/bash-completion/completions,' \
        -e 's,%{buildroot},,' -e 's,%{name},addcow,' -e 's,\.1\*$,.1,'
}
rpms="$(awk '!/^#/ { print $2 }' "$packages_list" | sort -u)"
for package in $rpms; do
    case "$package" in
    -) sed -n 's/^rm \(%{buildroot}.*\)/\1/p' "$srcdir/addcow.spec" ;;
    addcow) awk '/^%files$/ { on = 1; next } /^%(files|changelog)/ { on = 0 } on' "$srcdir/addcow.spec" ;;
    addcow-*) awk -v name="${package#addcow-}" '/^%/ && !/^%[{dl]/ { on = 0 } $1 == "%files" && $2 == name { on = 1; next } on' "$srcdir/addcow.spec" ;;
    *) awk -v name="$package" '/^%/ && !/^%[{dl]/ { on = 0 } $1 == "%files" && $3 == name { on = 1; next } on' "$srcdir/addcow.spec" ;;
    esac | sed -e '/^%license LICENSE$/d' -e '/^%dir /d' -e '/^$/d' | spec_path >named
    expected_files rpm "$package" "$plugindir" >patterns
    matching patterns installed >belongs
    compare_files named belongs "addcow.spec, $package" >&2 || wrong=1
done

# The version.
version="$(sed -n 's/^AC_INIT(\[addcow\], \[\(.*\)\])$/\1/p' "$srcdir/configure.ac")"
[ -n "$version" ] || fail "no version in configure.ac"
expect_equal "$version" "$(sed -n '1s/^addcow (\(.*\)-[^-]*) .*/\1/p' "$srcdir/debian/changelog")" "version in debian/changelog"
expect_equal "$version" "$(sed -n 's/^Version: *//p' "$srcdir/addcow.spec")" "Version in addcow.spec"
sed -n '/^%changelog/,$p' "$srcdir/addcow.spec" | has -- " - $version-" || fail "addcow.spec's %changelog has no $version"

# What is needed to build, and to test: debian/control against prepare.sh. dpkg-dev
# and debhelper bring the first line's, and the GoogleTest programs are not built.
brought=" autoconf automake g++ gcc libc6-dev libtool make xz-utils "
brought+="libgtest-dev "
# shellcheck disable=SC1091
. "$srcdir/scripts/prepare.sh"
sed -n '/^Build-Depends:/,/^[^ ]*:/p' "$srcdir/debian/control" | sed -e '1s/^[^:]*://' -e '/^[^ ]/d' |
    sed -e 's/^ //' -e 's/,$//' >build-depends
sed -e '/debhelper-compat/d' -e '/<!nocheck>/d' -e 's/ .*//' build-depends | sort >control.build
sed -n 's/ <!nocheck>//p' build-depends | sort >control.check
[ -s control.build ] && [ -s control.check ] || fail "debian/control: no Build-Depends found"
for package in "${build_packages[@]}"; do
    [[ $brought = *" $package "* ]] || echo "$package"
done | sort >prepare.build
diff control.build prepare.build >&2 ||
    complain "debian/control's Build-Depends (<) are not build_packages of scripts/prepare.sh (>)"
while read -r package; do
    [[ " ${use_packages[*]} " = *" $package "* ]] || complain "debian/control: $package is not among use_packages"
done <control.check
depends=" $(sed -n 's/^Depends: //p' "$srcdir/debian/tests/control" | tr -d ,) "
for package in "${use_packages[@]}"; do
    [[ $depends = *" $package "* ]] || complain "debian/tests/control does not have $package, which quickstart uses"
done
[ "$wrong" -eq 0 ] || fail "see above"
