#include "daemon/lease_table.h"

#include <gtest/gtest.h>

#include "daemon/topology.h"

namespace eclip::daemon {
namespace {

constexpr WorkerId anna{1};
constexpr WorkerId ben{2};

class LeaseTableTest : public ::testing::Test {
 protected:
  std::uint32_t cus(LeaseId lease, WorkerId worker) {
    return table_.streams()[table_.stream_of(lease, worker)->value].mask.count();
  }
  LeaseTable table_{*binary_tree_masks({.name = "mi50", .cu_count = 60, .shader_engines = 4})};
};

TEST_F(LeaseTableTest, GrantsTheSmallestStreamThatIsLargeEnough) {
  EXPECT_EQ(cus(*table_.grant(anna, {}, 1), anna), 15U);
  EXPECT_EQ(cus(*table_.grant(anna, {}, 16), anna), 30U);
  EXPECT_EQ(cus(*table_.grant(anna, {}, 31), anna), 60U);
}

TEST_F(LeaseTableTest, PrefersStreamsThatShareNoCuWithThoseInUse) {
  ASSERT_TRUE(table_.grant(anna, StreamId{1}, 0));  // shader engines 0 and 1
  const auto lease = table_.grant(ben, {}, 15);
  ASSERT_TRUE(lease);
  EXPECT_EQ(
      table_.streams()[table_.stream_of(*lease, ben)->value].mask.overlap(table_.streams()[1].mask),
      0U);
}

TEST_F(LeaseTableTest, AStreamHasOneHolderUntilItHasDrained) {
  const auto lease = table_.grant(anna, StreamId{0}, 0);
  ASSERT_TRUE(lease);
  EXPECT_EQ(table_.grant(ben, StreamId{0}, 0).error().code, Errc::no_stream);
  EXPECT_EQ(table_.grant(ben, {}, 60).error().code, Errc::no_stream);
  table_.begin_drain(StreamId{0});
  EXPECT_EQ(table_.grant(ben, StreamId{0}, 0).error().code, Errc::no_stream);
  EXPECT_EQ(table_.stream_of(*lease, anna).error().code, Errc::not_found);
  table_.finish_drain(StreamId{0});
  const auto next = table_.grant(ben, StreamId{0}, 0);
  ASSERT_TRUE(next);
  EXPECT_NE(next->value, lease->value);
}

TEST_F(LeaseTableTest, ALeaseIsItsHoldersAlone) {
  const auto lease = table_.grant(anna, StreamId{3}, 0);
  EXPECT_TRUE(table_.stream_of(*lease, anna));
  EXPECT_EQ(table_.stream_of(*lease, ben).error().code, Errc::not_found);
  EXPECT_EQ(table_.stream_of(LeaseId{77}, anna).error().code, Errc::not_found);
}

TEST_F(LeaseTableTest, WhatCanNeverFitIsAnInvalidArgumentNotAWait) {
  EXPECT_EQ(table_.grant(anna, {}, 61).error().code, Errc::invalid_argument);
  EXPECT_EQ(table_.grant(anna, StreamId{7}, 0).error().code, Errc::invalid_argument);
}

TEST_F(LeaseTableTest, SevenStreamsAndNoMore) {
  for (int i = 0; i < 7; ++i) EXPECT_TRUE(table_.grant(anna, {}, 1));
  EXPECT_EQ(table_.grant(ben, {}, 1).error().code, Errc::no_stream);
}

}  // namespace
}  // namespace eclip::daemon
