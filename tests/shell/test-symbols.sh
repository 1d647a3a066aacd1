#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The server loads plugins with RTLD_GLOBAL: ours shows plugin_init and its
# debug flags, and no other symbol.

. "$(dirname "$0")/../functions.sh"
requires nm

plugin="$ADDCOW_BUILDDIR/plugin/.libs/nbdkit-addcow-plugin.so"
nm -D --defined-only "$plugin" | awk '{print $3}' | sort >symbols
grep -qx plugin_init symbols || fail "plugin_init is not exported"
if grep -vxE 'plugin_init|addcow_debug_[a-z]+' symbols; then
    fail "the plugin exports the symbols above"
fi
