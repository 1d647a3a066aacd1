// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See geometry.h.

#include "tools/geometry.h"

#include <CLI/CLI.hpp>

#include "common/ops/parse_cluster_size.h"

namespace addcow {

void GeometryOptions::AddTo(CLI::App& app) {
  const auto add = [&app](const char* name, std::string& value, const char* what,
                          const char* type) {
    return app.add_option(name, value, what)->type_name(type)->option_text(type);
  };
  add("--revision", revision,
      "The format's revision: 1 (the default), or the later\none, with a choice of cluster "
      "sizes",
      "1|20")
      ->check(CLI::IsMember({"1", "20"}));
  add("--cluster-size", cluster_size,
      "4k to 2M, a power of two (default: 64k); another one\nthan 64k implies --revision=20",
      "SIZE");
  add("--subclusters", subclusters,
      "Let servers note small writes by 4 KiB, for which\nolder readers refuse the file "
      "(default: on)",
      "on|off")
      ->check(CLI::IsMember({"on", "off"}));
}

Status GeometryOptions::Set(CreateOptions& options) const {
  options.subclusters = subclusters == "on";
  if (!cluster_size.empty()) {
    ADDCOW_TRY_ASSIGN(options.cluster_size, ParseClusterSize(cluster_size));
  }
  const bool another = options.cluster_size != kClusterSize;
  if (revision == "20" || another) options.revision = Revision::kAcow;
  if (revision == "1" && another)
    return Fail(Error::Because(EINVAL, "--revision=1",
                               "has clusters of 64k only (other sizes need --revision=20)"));
  return {};
}

}  // namespace addcow
