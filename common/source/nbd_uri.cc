// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See nbd_uri.h.

#include "common/source/nbd_uri.h"

#include <fmt/format.h>
#include <libnbd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace addcow {

namespace {

constexpr std::array<std::string_view, 4> kSchemes = {"nbd://", "nbds://", "nbd+unix://",
                                                      "nbds+unix://"};
constexpr unsigned kNbdPort = 10809;  // where a URI says none

// The parameters of a URI that are paths.
constexpr std::array<std::string_view, 3> kPaths = {"socket", "tls-certificates",
                                                    "tls-psk-file"};

// What stands after the path: a name, and perhaps a value, neither escaped any more.
struct UriParameter {
  std::string name;
  std::string value;
  bool has_value = false;
};

struct UriParts {
  std::string scheme;
  std::optional<std::string> user;
  std::string host;  // in lower case
  unsigned port = 0;
  std::string export_name;
  std::vector<UriParameter> parameters;
};

// Without its %XX; what is none stays, as in libnbd (libxml2).
std::string Unescaped(std::string_view text) {
  std::string plain;
  for (size_t at = 0; at < text.size(); at++) {
    unsigned code = 0;
    const char* const digits = text.data() + at + 1;
    if (text[at] == '%' && at + 2 < text.size() &&
        std::from_chars(digits, digits + 2, code, 16).ptr == digits + 2) {
      plain += static_cast<char>(code);
      at += 2;
    } else {
      plain += text[at];
    }
  }
  return plain;
}

std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    const bool stays = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '/';
    escaped +=
        stays ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return escaped;
}

// Cut as libnbd does it: at "&", or at ";" where no "&" follows.
std::vector<UriParameter> ParametersOf(std::string_view query) {
  std::vector<UriParameter> parameters;
  while (!query.empty()) {
    size_t end = query.find('&');
    if (end == std::string_view::npos) end = query.find(';');
    const std::string_view one = query.substr(0, end);
    query.remove_prefix(end == std::string_view::npos ? query.size() : end + 1);
    const size_t equals = one.find('=');
    if (one.empty() || equals == 0) continue;
    const bool has_value = equals != std::string_view::npos;
    parameters.push_back({.name = Unescaped(one.substr(0, equals)),
                          .value = has_value ? Unescaped(one.substr(equals + 1)) : "",
                          .has_value = has_value});
  }
  return parameters;
}

// `authority`: [USER@][HOST][:PORT]
void TakeAuthority(std::string_view authority, UriParts& parts) {
  if (const size_t at = authority.rfind('@'); at != std::string_view::npos) {
    parts.user = Unescaped(authority.substr(0, at));
    authority.remove_prefix(at + 1);
  }
  // An address of IPv6 stands in brackets, and has colons.
  const size_t bracket = authority.rfind(']');
  const size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  const std::string_view port =
      colon == std::string_view::npos ? "" : authority.substr(colon + 1);
  parts.host = Unescaped(authority.substr(0, colon));
  std::ranges::transform(parts.host, parts.host.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  if (parts.host.empty()) parts.host = "localhost";
  (void)std::from_chars(port.data(), port.data() + port.size(), parts.port);
  if (parts.port == 0) parts.port = kNbdPort;
}

UriParts PartsOfUri(std::string_view uri) {
  constexpr std::string_view kMark = "://";
  uri = uri.substr(0, uri.find('#'));
  UriParts parts;
  const size_t mark = uri.find(kMark);
  if (mark == std::string_view::npos) return parts;
  parts.scheme = uri.substr(0, mark);
  uri.remove_prefix(mark + kMark.size());
  if (const size_t query = uri.find('?'); query != std::string_view::npos) {
    parts.parameters = ParametersOf(uri.substr(query + 1));
    uri = uri.substr(0, query);
  }
  const size_t slash = uri.find('/');
  TakeAuthority(uri.substr(0, slash), parts);
  if (slash != std::string_view::npos) parts.export_name = Unescaped(uri.substr(slash + 1));
  return parts;
}

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
  for (const UriParameter& parameter : PartsOfUri(uri).parameters) {
    if (!parameter.has_value || parameter.value.starts_with('/')) continue;
    if (std::ranges::find(kPaths, parameter.name) != kPaths.end())
      return Fail(Error::Because(
          EINVAL, uri,
          fmt::format("{}= is not an absolute path (a server has no working directory)",
                      parameter.name)));
  }
  return {};
}

std::string NormalNbdUri(const std::string& uri) {
  const UriParts parts = PartsOfUri(uri);
  std::string text = parts.scheme + "://";
  if (parts.user) text += Escaped(*parts.user) + "@";
  // A Unix socket is a parameter.
  if (!parts.scheme.ends_with("+unix")) text += fmt::format("{}:{}", parts.host, parts.port);
  text += "/" + Escaped(parts.export_name);
  std::map<std::string, std::string> last;  // of those with the same name the last one counts
  for (const UriParameter& parameter : parts.parameters) last[parameter.name] = parameter.value;
  char before = '?';
  for (const auto& [name, value] : last) {
    text += before + Escaped(name) + "=" + Escaped(value);
    before = '&';
  }
  return text;
}

std::unique_ptr<NbdServer> ServerOfUri(std::string uri) {
  return std::make_unique<UriServer>(std::move(uri));
}

}  // namespace addcow
