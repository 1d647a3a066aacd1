// SPDX-License-Identifier: LGPL-2.1-or-later
//
// nbdkit's plugin header, with the version of the interface that we speak.

#ifndef ADDCOW_PLUGIN_NBDKIT_API_H
#define ADDCOW_PLUGIN_NBDKIT_API_H

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#endif  // ADDCOW_PLUGIN_NBDKIT_API_H
