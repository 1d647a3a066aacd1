// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Every operation fails of opening a chain of images, reading it, and telling what it is
// made of. What fails says so, with the errno of the fault; what does not is right; and
// no file is left open.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "common/ops/check.h"
#include "common/ops/info.h"
#include "common/ops/map.h"
#include "tests/fault/sweep.h"
#include "tests/support/chain_fixture.h"
#include "tests/support/fault_file.h"

namespace addcow {
namespace {

class ChainFault : public ChainFixture, public testing::WithParamInterface<Sweep> {
 protected:
  void SetUp() override {
    MakeThree();
    Write("a", 100, random_.Bytes(3000));
    Write("b", kC + 5000, random_.Bytes(kC));
    Write("c", 3 * kC, random_.Bytes(200));
    disk_ = Read("c");
  }

  // `run` gives an error or, in words, what it found; the same each time.
  void ExpectRightOrRefused(const std::function<Result<std::string>(FileSystem&)>& run) {
    const auto right = run(fake_);
    ASSERT_OK(right);
    const auto before = fake_.Clone();
    for (uint64_t at = 1;; at++) {
      FaultPlan::Fault fault = GetParam().At(at);
      // Of the folder, the user's mistake: EINVAL, whatever it was.
      fault.where = [](const Operation& operation) {
        return operation.kind != OpKind::kRealPath || operation.path != kDirectory;
      };
      FaultPlan plan(fault);
      ForwardingFileSystem faulty(fake_, plan);
      const auto result = run(faulty);
      SCOPED_TRACE("after a fault of " + plan.hit());
      if (result) {
        EXPECT_EQ(*result, *right);
      } else {
        EXPECT_TRUE(GetParam().visible && plan.fired());
        EXPECT_TRUE(FailsWith(result, GetParam().error));
      }
      EXPECT_EQ(fake_.open_files(), 0);
      EXPECT_EQ(fake_.DifferenceFrom(*before), "");
      if (SweepEnds(at, plan.fired())) return;
    }
  }

  std::vector<std::byte> disk_;
};

TEST_P(ChainFault, Reading) {
  for (const bool lock : {true, false})
    ExpectRightOrRefused([&](FileSystem& file_system) -> Result<std::string> {
      ADDCOW_TRY_ASSIGN(
          const auto image,
          Image::Open(file_system, {.add_cow_path = Path("c"), .access = {.lock = lock}},
                      NoLog));
      std::vector<std::byte> bytes(kSize);
      ADDCOW_TRY(image->Read(bytes, 0));
      ADDCOW_TRY(image->Prefetch(0, kSize));
      return Difference(bytes, disk_);
    });
}

TEST_P(ChainFault, ReadingWhatIsConfined) {
  ExpectRightOrRefused([&](FileSystem& file_system) -> Result<std::string> {
    ADDCOW_TRY_ASSIGN(
        const auto image,
        Image::Open(file_system,
                    {.add_cow_path = Path("c"), .access = {.confine = std::string(kDirectory)}},
                    NoLog));
    std::vector<std::byte> bytes(kSize);
    ADDCOW_TRY(image->Read(bytes, 0));
    return Difference(bytes, disk_);
  });
}

TEST_P(ChainFault, Map) {
  ExpectRightOrRefused([&](FileSystem& file_system) -> Result<std::string> {
    std::string lines;
    ADDCOW_TRY(MapImage(file_system, Path("c"), {}, [&](const MapEntry& entry) {
      lines += fmt::format("{}+{} {} {}\n", entry.start, entry.length, entry.depth, entry.data);
      return true;
    }));
    return lines;
  });
}

TEST_P(ChainFault, InfoOfTheChain) {
  ExpectRightOrRefused([&](FileSystem& file_system) -> Result<std::string> {
    ADDCOW_TRY_ASSIGN(const auto chain, GetChain(file_system, {.add_cow_path = Path("c")}));
    std::string lines;
    for (const ChainLink& link : chain)
      lines += fmt::format("{} {} {}\n", link.path, link.format, link.virtual_size.value_or(0));
    return lines;
  });
}

INSTANTIATE_TEST_SUITE_P(Sweeps, ChainFault, testing::ValuesIn(kSweeps), SweepName);

}  // namespace
}  // namespace addcow
