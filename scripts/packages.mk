# SPDX-License-Identifier: LGPL-2.1-or-later
# "make deb" and "make rpm": packages out of the release archive, which has
# debian/ and addcow.spec, in packages/ of the build tree.

EXTRA_DIST += \
	addcow.spec \
	debian/addcow.install \
	debian/changelog \
	debian/control \
	debian/copyright \
	debian/nbdkit-plugin-addcow.install \
	debian/not-installed \
	debian/rules \
	debian/source/format \
	debian/tests/control \
	scripts/check-packages.sh \
	scripts/check-release.sh \
	scripts/check-rpm.sh \
	scripts/packaged-files.sh \
	scripts/packages.list

.PHONY: deb rpm check-package clean-packages

# A package is built with the options of its own system, not with those that
# this tree's make was given.
packager_env = env -u MAKEFLAGS -u MFLAGS -u MAKEOVERRIDES -u MAKELEVEL -u DESTDIR

# dpkg-source wants the release without debian/, which is what it adds.
deb: dist
	@command -v dpkg-buildpackage >/dev/null && command -v dh >/dev/null || \
	  { echo 'make deb: install dpkg-dev and debhelper' >&2; exit 1; }
	rm -rf packages/deb
	$(MKDIR_P) packages/deb
	xz -dc $(distdir).tar.xz | (cd packages/deb && tar -xf -)
	cd packages/deb && \
	tar -cf - --exclude=$(distdir)/debian $(distdir) | xz >$(PACKAGE)_$(VERSION).orig.tar.xz && \
	cd $(distdir) && $(packager_env) dpkg-buildpackage --no-sign
	@echo 'The packages are in packages/deb:' && ls packages/deb/*.deb

# Where rpm does not manage the system, it knows nothing of what is installed.
rpm: dist
	@command -v rpmbuild >/dev/null || { echo 'make rpm: install rpmbuild' >&2; exit 1; }
	rm -rf packages/rpm
	$(MKDIR_P) packages/rpm/SOURCES
	cp $(distdir).tar.xz packages/rpm/SOURCES
	nodeps=; rpm -q rpm >/dev/null 2>&1 || nodeps=--nodeps; \
	$(packager_env) rpmbuild -ba $$nodeps --define '_topdir $(abs_builddir)/packages/rpm' $(srcdir)/addcow.spec
	@$(srcdir)/scripts/check-rpm.sh packages/rpm
	@echo 'The packages are in packages/rpm:' && find packages/rpm -name '*.rpm'

# What a package's build runs: the real server and tool, with just what the build
# has installed, where nothing but a temporary folder is needed; the golden images
# find a machine of the other byte order. It is a minute. The GoogleTest programs
# take longer to compile than all that is packaged, and are a developer's.
package_tests = \
	tests/shell/test-clean-stop.sh \
	tests/shell/test-help-and-dump-plugin.sh \
	tests/shell/test-install.sh \
	tests/shell/test-man-pages.sh \
	tests/shell/test-nbdcopy.sh \
	tests/shell/test-nbdinfo-map.sh \
	tests/shell/test-packages.sh \
	tests/shell/test-qemu-io.sh \
	tests/shell/test-read-only.sh \
	tests/shell/test-refusals.sh \
	tests/shell/test-refusals-acow.sh \
	tests/shell/test-symbols.sh \
	tests/shell/test-tool-check.sh \
	tests/shell/test-tool-create.sh \
	tests/shell/test-tool-flatten.sh \
	tests/shell/test-tool-info-map.sh \
	tests/shell/test-vectors.sh \
	tests/shell/test-vectors-acow.sh
check-package: all
	$(MAKE) $(AM_MAKEFLAGS) check check_PROGRAMS= check_LTLIBRARIES= TESTS='$(package_tests)'

clean-packages:
	rm -rf packages
