// The device model against the measured H100: what docs/device-model.md says it reaches. The model
// is deterministic, so a worse figure is a change of the model, of its parameters or of the data.
#include <gtest/gtest.h>

#include <map>

#include "tools/eclip-bench/judgement.h"
#include "tools/eclip-bench/statistics.h"

namespace eclip::bench {
namespace {

TEST(Validation, IsAsGoodAsDocumented) {
  const std::filesystem::path data = ECLIP_DATA_DIR;
  const auto gpu = model::load_gpu_description(data / "gpus/h100.toml");
  ASSERT_TRUE(gpu) << gpu.error().message();
  const auto validation = validate(*gpu, data, LoopOptions{});
  ASSERT_TRUE(validation) << validation.error().message();
  EXPECT_EQ(validation->outcomes.size(), 128U);
  EXPECT_EQ(validation->skipped.size(), 12U);
  const std::vector<Target> targets = judge(*validation);
  ASSERT_EQ(targets.size(), 6U);
  // Figures over all mixes, with a small margin.
  const std::map<std::string, double> documented{
      {"disjoint, median", 0.030},     {"all, median", 0.040},
      {"all, 90th percentile", 0.150}, {"d_krisp, median", 0.150},
      {"mean power, median", 0.060},   {"rank of scenarios, median of mixes", 0.90},
  };
  for (const Target& target : targets) {
    const double limit = documented.at(target.name);
    if (target.at_least)
      EXPECT_GE(target.all, limit) << target.name;
    else
      EXPECT_LE(target.all, limit) << target.name;
  }
}

TEST(Validation, AHalfHoldsItsMixesOnly) {
  const std::filesystem::path data = ECLIP_DATA_DIR;
  const auto gpu = model::load_gpu_description(data / "gpus/h100.toml");
  ASSERT_TRUE(gpu) << gpu.error().message();
  LoopOptions short_loop;
  short_loop.requests = 1;
  short_loop.warm_up = 1;
  const auto held_out = validate(*gpu, data, short_loop, Half::held_out);
  ASSERT_TRUE(held_out) << held_out.error().message();
  const auto mixes = mixes_of(*held_out);
  EXPECT_EQ(mixes.size(), 6U);
  for (const auto& [mix, fitted] : mixes) EXPECT_FALSE(fitted) << mix;
}

TEST(Statistics, QuantilesAndRanks) {
  EXPECT_DOUBLE_EQ(quantile({3, 1, 2}, 0.5), 2);
  EXPECT_DOUBLE_EQ(quantile({1, 2}, 0.5), 1.5);
  const std::vector<double> rising{1, 2, 3, 4};
  const std::vector<double> falling{9, 7, 5, 3};
  EXPECT_DOUBLE_EQ(rank_correlation(rising, rising), 1);
  EXPECT_DOUBLE_EQ(rank_correlation(rising, falling), -1);
}

}  // namespace
}  // namespace eclip::bench
