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
  // The table of docs/device-model.md: over all mixes, on those fitted on, on the held-out ones.
  struct Documented {
    double all;
    double fitted;
    double held_out;
  };
  const std::map<std::string, Documented> table{
      {"disjoint, median", {0.021, 0.012, 0.022}},
      {"all, median", {0.033, 0.020, 0.039}},
      {"all, 90th percentile", {0.122, 0.120, 0.133}},
      {"d_krisp, median", {0.094, 0.173, 0.054}},
      {"mean power, median", {0.048, 0.042, 0.051}},
      {"rank of scenarios, median of mixes", {0.91, 0.91, 0.87}},
  };
  for (const Target& target : targets) {
    const Documented& documented = table.at(target.name);
    const auto expect = [&](double value, double figure, const char* part) {
      // The figures are rounded: to a tenth of a percent, to hundredths of a rank.
      if (target.at_least) {
        EXPECT_GE(value, figure - 0.0051) << target.name << ", " << part;
      } else {
        EXPECT_LE(value, figure + 0.00051) << target.name << ", " << part;
      }
    };
    expect(target.all, documented.all, "all");
    expect(target.fitted, documented.fitted, "fitted");
    expect(target.held_out, documented.held_out, "held out");
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
