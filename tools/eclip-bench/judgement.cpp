#include "tools/eclip-bench/judgement.h"

#include <cmath>

#include "tools/eclip-bench/statistics.h"

namespace eclip::bench {
namespace {

double relative_error(double predicted, double measured) {
  return std::abs(predicted - measured) / measured;
}

bool is_disjoint(const ScenarioOutcome& outcome) {
  return outcome.scenario == "b_eq" || outcome.scenario == "b_opt";
}

bool is_past_the_connections(const ScenarioOutcome& outcome) {
  return outcome.scenario == "d_krisp";
}

bool any(const ScenarioOutcome&) {
  return true;
}

/// A target on one figure of the workers or scenarios that pass a filter.
Target on(const Validation& validation, const std::string& name, double limit,
          double Summary::*figure, const Filter& filter) {
  const auto of = [&](Half half) {
    return summarise(validation,
                     [&](const ScenarioOutcome& outcome) {
                       return is_in(outcome, half) && filter(outcome);
                     }).*
           figure;
  };
  return {name, limit, false, of(Half::both), of(Half::fitted), of(Half::held_out)};
}

}  // namespace

bool is_in(const ScenarioOutcome& outcome, Half half) {
  return half == Half::both || outcome.fitted == (half == Half::fitted);
}

Summary summarise(const Validation& validation, const Filter& filter) {
  std::vector<double> means;
  std::vector<double> p95s;
  std::vector<double> throughput;
  std::vector<double> watts;
  for (const ScenarioOutcome& outcome : validation.outcomes) {
    if (!filter(outcome)) continue;
    for (const WorkerPoint& worker : outcome.workers) {
      means.push_back(worker.error());
      p95s.push_back(worker.p95_error());
    }
    throughput.push_back(
        relative_error(outcome.predicted_throughput(), outcome.measured_throughput()));
    watts.push_back(relative_error(outcome.predicted_watts, outcome.measured_watts));
  }
  return {means.size(),        quantile(means, 0.5),      quantile(means, 0.9),
          quantile(p95s, 0.5), quantile(throughput, 0.5), quantile(watts, 0.5)};
}

double rank_of_scenarios(const Validation& validation, const std::string& mix) {
  std::vector<double> measured;
  std::vector<double> predicted;
  for (const ScenarioOutcome& outcome : validation.outcomes) {
    if (outcome.mix != mix) continue;
    measured.push_back(outcome.measured_mean_us());
    predicted.push_back(outcome.predicted_mean_us());
  }
  return rank_correlation(measured, predicted);
}

double median_rank(const Validation& validation, Half half) {
  std::vector<double> ranks;
  for (const auto& [mix, fitted] : mixes_of(validation))
    if (half == Half::both || fitted == (half == Half::fitted))
      ranks.push_back(rank_of_scenarios(validation, mix));
  return quantile(std::move(ranks), 0.5);
}

std::map<std::string, bool> mixes_of(const Validation& validation) {
  std::map<std::string, bool> mixes;
  for (const ScenarioOutcome& outcome : validation.outcomes) mixes[outcome.mix] = outcome.fitted;
  return mixes;
}

std::vector<Target> judge(const Validation& validation) {
  return {
      on(validation, "disjoint, median", 0.03, &Summary::median, is_disjoint),
      on(validation, "all, median", 0.05, &Summary::median, any),
      on(validation, "all, 90th percentile", 0.15, &Summary::p90, any),
      on(validation, "d_krisp, median", 0.15, &Summary::median, is_past_the_connections),
      on(validation, "mean power, median", 0.10, &Summary::watts_median, any),
      {"rank of scenarios, median of mixes", 0.9, true, median_rank(validation, Half::both),
       median_rank(validation, Half::fitted), median_rank(validation, Half::held_out)},
  };
}

}  // namespace eclip::bench
