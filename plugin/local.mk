# SPDX-License-Identifier: LGPL-2.1-or-later

plugin_LTLIBRARIES = plugin/nbdkit-addcow-plugin.la
plugin_nbdkit_addcow_plugin_la_SOURCES = \
	plugin/boundary.h \
	plugin/control.cc plugin/control.h \
	plugin/nbdkit_api.h \
	plugin/options.cc plugin/options.h \
	plugin/plugin.cc \
	plugin/server.cc plugin/server.h \
	plugin/server_arguments.cc plugin/server_arguments.h \
	plugin/server_fill.cc plugin/server_fill.h
# -DHAVE_VFPRINTF_PERCENT_M: turns on the format check of nbdkit_error.
plugin_nbdkit_addcow_plugin_la_CPPFLAGS = $(AM_CPPFLAGS) $(NBDKIT_CFLAGS) \
	-DHAVE_VFPRINTF_PERCENT_M=1
plugin_nbdkit_addcow_plugin_la_LDFLAGS = -module -avoid-version -shared \
	-Wl,--version-script=$(srcdir)/plugin/plugin.syms
plugin_nbdkit_addcow_plugin_la_LIBADD = common/libcontrol.la common/libengine.la
plugin_nbdkit_addcow_plugin_la_DEPENDENCIES = common/libcontrol.la common/libengine.la plugin/plugin.syms

EXTRA_DIST += plugin/plugin.syms

# libtool's .la file is of no use to nbdkit. Without it "uninstall" does not
# know what it had installed.
install-data-hook:
	rm -f "$(DESTDIR)$(plugindir)/nbdkit-addcow-plugin.la"
uninstall-hook:
	rm -f "$(DESTDIR)$(plugindir)/nbdkit-addcow-plugin.so"
