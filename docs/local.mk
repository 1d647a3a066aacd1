# SPDX-License-Identifier: LGPL-2.1-or-later
# The man pages, made from POD, and the texts that are installed as they are.

man_pods = \
	plugin/nbdkit-addcow-plugin.pod \
	tools/addcow.pod

man1_MANS += $(man_pods:.pod=.1)

# Remade when the version changes. Written beside and renamed, so that a
# failure leaves no half page.
SUFFIXES = .pod .1
.pod.1:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && \
	$(POD2MAN) --errors=die --section=1 --name='$(*F)' --center=ADDCOW \
	  --release='addcow $(PACKAGE_VERSION)' $< $@.tmp && \
	mv -f $@.tmp $@

$(man1_MANS): configure.ac

CLEANFILES += $(man1_MANS)
EXTRA_DIST += $(man_pods) CONTRIBUTING.md SECURITY.md docs/map.svg

dist_doc_DATA += \
	CHANGELOG.md \
	LICENSE \
	docs/architecture.md \
	docs/backing.md \
	docs/concurrency.md \
	docs/control.md \
	docs/durability.md \
	docs/format.md \
	docs/performance.md \
	docs/recipes.md \
	docs/scaling.md \
	docs/security.md \
	docs/testing.md
