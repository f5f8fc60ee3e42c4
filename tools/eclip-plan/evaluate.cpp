#include "tools/eclip-plan/evaluate.h"

#include <algorithm>
#include <map>

#include "tools/eclip-bench/judgement.h"

namespace eclip::plan {
namespace {

using planner::LoopOutcome;
using planner::LoopWorker;

/// Masks of all workers without repetitions, and the workers' kernels on them.
struct Indexed {
  std::vector<CuMask> streams;
  std::vector<planner::Worker> workers;
  planner::Assignment assignment;
  std::uint32_t queues = 0;
};

Indexed indexed(const std::vector<LoopWorker>& workers) {
  Indexed indexed;
  for (const LoopWorker& worker : workers) {
    std::vector<std::uint32_t> index;
    for (const CuMask& mask : worker.streams) {
      const auto found = std::find(indexed.streams.begin(), indexed.streams.end(), mask);
      index.push_back(static_cast<std::uint32_t>(found - indexed.streams.begin()));
      if (found == indexed.streams.end()) indexed.streams.push_back(mask);
    }
    indexed.queues += static_cast<std::uint32_t>(worker.streams.size());
    indexed.workers.push_back({.name = {}, .kernels = worker.kernels});
    auto& streams = indexed.assignment.stream_of_kernel.emplace_back();
    for (const std::uint32_t stream : worker.stream_of_kernel) streams.push_back(index[stream]);
  }
  return indexed;
}

}  // namespace

std::string name_of(Judge judge) {
  switch (judge) {
    case Judge::waiting:
      return "waiting";
    case Judge::proportional:
      return "proportional";
    case Judge::simulation:
      break;
  }
  return "simulation";
}

Result<bench::Validation> evaluate(const model::GpuDescription& gpu,
                                   const std::filesystem::path& data, Judge judge) {
  if (judge == Judge::simulation) return bench::validate(gpu, data, planner::LoopOptions{});
  const bench::Predictor predictor = [&](const std::vector<LoopWorker>& workers,
                                         bool serial) -> Result<LoopOutcome> {
    const Indexed plan = indexed(workers);
    const planner::CostTables tables(gpu, plan.workers, plan.streams);
    const planner::CostOptions options{.form = judge == Judge::waiting
                                                   ? planner::CostForm::waiting
                                                   : planner::CostForm::proportional,
                                       .queues = plan.queues,
                                       .one_at_a_time = serial};
    const auto prediction = planner::predict(gpu, tables, plan.assignment, options);
    LoopOutcome outcome{.mean_us = prediction.request_us, .request_us = {}};
    outcome.watts = prediction.watts;
    for (const double time : prediction.request_us) outcome.request_us.push_back({time});
    return outcome;
  };
  return bench::validate(gpu, data, predictor);
}

std::vector<Choice> choices(const bench::Validation& validation) {
  std::vector<Choice> choices;
  for (const auto& [mix, fitted] : bench::mixes_of(validation)) {
    const bench::ScenarioOutcome* best = nullptr;
    const bench::ScenarioOutcome* chosen = nullptr;
    for (const bench::ScenarioOutcome& outcome : validation.outcomes) {
      if (outcome.mix != mix) continue;
      if (!best || outcome.measured_mean_us() < best->measured_mean_us()) best = &outcome;
      if (!chosen || outcome.predicted_mean_us() < chosen->predicted_mean_us()) chosen = &outcome;
    }
    choices.push_back({.mix = mix,
                       .fitted = fitted,
                       .measured_best = best->scenario,
                       .chosen = chosen->scenario,
                       .regret = chosen->measured_mean_us() / best->measured_mean_us() - 1});
  }
  return choices;
}

}  // namespace eclip::plan
