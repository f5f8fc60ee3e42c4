// The planner's cost models against the measured H100: what docs/planner.md says they reach. All is
// deterministic, so a worse figure is a change of the model, of its parameters or of the data.
#include "tools/eclip-plan/evaluate.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tools/eclip-bench/judgement.h"

namespace eclip::plan {
namespace {

bench::Validation evaluated(Judge judge) {
  const std::filesystem::path data = ECLIP_DATA_DIR;
  const auto gpu = model::load_gpu_description(data / "gpus/h100.toml");
  if (!gpu) throw std::runtime_error(gpu.error().message());
  auto validation = evaluate(*gpu, data, judge);
  if (!validation) throw std::runtime_error(validation.error().message());
  return std::move(*validation);
}

std::ptrdiff_t good_choices(const bench::Validation& validation) {
  const std::vector<Choice> all = choices(validation);
  EXPECT_EQ(all.size(), 12U);
  return std::count_if(all.begin(), all.end(),
                       [](const Choice& choice) { return choice.regret <= 0.02; });
}

double median_error(const bench::Validation& validation, bench::Half half) {
  return bench::summarise(
             validation,
             [half](const bench::ScenarioOutcome& outcome) { return bench::is_in(outcome, half); })
      .median;
}

TEST(Evaluation, TheWaitingFormIsAsGoodAsDocumented) {
  const bench::Validation validation = evaluated(Judge::waiting);
  EXPECT_EQ(validation.outcomes.size(), 128U);
  EXPECT_LE(median_error(validation, bench::Half::both), 0.06);
  EXPECT_LE(median_error(validation, bench::Half::held_out), 0.07);
  EXPECT_GE(good_choices(validation), 11);
}

TEST(Evaluation, TheProportionalFormFailsWhereCusAreShared) {
  const bench::Validation validation = evaluated(Judge::proportional);
  EXPECT_GE(median_error(validation, bench::Half::both), 0.10);
  EXPECT_LE(good_choices(validation), 6);
}

TEST(Evaluation, ChoicesAreJudgedByWhatWasMeasured) {
  bench::Validation validation;
  const auto outcome = [](const char* scenario, double measured, double predicted) {
    bench::ScenarioOutcome made{.mix = "m", .scenario = scenario, .workers = {}};
    made.workers.push_back({.profile = "p", .measured_us = measured, .predicted_us = predicted});
    return made;
  };
  validation.outcomes = {outcome("best", 100, 120), outcome("chosen", 110, 90)};
  const std::vector<Choice> all = choices(validation);
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].measured_best, "best");
  EXPECT_EQ(all[0].chosen, "chosen");
  EXPECT_NEAR(all[0].regret, 0.1, 1e-12);
}

}  // namespace
}  // namespace eclip::plan
