// SPDX-License-Identifier: LGPL-2.1-or-later
//
// NBD URIs: names of disks that a server has. Source: the NBD URI specification,
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md

#ifndef ADDCOW_COMMON_SOURCE_NBD_URI_H
#define ADDCOW_COMMON_SOURCE_NBD_URI_H

#include <memory>
#include <string>
#include <string_view>

#include "common/base/error.h"
#include "common/source/nbd_server.h"

namespace addcow {

// Whether a name is one: it begins with nbd://, nbds://, nbd+unix:// or nbds+unix://. Any
// other name is a file's, as one with "./" before it is.
bool IsNbdUri(std::string_view name);

// EINVAL where it depends on a working directory: servers have none.
Status CheckNbdUri(const std::string& uri);

// The same for every spelling of one URI, as libnbd understands it, to compare by: escaped or
// not, with the default port or without, with its parameters in any order. Hosts are not looked
// up, so two names of one stay two.
std::string NormalNbdUri(const std::string& uri);

// The server that the URI names. libnbd reads it: RFC 3986, TLS parameters.
std::unique_ptr<NbdServer> ServerOfUri(std::string uri);

}  // namespace addcow

#endif  // ADDCOW_COMMON_SOURCE_NBD_URI_H
