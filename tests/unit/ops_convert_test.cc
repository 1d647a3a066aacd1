// SPDX-License-Identifier: LGPL-2.1-or-later
//
// addcow upgrade and downgrade, from every form to every other: the disk reads the
// same, from the same files where subclusters may be, and the new file is sound. What is
// refused is in ops_convert_refusals_test.cc; what failures and crashes leave in
// tests/fault and tests/crash.

#include "common/ops/convert.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/convert_fixture.h"
#include "tests/support/forms.h"

namespace addcow {
namespace {

class ConvertTest : public ConvertFixture {
 protected:
  std::vector<std::byte> AddCowBytes() { return AddCow().Bytes(0, AddCow().size()); }

  // Which 4096 bytes of the disk come from the image file.
  Units InImage() {
    Units units(DivideUp(disk_.size(), kSubclusterSize));
    const auto image = OpenTestImage(fake_, kDirectory, OpenMode::kReadOnly);
    EXPECT_OK(image);
    if (!image) return units;
    EXPECT_OK((*image)->Map(0, disk_.size(), [&](const Extent& extent) {
      for (uint64_t at = extent.offset; at < extent.offset + extent.length;
           at = RoundDown(at, kSubclusterSize) + kSubclusterSize)
        units[at / kSubclusterSize] = extent.source == Extent::Source::kImage;
      return true;
    }));
    return units;
  }

  // As docs/format.md has the length of a file that somebody makes.
  uint64_t WholeSize() {
    const Layout layout = TestLayout(fake_);
    return (TestHeader(fake_).subclusters ? layout.subcluster_bitmap() : layout.bitmap())
        .padded_end();
  }

  void ExpectForm(const Form& form, bool partial) {
    const Header header = TestHeader(fake_);
    EXPECT_EQ(header.revision, form.revision);
    EXPECT_EQ(header.cluster_size, form.cluster_size);
    EXPECT_EQ(header.subclusters, partial);
    EXPECT_EQ(AddCow().size(), WholeSize());
  }
};

using FromTo = std::tuple<Form, Form>;

class ConvertForms : public ConvertTest, public testing::WithParamInterface<FromTo> {
 protected:
  const Form& from() const { return std::get<0>(GetParam()); }
  const Form& to() const { return std::get<1>(GetParam()); }
  uint64_t largest() const { return std::max({from().cluster_size, to().cluster_size, kC}); }

  // Two and a half clusters, and a last subcluster that is partial.
  ImageSpec Spec() const {
    const uint64_t size = 5 * largest() / 2 + 5 * kSubclusterSize + 777;
    return InForm({.size = size, .backing_size = size - 3 * kSubclusterSize - 100}, from());
  }
  Units RandomUnitsOf(const ImageSpec& spec) {
    return RandomUnits(spec.size, largest() / kSubclusterSize, random_);
  }
  // Those that the form can say without subclusters.
  Units WholeClusters(const Units& units) const {
    ImageSpec spec = Spec();
    SetUnits(spec, units);
    Units whole(units.size());
    const uint64_t ratio = from().cluster_size / kSubclusterSize;
    for (const uint64_t cluster : spec.allocated)
      for (uint64_t i = cluster * ratio; i < std::min((cluster + 1) * ratio, units.size()); i++)
        whole[i] = true;
    return whole;
  }
  bool AnyPartial(const Units& units, const Form& form) const {
    ImageSpec spec = InForm(Spec(), form);
    SetUnits(spec, units);
    return !spec.subclusters.empty();
  }

  // Bytes: a cluster of either form that has to be read whole for a part of the new one.
  uint64_t CopiedUp(const Units& units, uint64_t size) const {
    ImageSpec spec = InForm(Spec(), to());
    SetUnits(spec, units);
    std::set<uint64_t> clusters;
    const uint64_t cluster = std::max(from().cluster_size, to().cluster_size);
    for (const uint64_t unit : spec.subclusters)
      clusters.insert(unit * kSubclusterSize / cluster * cluster);
    uint64_t bytes = 0;
    for (const uint64_t start : clusters) bytes += std::min(start + cluster, size) - start;
    return bytes;
  }

  // There and back: with what the image file had of the disk, and no byte of it moved.
  void ExpectThereAndBack(const ImageSpec& spec, const Units& units) {
    Make(spec);
    const auto before = AddCowBytes();
    ASSERT_OK_AND_ASSIGN(const ConvertResult there, Convert(fake_, To(to())));
    EXPECT_EQ(there.before == there.after, from().name == to().name);
    EXPECT_EQ(there.after, TestHeader(fake_));
    EXPECT_EQ(there.virtual_size, spec.size);
    EXPECT_EQ(there.copied, 0u);
    EXPECT_EQ(there.notes, std::vector<std::string>());
    ExpectForm(to(), !spec.all_allocated && AnyPartial(units, to()));
    ExpectDisk();
    EXPECT_EQ(InImage(), units);
    ASSERT_OK(Convert(fake_, To(from())));
    EXPECT_EQ(Difference(AddCowBytes(), before), "");
    EXPECT_TRUE(fake_.Find(kImagePath)->SameBytes(*before_->Find(kImagePath)));
    EXPECT_EQ(fake_.List().size(), spec.backing_size ? 3u : 2u) << "nothing is left behind";
    EXPECT_EQ(fake_.open_files(), 0);
  }

  Random random_{TestSeed()};
};

INSTANTIATE_TEST_SUITE_P(
    , ConvertForms,
    testing::Combine(testing::Values(kVersion1Form, k64kForm, k4kForm, k8kForm, k2MForm),
                     testing::Values(kVersion1Form, k64kForm, k4kForm, k8kForm, k2MForm)),
    [](const testing::TestParamInfo<FromTo>& row) {
      return std::string(std::get<0>(row.param).name) + "To" + std::get<1>(row.param).name;
    });

TEST_P(ConvertForms, KeepsWhatIsWhere) {
  ImageSpec spec = Spec();
  for (int round = 0; round < 4; round++) {
    const Units units = RandomUnitsOf(spec);
    SetUnits(spec, units);
    ExpectThereAndBack(spec, units);
  }
}

TEST_P(ConvertForms, KeepsWhatIsWhereWithoutSubclustersBefore) {
  ImageSpec spec = Spec();
  const Units units = WholeClusters(RandomUnitsOf(spec));
  SetUnits(spec, units);
  ExpectThereAndBack(spec, units);
}

// The last cluster, which is partial, and its last subcluster, which is so too.
TEST_P(ConvertForms, KeepsTheEndsOfTheDisk) {
  ImageSpec spec = Spec();
  for (const uint64_t count : {1u, 2u, 6u}) {
    Units units(DivideUp(spec.size, kSubclusterSize));
    for (uint64_t i = 0; i < count; i++) units[units.size() - 1 - i] = units[i] = true;
    SetUnits(spec, units);
    ExpectThereAndBack(spec, units);
  }
}

TEST_P(ConvertForms, KeepsAnEmptyImageAndAFullOne) {
  for (const bool all : {false, true}) {
    ImageSpec spec = Spec();
    const Units units(DivideUp(spec.size, kSubclusterSize), all);
    SetUnits(spec, units);
    ExpectThereAndBack(spec, units);
  }
}

TEST_P(ConvertForms, KeepsAllAllocatedAndSetsTheBits) {
  for (const bool backing : {true, false}) {
    ImageSpec spec = Spec();
    spec.all_allocated = true;
    if (!backing) spec.backing_size.reset();
    const Units units(DivideUp(spec.size, kSubclusterSize), true);
    ExpectThereAndBack(spec, units);
    // Whatever is left of the bits: the flag says it.
    Make(spec);
    ASSERT_TRUE(AddCow().PunchHole(TestLayout(fake_).bitmap().offset, 1 << 20));
    ASSERT_OK(Convert(fake_, To(to())));
    if (from().name == to().name) continue;
    EXPECT_TRUE(TestHeader(fake_).all_allocated);
    ExpectDisk();
  }
}

TEST_P(ConvertForms, KeepsAnImageWithoutABackingFileThatIsNotAllAllocated) {
  ImageSpec spec = Spec();
  spec.backing_size.reset();
  const Units units = RandomUnitsOf(spec);
  SetUnits(spec, units);
  ExpectThereAndBack(spec, units);
}

// Clusters of which a part is there are copied up, once they are larger.
TEST_P(ConvertForms, CopiesUpWhereSubclustersMayNotBe) {
  ImageSpec spec = Spec();
  for (int round = 0; round < 4; round++) {
    const Units units = RandomUnitsOf(spec);
    SetUnits(spec, units);
    Make(spec);
    ASSERT_OK_AND_ASSIGN(const ConvertResult result, Convert(fake_, To(to(), false)));
    EXPECT_TRUE(result.after.no_subclusters);
    EXPECT_EQ(result.after, TestHeader(fake_));
    ExpectForm(to(), false);
    ExpectDisk();
    const Units now = InImage();
    EXPECT_FALSE(AnyPartial(now, to()));
    EXPECT_EQ(result.copied, CopiedUp(units, spec.size));
    if (from().cluster_size <= to().cluster_size) {
      EXPECT_EQ(now, Completed(units, to().cluster_size));
    }
    // So it stays, whatever is asked for.
    const Form& other = to().cluster_size == k2MForm.cluster_size ? kVersion1Form : k2MForm;
    ASSERT_OK(Convert(fake_, To(other)));
    ExpectForm(other, false);
    EXPECT_TRUE(TestHeader(fake_).no_subclusters);
    ExpectDisk();
    EXPECT_FALSE(AnyPartial(InImage(), other));
  }
}

}  // namespace
}  // namespace addcow
