#include "daemon/topology.h"

#include <gtest/gtest.h>

namespace eclip::daemon {
namespace {

GpuTopology gpu(std::uint32_t cu_count, std::uint32_t shader_engines) {
  return {.name = "test", .cu_count = cu_count, .shader_engines = shader_engines};
}

TEST(BinaryTree, AnMi50HasOneWholeTwoHalvesAndFourQuarters) {
  const auto masks = binary_tree_masks(gpu(60, 4));
  ASSERT_TRUE(masks);
  std::vector<std::uint32_t> counts;
  for (const auto& mask : *masks) counts.push_back(mask.count());
  EXPECT_EQ(counts, (std::vector<std::uint32_t>{60, 30, 30, 15, 15, 15, 15}));
}

TEST(BinaryTree, NodesOfALevelAreDisjointAndMakeUpTheirParent) {
  const auto masks = *binary_tree_masks(gpu(60, 4));
  EXPECT_EQ(masks[1].overlap(masks[2]), 0U);
  for (std::size_t i = 3; i < 7; ++i)
    for (std::size_t j = i + 1; j < 7; ++j) EXPECT_EQ(masks[i].overlap(masks[j]), 0U);
  EXPECT_EQ(masks[1].overlap(masks[3]), 15U);
  EXPECT_EQ(masks[1].overlap(masks[4]), 15U);
  EXPECT_EQ(masks[2].overlap(masks[3]), 0U);
}

TEST(BinaryTree, AQuarterIsOneShaderEngineInTheKfdsBitOrder) {
  // All of shader engine 0 of 4 x 15 CUs, as SET_CU_MASK takes it.
  const auto masks = *binary_tree_masks(gpu(60, 4));
  ASSERT_EQ(masks[3].words().size(), 2U);
  EXPECT_EQ(masks[3].words()[0], 0x11111111U);
  EXPECT_EQ(masks[3].words()[1], 0x01111111U);
}

TEST(BinaryTree, AGpuThatCannotBeQuarteredIsRefusedWithTheRemedy) {
  const auto masks = binary_tree_masks(gpu(36, 2));
  ASSERT_FALSE(masks);
  EXPECT_EQ(masks.error().code, Errc::unsupported);
  EXPECT_NE(masks.error().message().find("pool.streams"), std::string::npos);
}

}  // namespace
}  // namespace eclip::daemon
