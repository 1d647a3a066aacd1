// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Runs a fuzzer's entry once for each file, without a fuzzing engine: with
// arguments those files (to look at a crash in a debugger), else the corpus,
// as a test that prints TAP. A property that does not hold aborts, so that
// fewer tests are seen than were planned.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "fuzz/must.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

std::vector<std::string> Corpus() {
  const char* top = std::getenv("srcdir");
  const std::string folder =
      std::string(top != nullptr ? top : ".") + "/fuzz/corpus/" ADDCOW_FUZZER;
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> files =
      argc > 1 ? std::vector<std::string>(argv + 1, argv + argc) : Corpus();
  std::printf("1..%zu\n", files.size() + 1);
  size_t number = 0;
  for (const std::string& path : files) {
    std::printf("# %s\n", path.c_str());
    std::fflush(stdout);  // the name of one that crashes is seen
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    const bool read = file.is_open() && !file.bad();
    if (read)
      LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    std::printf("%s %zu - " ADDCOW_FUZZER " %s\n", read ? "ok" : "not ok", ++number,
                std::filesystem::path(path).filename().c_str());
  }
  // Else the corpus says nothing any more: its encoding is not the harness's.
  const addcow::fuzz::AcceptedInputs& accepted = addcow::fuzz::accepted_inputs;
  const bool reached = argc > 1 || (accepted.version1 > 0 && accepted.revision20 > 0);
  std::printf("%s %zu - " ADDCOW_FUZZER
              " accepts some inputs of the corpus, of each revision\n",
              reached ? "ok" : "not ok", ++number);
  std::printf("# accepted: %lu of version 1, %lu of revision 20\n", accepted.version1,
              accepted.revision20);
  return 0;
}
