// Who gets what of a group of CUs, and whom a change concerns.
#include "daemon/model/group_line.h"

#include <gtest/gtest.h>

#include <deque>

namespace eclip::model {
namespace {

class GroupLineTest : public ::testing::Test {
 protected:
  Residency& arrive(double slots, double load) {
    Residency& kernel = kernels.emplace_back();
    kernel.arrival = kernels.size();
    kernel.occupancy.slots = slots;
    kernel.occupancy.load = load;
    kernel.held.assign(1, 0.0);
    return kernel;
  }
  /// Deals out 8 CUs; returns the arrivals of the kernels that it touches.
  std::vector<std::uint64_t> deal() {
    std::vector<Residency*> touched;
    line.deal(8, touched);
    std::vector<std::uint64_t> arrivals;
    for (Residency* kernel : touched) {
      kernel->touched = false;
      arrivals.push_back(kernel->arrival);
    }
    return arrivals;
  }

  std::deque<Residency> kernels;
  GroupLine line;
};

using Arrivals = std::vector<std::uint64_t>;

TEST_F(GroupLineTest, EachTakesWhatEarlierOnesLeave) {
  EXPECT_TRUE(line.join(arrive(0.75, 0.5), 0));
  EXPECT_FALSE(line.join(arrive(0.5, 1), 0)) << "the group is to be dealt out already";
  EXPECT_EQ(deal(), (Arrivals{1, 2}));
  EXPECT_DOUBLE_EQ(kernels[0].held[0], 8);
  EXPECT_DOUBLE_EQ(kernels[1].held[0], 4);
  EXPECT_DOUBLE_EQ(line.load(), 1);
}

TEST_F(GroupLineTest, OnFullCusAnArrivalConcernsNobody) {
  line.join(arrive(1, 1), 0);
  deal();
  EXPECT_FALSE(line.join(arrive(1, 1), 0));
  EXPECT_FALSE(line.join(arrive(1, 1), 0));
  EXPECT_FALSE(line.leave(kernels[1])) << "it held nothing";
  EXPECT_TRUE(line.leave(kernels[0]));
  EXPECT_EQ(deal(), (Arrivals{3}));
  EXPECT_DOUBLE_EQ(kernels[2].held[0], 8);
}

TEST_F(GroupLineTest, AnEndConcernsThoseBehindUpToTheOneThatTakesTheRest) {
  for (int i = 0; i < 5; ++i) line.join(arrive(0.5, 0.5), 0);
  EXPECT_EQ(deal(), (Arrivals{1, 2}));
  EXPECT_TRUE(line.leave(kernels[1]));
  EXPECT_EQ(deal(), (Arrivals{3}));
}

TEST_F(GroupLineTest, AChangeOfLoadConcernsEarlierOnesToo) {
  line.join(arrive(0.5, 0.75), 0);
  deal();
  line.join(arrive(0.5, 0.75), 0);
  EXPECT_EQ(deal(), (Arrivals{2, 1}));
  EXPECT_DOUBLE_EQ(line.load(), 1.5);
}

TEST_F(GroupLineTest, AnEarlierOneThatMovesHereTakesFromLaterOnes) {
  Residency& early = arrive(0.5, 1);
  line.join(arrive(0.75, 1), 0);
  line.join(arrive(0.25, 1), 0);
  deal();
  EXPECT_TRUE(line.join(early, 0));
  EXPECT_EQ(deal(), (Arrivals{1, 2, 3}));
  EXPECT_DOUBLE_EQ(kernels[0].held[0], 8);
  EXPECT_DOUBLE_EQ(kernels[1].held[0], 8 * 0.5 / 0.75);
  EXPECT_DOUBLE_EQ(kernels[2].held[0], 0);
}

}  // namespace
}  // namespace eclip::model
