// What docs/planner.md says of active sets under random arrivals. Simulated and deterministic.
#include "tools/eclip-plan/open_loop_evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>

namespace eclip::plan {
namespace {

model::GpuDescription h100() {
  return *model::load_gpu_description(std::filesystem::path(ECLIP_DATA_DIR) / "gpus/h100.toml");
}

TEST(OpenLoopEvaluation, ActiveSetsAreBetterThanUnmaskedAndThanStaticLeaves) {
  const auto cells = evaluate_open_loop(h100(), ECLIP_DATA_DIR, 60, 1);
  ASSERT_TRUE(cells) << cells.error().message();
  ASSERT_EQ(cells->size(), 18U);
  double of_unmasked = 0;
  double of_better = 0;
  for (const OpenLoopCell& cell : *cells) {
    const double active = cell.relative(Sharing::active_sets).mean;
    const double fixed = cell.relative(Sharing::static_disjoint).mean;
    EXPECT_LE(active, fixed) << cell.mix << " at " << cell.load;
    EXPECT_LE(active, 1.1) << cell.mix << " at " << cell.load;
    of_unmasked += std::log(active) / static_cast<double>(cells->size());
    of_better += std::log(active / std::min(1.0, fixed)) / static_cast<double>(cells->size());
  }
  EXPECT_LE(std::exp(of_unmasked), 0.70);
  EXPECT_LE(std::exp(of_better), 0.85);
}

TEST(OpenLoopEvaluation, RelatesWorkersToUnmasked) {
  const OpenLoopCell cell{
      .mix = "m", .profiles = {"a", "b"}, .p95_us = {{10, 20}, {20, 10}, {5, 20}}};
  EXPECT_DOUBLE_EQ(cell.relative(Sharing::static_disjoint).mean, 1);
  EXPECT_DOUBLE_EQ(cell.relative(Sharing::static_disjoint).worst, 2);
  EXPECT_DOUBLE_EQ(cell.relative(Sharing::active_sets).mean, std::sqrt(0.5));
}

TEST(OpenLoopEvaluation, BrokenDataIsNamed) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("eclip-open-loop-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "active-sets-h100.json") << R"({"mixes": [{"mix": "m"}]})";
  const auto cells = evaluate_open_loop(h100(), folder, 1, 1);
  std::filesystem::remove_all(folder);
  ASSERT_FALSE(cells);
  EXPECT_THAT(cells.error().message(), testing::HasSubstr("active-sets-h100.json"));
  EXPECT_THAT(cells.error().message(), testing::HasSubstr("profiles"));
}

}  // namespace
}  // namespace eclip::plan
