// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A program to be counted by callgrind: it makes an image on real files, sends
// it requests of 4 KiB that take no lock, and ends.
//
//   request-cost KIND COUNT   so many requests: read-allocated,
//                             write-allocated or read-unallocated; or, with no
//                             request, what is counted of one: statistics
//   request-cost built        says by what, for what and how it was compiled
//
// What one request costs is the difference between two runs, in which all that
// is not a request cancels out; tests/shell/test-request-cost.sh takes it.

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "common/control/request_statistics.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_image.h"

namespace addcow {

namespace {

// The flags come from the Makefile as they are, also with commas and quotes.
#define TEXT_OF(...) #__VA_ARGS__
#define TEXT(...) TEXT_OF(__VA_ARGS__)
constexpr const char* kFlags = TEXT(ADDCOW_FLAGS);
#ifdef __clang__
constexpr const char* kCompiler = "clang++ " __clang_version__;
#else
constexpr const char* kCompiler = "g++ " __VERSION__;
#endif
#ifdef __x86_64__
constexpr const char* kProcessor = "x86_64";
#else
constexpr const char* kProcessor = "another processor";
#endif

constexpr uint64_t kRequest = 4096;
constexpr uint64_t kClustersOfAKind = 2;
constexpr uint64_t kUnallocated = kClustersOfAKind * kClusterSize;

Status SendRequests(Image& image, std::string_view kind, uint64_t count) {
  std::vector<std::byte> buffer(kRequest, std::byte{1});
  const uint64_t start = kind == "read-unallocated" ? kUnallocated : 0;
  const bool write = kind == "write-allocated";
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t offset = start + i * kRequest % (kClustersOfAKind * kClusterSize);
    ADDCOW_TRY(write ? image.Write(buffer, offset) : image.Read(buffer, offset));
  }
  return {};
}

constinit RequestStatistics requests;
enum class Bytes { kRead, kWritten, kCount };
constinit Counters<Bytes> bytes;

// As the plugin and ImageStore do for a read of allocated clusters.
void CountRequests(uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t start = Ticks();
    bytes.Add(Bytes::kRead, kRequest);
    requests.Done(RequestKind::kRead, kRequest, TicksSince(start));
  }
}

Status Run(std::string_view kind, uint64_t count) {
  if (kind == "statistics") {
    CalibrateTicks();
    CountRequests(count);
    return {};
  }
  const TempDir directory;
  ADDCOW_TRY(MakeTestImage(PosixFileSystem(), directory.path(), {.allocated = {0, 1}}));
  ADDCOW_TRY_ASSIGN(auto image, OpenTestImage(PosixFileSystem(), directory.path()));
  return SendRequests(*image, kind, count);
}

}  // namespace

}  // namespace addcow

int main(int argc, char** argv) {
  using namespace addcow;
  const std::string_view kind = argc > 1 ? argv[1] : "";
  if (argc == 2 && kind == "built") {
    fmt::print("{} {} {}\n", kCompiler, kProcessor, kFlags);
    return 0;
  }
  if (argc != 3 || (kind != "read-allocated" && kind != "write-allocated" &&
                    kind != "read-unallocated" && kind != "statistics")) {
    fmt::print(stderr, "usage: request-cost KIND COUNT, or request-cost built\n");
    return 2;
  }
  const Status done = Run(kind, std::strtoull(argv[2], nullptr, 10));
  if (done) return 0;
  fmt::print(stderr, "{}\n", done.error().Message());
  return 1;
}
