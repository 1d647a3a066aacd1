// SPDX-License-Identifier: LGPL-2.1-or-later
//
// main() of all GoogleTest programs. Prints TAP, the Test Anything Protocol,
// in place of GoogleTest's own words, so that automake's TAP driver counts
// every single test: a plan first, then one line for each test, with what
// went wrong before it in lines that start with "#".
//
// A program that crashes prints fewer lines than planned and one that fails
// outside of its tests exits with a status that is not 0; the driver reports
// both. GoogleTest's options (--gtest_filter and so on) work as ever.

#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdio>
#include <sstream>
#include <string>

#include "tests/support/random.h"

namespace addcow {
namespace {

// Each line of `text` as a TAP comment.
void PrintComment(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) std::printf("# %s\n", line.c_str());
  std::fflush(stdout);
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

class TapPrinter final : public testing::EmptyTestEventListener {
  void OnTestProgramStart(const testing::UnitTest& program) override {
    const int planned = program.test_to_run_count() * testing::GTEST_FLAG(repeat);
    std::printf(planned == 0 ? "1..0 # SKIP no test matches\n" : "1..%d\n", planned);
    PrintComment("seed: " + std::to_string(TestSeed()) + " (ADDCOW_SEED sets it)");
  }

  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (result.skipped()) {
      skip_reason_ = FirstLine(result.message());
      return;
    }
    if (!result.failed()) return;
    const std::string file = result.file_name() == nullptr ? "?" : result.file_name();
    PrintComment(file + ":" + std::to_string(result.line_number()) + ": " + result.message());
  }

  void OnTestEnd(const testing::TestInfo& test) override {
    const testing::TestResult& result = *test.result();
    number_++;
    std::printf("%s %d - %s.%s", result.Failed() ? "not ok" : "ok", number_,
                test.test_suite_name(), test.name());
    if (result.Skipped()) std::printf(" # SKIP %s", skip_reason_.c_str());
    std::printf("\n");
    PrintComment(std::to_string(result.elapsed_time()) + " ms");
    skip_reason_.clear();
  }

  int number_ = 0;
  std::string skip_reason_;
};

}  // namespace
}  // namespace addcow

int main(int argc, char** argv) {
#ifdef __GLIBC__
  // Tests make and drop disks of megabytes by the thousand. Memory that is kept is not
  // given by the system, page by page, each time anew.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
  testing::InitGoogleTest(&argc, argv);
  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new addcow::TapPrinter);  // the listeners own it
  return RUN_ALL_TESTS();
}
