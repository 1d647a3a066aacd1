// SPDX-License-Identifier: LGPL-2.1-or-later
//
// --revision, --cluster-size and --subclusters: the form of an add-cow file that is made.

#ifndef ADDCOW_TOOLS_GEOMETRY_H
#define ADDCOW_TOOLS_GEOMETRY_H

#include <string>

#include "common/base/error.h"
#include "common/ops/create.h"

namespace CLI {
class App;
}

namespace addcow {

// As the user gave them.
struct GeometryOptions {
  std::string revision;      // empty: by the cluster size
  std::string cluster_size;  // empty: the default
  std::string subclusters = "on";

  void AddTo(CLI::App& app);
  // EINVAL where they do not go together.
  Status Set(CreateOptions& options) const;
};

}  // namespace addcow

#endif  // ADDCOW_TOOLS_GEOMETRY_H
