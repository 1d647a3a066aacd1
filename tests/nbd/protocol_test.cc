// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a client sees of the plugin, one feature of the protocol at a time.

#include <chrono>
#include <filesystem>
#include <thread>

#include "tests/nbd/server.h"
#include "tests/support/forms.h"

namespace addcow {
namespace {

// NBD's extents of a range as pairs of length and type.
using Extents = std::vector<std::pair<uint32_t, uint32_t>>;

int Collect(void* user_data, const char*, uint64_t, uint32_t* entries, size_t count, int*) {
  auto* extents = static_cast<Extents*>(user_data);
  for (size_t i = 0; i + 1 < count; i += 2) extents->emplace_back(entries[i], entries[i + 1]);
  return 0;
}

Extents BlockStatus(nbd_handle* nbd, uint64_t offset, uint64_t count, uint32_t flags = 0) {
  Extents extents;
  nbd_extent_callback callback = {};
  callback.callback = Collect;
  callback.user_data = &extents;
  EXPECT_NBD(nbd_block_status(nbd, count, offset, callback, flags));
  return extents;
}

constexpr uint32_t kData = 0;
constexpr uint32_t kHoleZero = LIBNBD_STATE_HOLE | LIBNBD_STATE_ZERO;

// What must be seen of an image in every form.
class NbdForms : public NbdTest, public testing::WithParamInterface<Form> {};

INSTANTIATE_TEST_SUITE_P(, NbdForms, testing::Values(kVersion1Form, k4kForm, k2MForm),
                         [](const testing::TestParamInfo<Form>& one) {
                           return one.param.name;
                         });

TEST_F(NbdTest, OffersAllThatThePluginCanDo) {
  MakeImage({.size = 300001});
  StartServer();
  const NbdHandle nbd = Connect();
  EXPECT_EQ(nbd_get_size(nbd.get()), 300001);
  EXPECT_EQ(nbd_is_read_only(nbd.get()), 0);
  EXPECT_EQ(nbd_can_flush(nbd.get()), 1);
  EXPECT_EQ(nbd_can_fua(nbd.get()), 1);
  EXPECT_EQ(nbd_can_trim(nbd.get()), 1);
  EXPECT_EQ(nbd_can_zero(nbd.get()), 1);
  EXPECT_EQ(nbd_can_fast_zero(nbd.get()), 1);
  EXPECT_EQ(nbd_can_cache(nbd.get()), 1);
  EXPECT_EQ(nbd_can_multi_conn(nbd.get()), 1);
  EXPECT_EQ(nbd_can_meta_context(nbd.get(), LIBNBD_CONTEXT_BASE_ALLOCATION), 1);
  EXPECT_EQ(nbd_get_block_size(nbd.get(), LIBNBD_SIZE_MINIMUM), 1);
  EXPECT_EQ(nbd_get_block_size(nbd.get(), LIBNBD_SIZE_PREFERRED), 4096);
  EXPECT_EQ(nbd_get_block_size(nbd.get(), LIBNBD_SIZE_MAXIMUM), 0xffffffff);
  char* description = nbd_get_export_description(nbd.get());
  ASSERT_NE(description, nullptr);
  // Base names only: a client learns nothing of the host's directories.
  EXPECT_STREQ(description, "add-cow x.add-cow, image disk.raw, backing base.img");
  free(description);
}

TEST_P(NbdForms, FuaWriteIsPublishedBeforeTheReply) {
  MakeImage(InForm({.size = 8 * kClusterSize, .backing_size = 8 * kClusterSize}, GetParam()));
  StartServer({}, {"sync-interval=0"});
  const NbdHandle nbd = Connect();
  const std::vector<std::byte> data = Repeat(7, 1000);
  ASSERT_NBD(nbd_pwrite(nbd.get(), data.data(), data.size(), 10, 0));
  EXPECT_EQ(AllocatedInFile(), 0u);  // not yet: nothing asked for it
  ASSERT_NBD(nbd_pwrite(nbd.get(), data.data(), data.size(), 5 * kClusterSize + 10,
                        LIBNBD_CMD_FLAG_FUA));
  EXPECT_EQ(AllocatedInFile(), 2 * kSubclusterSize);
  ASSERT_NBD(nbd_zero(nbd.get(), 100, 6 * kClusterSize, LIBNBD_CMD_FLAG_FUA));
  EXPECT_EQ(AllocatedInFile(), 3 * kSubclusterSize);
  ASSERT_NBD(nbd_trim(nbd.get(), 100, 7 * kClusterSize, LIBNBD_CMD_FLAG_FUA));
  EXPECT_EQ(AllocatedInFile(), 4 * kSubclusterSize);
}

TEST_P(NbdForms, FlushOnOneConnectionCoversTheWritesOfAnother) {
  MakeImage(InForm({.size = 8 * kClusterSize, .backing_size = 8 * kClusterSize}, GetParam()));
  StartServer({}, {"sync-interval=0"});
  const NbdHandle writer = Connect();
  const NbdHandle flusher = Connect();
  const std::vector<std::byte> data = Repeat(7, 1000);
  ASSERT_NBD(nbd_pwrite(writer.get(), data.data(), data.size(), 10, 0));
  EXPECT_EQ(AllocatedInFile(), 0u);
  ASSERT_NBD(nbd_flush(flusher.get(), 0));
  EXPECT_EQ(AllocatedInFile(), kSubclusterSize);
}

TEST_F(NbdTest, ReadOnlyServerRefusesWritesAndPublishesNothing) {
  MakeImage({});
  StartServer({"-r"});
  const NbdHandle nbd = Connect();
  EXPECT_EQ(nbd_is_read_only(nbd.get()), 1);
  ASSERT_NBD(nbd_set_strict_mode(nbd.get(), 0));
  EXPECT_EQ(nbd_pwrite(nbd.get(), "x", 1, 0, 0), -1);
  EXPECT_EQ(nbd_get_errno(), EPERM);  // nbdkit's own answer
  EXPECT_NBD(nbd_flush(nbd.get(), 0));
  EXPECT_EQ(Difference(NbdRead(nbd.get(), 0, contents_.size()), contents_), "");
}

TEST_F(NbdTest, RequestsPastTheEndAreRefused) {
  MakeImage({.size = 100000});
  StartServer();
  const NbdHandle nbd = Connect();
  ASSERT_NBD(nbd_set_strict_mode(nbd.get(), 0));
  std::byte byte{};
  EXPECT_EQ(nbd_pread(nbd.get(), &byte, 1, 100000, 0), -1);
  EXPECT_EQ(nbd_pwrite(nbd.get(), &byte, 1, 100000, 0), -1);
  EXPECT_EQ(nbd_get_errno(), ENOSPC);
  EXPECT_NBD(nbd_pwrite(nbd.get(), &byte, 1, 99999, 0));
}

TEST_P(NbdForms, WhatWasReadIsKeptAndReadOnce) {
  MakeImage(
      InForm({.size = 40 * kClusterSize + 700, .backing_size = 40 * kClusterSize}, GetParam()));
  StartServer({}, {"copy-on-read=on", "fetch-size=256k", "sync-interval=1"});
  {
    const NbdHandle nbd = Connect();
    const auto got = NbdRead(nbd.get(), 5 * kClusterSize + 100, 1000);
    EXPECT_EQ(Difference(got, std::span(contents_).subspan(5 * kClusterSize + 100, 1000)), "");
    EXPECT_NBD(nbd_cache(nbd.get(), 100, 17 * kClusterSize, 0));
    const std::vector<std::byte> data = Repeat(7, 1000);
    EXPECT_NBD(nbd_pwrite(nbd.get(), data.data(), data.size(), 6 * kClusterSize, 0));
    std::ranges::copy(data, contents_.begin() + 6 * kClusterSize);
  }
  // A stop would end what nobody waits for.
  for (int i = 0; i < 600 && AllocatedInFile() < 8 * kClusterSize; i++)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  StopServer();
  EXPECT_EQ(AllocatedInFile(), 8 * kClusterSize);
  EXPECT_EQ(Difference(ReadFromFiles(), contents_), "");
}

// The server is stopped, and a client leaves, as soon as they have their answers: what is
// fetched then for nobody ends with them.
TEST_F(NbdTest, StopsInTheMiddleOfFetching) {
  for (int round = 0; round < 5; round++) {
    for (const char* name : {"/x.add-cow", "/disk.raw", "/base.img"})
      std::filesystem::remove(directory_ + name);
    MakeImage({.size = 400 * kClusterSize, .backing_size = 400 * kClusterSize});
    StartServer({}, {"copy-on-read=on", "fetch-size=1M"});
    {
      const NbdHandle nbd = Connect();
      for (uint64_t at = 0; at < 400; at += 7)
        (void)NbdRead(nbd.get(), at * kClusterSize + 100, 512);
    }
    StopServer();
    EXPECT_GE(AllocatedInFile(), 58 * kClusterSize);
    EXPECT_EQ(Difference(ReadFromFiles(), contents_), "");
  }
}

TEST_F(NbdTest, CacheAndFastZeroSucceed) {
  MakeImage({.size = 4 * kClusterSize, .backing_size = 4 * kClusterSize, .allocated = {1}});
  StartServer();
  const NbdHandle nbd = Connect();
  EXPECT_NBD(nbd_cache(nbd.get(), 4 * kClusterSize, 0, 0));
  EXPECT_NBD(nbd_zero(nbd.get(), 2 * kClusterSize, 100, LIBNBD_CMD_FLAG_FAST_ZERO));
  EXPECT_EQ(Difference(NbdRead(nbd.get(), 100, 2 * kClusterSize), Repeat(0, 2 * kClusterSize)),
            "");
  EXPECT_EQ(Difference(NbdRead(nbd.get(), 0, 100), std::span(contents_).first(100)), "");
}

TEST_P(NbdForms, ExtentsAreClippedAndReqOneGivesOne) {
  MakeImage(InForm({.size = 4 * kClusterSize,
                    .backing_size = 4 * kClusterSize,
                    .backing_data = {{{kClusterSize, kClusterSize}}}},
                   GetParam()));
  StartServer();
  const NbdHandle nbd = Connect();
  EXPECT_EQ(BlockStatus(nbd.get(), 1000, 3 * kClusterSize),
            (Extents{{64536, kHoleZero}, {65536, kData}, {65536 + 1000, kHoleZero}}));
  EXPECT_EQ(BlockStatus(nbd.get(), 1000, 3 * kClusterSize, LIBNBD_CMD_FLAG_REQ_ONE),
            (Extents{{64536, kHoleZero}}));
}

TEST_F(NbdTest, ReqOneJoinsExtentsThatDifferOnlyInTheirSource) {
  MakeImage({.size = 4 * kClusterSize, .backing_size = 4 * kClusterSize, .allocated = {0, 2}});
  StartServer();
  const NbdHandle nbd = Connect();
  EXPECT_EQ(BlockStatus(nbd.get(), 0, 4 * kClusterSize, LIBNBD_CMD_FLAG_REQ_ONE),
            (Extents{{4 * kClusterSize, kData}}));
}

// In nbdkit 1.32 an extent that reaches past a request of this length aborts
// the server.
TEST_F(NbdTest, ExtentsOfTheLongestRequestDoNotEndTheServer) {
  MakeImage({.size = kClusterSize, .backing_size = kClusterSize});
  // Larger than a test should hold in memory: the files grow afterwards.
  std::filesystem::resize_file(directory_ + "/disk.raw", 16 * kGiB);
  std::filesystem::resize_file(directory_ + "/x.add-cow",
                               Layout(16 * kGiB, Geometry{}).bitmap().padded_end());
  StartServer();
  const NbdHandle nbd = Connect();
  // The server may tell of less than was asked for: nbdkit 1.48 cuts to a multiple of
  // 64 KiB.
  const auto is_nearly_all = [](uint64_t end) {
    return end >= 0xffff0000 && end <= 0xffffffff;
  };
  const Extents first = BlockStatus(nbd.get(), 0, 0xffffffff);
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[0], Extents::value_type(65536, kData));
  EXPECT_EQ(first[1].second, kHoleZero);
  EXPECT_PRED1(is_nearly_all, 65536 + first[1].first);
  const Extents hole = BlockStatus(nbd.get(), kGiB, 0xffffffff);
  ASSERT_EQ(hole.size(), 1u);
  EXPECT_EQ(hole[0].second, kHoleZero);
  EXPECT_PRED1(is_nearly_all, hole[0].first);
}

// nbdkit's own fallback for zeroes writes the same 64 MiB again and again.
TEST_F(NbdTest, LongZeroReadsAsZeroesToItsEnd) {
  constexpr uint64_t kSize = 130 * kMiB;
  MakeImage({.size = kSize, .backing_size = kSize, .garbage = false});
  StartServer();
  const NbdHandle nbd = Connect();
  ASSERT_NBD(nbd_zero(nbd.get(), kSize - 2000, 1000, LIBNBD_CMD_FLAG_NO_HOLE));
  const std::vector<std::byte> bytes = NbdRead(nbd.get(), 0, kSize);
  ASSERT_EQ(bytes.size(), kSize);
  std::fill(contents_.begin() + 1000, contents_.end() - 1000, std::byte{0});
  EXPECT_EQ(Difference(bytes, contents_), "");
}

TEST_P(NbdForms, CleanStopWritesWhatNobodyFlushed) {
  MakeImage(InForm({.size = 300001, .backing_size = 200000}, GetParam()));
  StartServer({}, {"sync-interval=0"});
  {
    const NbdHandle nbd = Connect();
    const std::vector<std::byte> data = Repeat(9, 100000);
    ASSERT_NBD(nbd_pwrite(nbd.get(), data.data(), data.size(), 123456, 0));
    std::copy(data.begin(), data.end(), contents_.begin() + 123456);
  }
  EXPECT_EQ(AllocatedInFile(), 0u);
  StopServer();
  EXPECT_EQ(Difference(ReadFromFiles(), contents_), "");
}

}  // namespace
}  // namespace addcow
