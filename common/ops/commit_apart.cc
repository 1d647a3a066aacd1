// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See commit_apart.h.

#include "common/ops/commit_apart.h"

#include <fmt/format.h>

#include <cstddef>
#include <utility>

namespace addcow {

namespace {

// Its files, and those that it stands on, without locks or servers.
Result<std::vector<ChainFile>> ChainOf(FileSystem& file_system, const std::string& path,
                                       const AccessOptions& access) {
  ImageSource source{.add_cow_path = path,
                     .mode = OpenMode::kReadOnly,
                     .backing_optional = true,
                     .backing_always = true,
                     .access = access,
                     .remedy_is_rebase = true};
  source.access.lock = false;
  source.access.no_servers = true;
  source.access.check_identity = false;
  ADDCOW_TRY_ASSIGN(ImageFiles files, OpenImageFiles(file_system, source));
  return std::move(files.chain);
}

// What a commit does with the file of a chain.
enum class Part { kOwn, kWritten, kLower };

Part PartOf(const std::vector<ChainFile>& chain, size_t index) {
  if (index < 2) return Part::kOwn;  // the add-cow file, and the image file
  // Of a base that is an image, the same two.
  const size_t written = chain.size() > 2 && chain[2].add_cow ? 4 : 3;
  return index < written || chain[index].with_contents ? Part::kWritten : Part::kLower;
}

Error NotApart(const std::string& path, const std::string& why) {
  return Error::Because(EINVAL, path, why);
}

}  // namespace

Status CheckPairApart(const std::string& path, const std::vector<ChainFile>& chain,
                      const std::string& other, const std::vector<ChainFile>& of_other) {
  for (size_t a = 0; a < chain.size(); a++)
    for (size_t b = 0; b < of_other.size(); b++) {
      if (!chain[a].info.SameFile(of_other[b].info)) continue;
      const Part here = PartOf(chain, a);
      const Part there = PartOf(of_other, b);
      if (here == Part::kLower && there == Part::kLower) continue;
      if (a == 0 && b == 0) return Fail(NotApart(path, "is named twice"));
      if (here == Part::kOwn && there == Part::kOwn)
        return Fail(NotApart(
            path,
            fmt::format("and {} have the same image file, {}: one of them is a copy, which "
                        "must not be used any more (commit the other, and remove this one)",
                        other, chain[a].path)));
      if (here == Part::kOwn || there == Part::kOwn)
        return Fail(NotApart(
            path, fmt::format("and {} stand on each other: commit them one after the other, "
                              "the upper one first",
                              other)));
      return Fail(NotApart(
          path, fmt::format("and {} both use {}: what one writes there the other would show",
                            other, chain[a].path)));
    }
  return {};
}

Status CheckApart(FileSystem& file_system, const std::vector<std::string>& add_cow_paths,
                  const AccessOptions& access) {
  std::vector<std::vector<ChainFile>> chains;
  for (const std::string& path : add_cow_paths) {
    ADDCOW_TRY_ASSIGN(auto chain, ChainOf(file_system, path, access));
    for (size_t i = 0; i < chains.size(); i++)
      ADDCOW_TRY(CheckPairApart(path, chain, add_cow_paths[i], chains[i]));
    chains.push_back(std::move(chain));
  }
  return {};
}

}  // namespace addcow
