// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See nbd_uri.h.

#include "common/source/nbd_uri.h"

#include <fmt/format.h>
#include <libnbd.h>

#include <array>
#include <utility>

namespace addcow {

namespace {

constexpr std::array<std::string_view, 4> kSchemes = {"nbd://", "nbds://", "nbd+unix://",
                                                      "nbds+unix://"};
// The parameters of a URI that are paths.
constexpr std::array<std::string_view, 3> kPaths = {"socket", "tls-certificates",
                                                    "tls-psk-file"};

class UriServer final : public NbdServer {
 public:
  explicit UriServer(std::string uri) : uri_(std::move(uri)) {}

  std::string name() const override { return uri_; }
  int Connect(nbd_handle* handle, size_t) override {
    // Keys and certificates are files.
    if (nbd_set_uri_allow_local_file(handle, true) == -1) return -1;
    return nbd_aio_connect_uri(handle, uri_.c_str());
  }

 private:
  const std::string uri_;
};

}  // namespace

bool IsNbdUri(std::string_view name) {
  for (const std::string_view scheme : kSchemes)
    if (name.starts_with(scheme)) return true;
  return false;
}

Status CheckNbdUri(const std::string& uri) {
  const std::string_view all = uri;
  for (size_t at = all.find('?'); at != std::string_view::npos;) {
    const size_t next = all.find_first_of("&;", at + 1);
    const std::string_view parameter = all.substr(at + 1, next - at - 1);
    at = next;
    const size_t equals = parameter.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view value = parameter.substr(equals + 1);
    const bool absolute =
        value.starts_with('/') || value.starts_with("%2F") || value.starts_with("%2f");
    for (const std::string_view path : kPaths)
      if (parameter.substr(0, equals) == path && !absolute)
        return Fail(Error::Because(
            EINVAL, uri,
            fmt::format("{}= is not an absolute path (a server has no working directory)",
                        path)));
  }
  return {};
}

std::unique_ptr<NbdServer> ServerOfUri(std::string uri) {
  return std::make_unique<UriServer>(std::move(uri));
}

}  // namespace addcow
