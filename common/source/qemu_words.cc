// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See qemu_words.h. The words are those of QEMU 2.10 and later, which do not follow the
// language.

#include "common/source/qemu_words.h"

#include <string_view>

#include "common/io/file.h"

namespace addcow {

std::optional<Error> InUseByQemuWords(const std::string& said, const std::string& path) {
  constexpr std::string_view kQuestion = "Is another process using the image";
  const size_t question = said.find(kQuestion);
  if (question == std::string::npos) return std::nullopt;
  std::string file = path;
  // "[FILE]?", in later versions.
  const size_t begin = question + kQuestion.size();
  const size_t end = said.rfind("]?");
  if (said.compare(begin, 2, " [") == 0 && end != std::string::npos && end > begin + 2)
    file = said.substr(begin + 2, end - begin - 2);
  // 'Failed to get shared "write" lock' is of somebody who may write.
  const bool writes = said.find("Failed to get \"write\" lock") != std::string::npos ||
                      said.find("Failed to get \"resize\" lock") != std::string::npos;
  return File::InUse(file, writes ? LockKind::kWrite : LockKind::kRead);
}

}  // namespace addcow
