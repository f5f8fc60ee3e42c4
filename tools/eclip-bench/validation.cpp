#include "tools/eclip-bench/validation.h"

#include <algorithm>
#include <cmath>

#include "tools/eclip-bench/colocation.h"
#include "tools/eclip-bench/recorded_plan.h"
#include "tools/eclip-bench/statistics.h"

namespace eclip::bench {
namespace {

double geometric_mean(const std::vector<WorkerPoint>& workers, double WorkerPoint::*value) {
  double sum = 0;
  for (const WorkerPoint& worker : workers) sum += std::log(worker.*value);
  return std::exp(sum / static_cast<double>(workers.size()));
}

double throughput(const std::vector<WorkerPoint>& workers, double WorkerPoint::*time) {
  double sum = 0;
  for (const WorkerPoint& worker : workers) sum += worker.solo_us / worker.*time;
  return sum;
}

Result<ScenarioOutcome> run_scenario(const model::GpuDescription& gpu, const Mix& mix,
                                     const Scenario& scenario, ProfileShelf& profiles,
                                     const Predictor& predictor) {
  const auto workers = recorded_plan(gpu, mix, scenario, profiles);
  if (!workers) return tl::unexpected(workers.error());
  ScenarioOutcome outcome{.mix = mix.name, .scenario = scenario.name, .workers = {}};
  outcome.fitted = is_fitted(mix.name);
  outcome.measured_watts = scenario.watts;
  const auto predicted = predictor(*workers, is_serial(scenario));
  if (!predicted)
    return fail(predicted.error(), "mix '" + mix.name + "', scenario '" + scenario.name + "'");
  outcome.predicted_watts = predicted->watts;
  for (std::size_t i = 0; i < workers->size(); ++i)
    outcome.workers.push_back({.profile = mix.profiles[i],
                               .measured_us = scenario.workers[i].mean_us,
                               .predicted_us = predicted->mean_us[i],
                               .measured_p95_us = scenario.workers[i].p95_us,
                               .predicted_p95_us = quantile(predicted->request_us[i], 0.95),
                               .solo_us = mix.solo_us[i]});
  return outcome;
}

}  // namespace

double WorkerPoint::error() const {
  return std::abs(predicted_us - measured_us) / measured_us;
}
double WorkerPoint::p95_error() const {
  return std::abs(predicted_p95_us - measured_p95_us) / measured_p95_us;
}
double ScenarioOutcome::measured_throughput() const {
  return throughput(workers, &WorkerPoint::measured_us);
}
double ScenarioOutcome::predicted_throughput() const {
  return throughput(workers, &WorkerPoint::predicted_us);
}
double ScenarioOutcome::measured_mean_us() const {
  return geometric_mean(workers, &WorkerPoint::measured_us);
}
double ScenarioOutcome::predicted_mean_us() const {
  return geometric_mean(workers, &WorkerPoint::predicted_us);
}

Result<Validation> validate(const model::GpuDescription& gpu, const std::filesystem::path& data,
                            const LoopOptions& options, Half half) {
  const Predictor simulation = [&](const std::vector<LoopWorker>& workers, bool serial) {
    LoopOptions loop = options;
    loop.serial = serial;
    return planner::run_closed_loop(gpu, workers, loop);
  };
  return validate(gpu, data, simulation, half);
}

Result<Validation> validate(const model::GpuDescription& gpu, const std::filesystem::path& data,
                            const Predictor& predictor, Half half) {
  const auto mixes = load_colocation(data / "colocation-h100.json");
  if (!mixes) return tl::unexpected(mixes.error());
  ProfileShelf profiles(data / "profiles");
  Validation validation;
  for (const Mix& mix : *mixes) {
    if (half != Half::both && is_fitted(mix.name) != (half == Half::fitted)) continue;
    for (const Scenario& scenario : mix.scenarios) {
      if (!is_recorded(scenario)) {
        validation.skipped.push_back(mix.name + "/" + scenario.name +
                                     ": no kernel-to-stream assignment was recorded");
        continue;
      }
      auto outcome = run_scenario(gpu, mix, scenario, profiles, predictor);
      if (!outcome) return tl::unexpected(outcome.error());
      validation.outcomes.push_back(std::move(*outcome));
    }
  }
  return validation;
}

}  // namespace eclip::bench
