#include "tools/eclip-bench/report.h"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "tools/eclip-bench/statistics.h"

namespace eclip::bench {
namespace {

using Filter = std::function<bool(const ScenarioOutcome&)>;

/// Errors of the workers and of the power in the outcomes that pass a filter.
struct Summary {
  std::size_t points = 0;
  double median = 0;
  double p90 = 0;
  double watts_median = 0;
};

Summary summarise(const Validation& validation, const Filter& filter) {
  std::vector<double> errors;
  std::vector<double> watts;
  for (const ScenarioOutcome& outcome : validation.outcomes) {
    if (!filter(outcome)) continue;
    for (const WorkerPoint& worker : outcome.workers) errors.push_back(worker.error());
    watts.push_back(std::abs(outcome.predicted_watts - outcome.measured_watts) /
                    outcome.measured_watts);
  }
  return {errors.size(), quantile(errors, 0.5), quantile(errors, 0.9), quantile(watts, 0.5)};
}

/// Rank correlation of a mix's scenarios by mean latency.
double correlation(const Validation& validation, const std::string& mix) {
  std::vector<double> measured;
  std::vector<double> predicted;
  for (const ScenarioOutcome& outcome : validation.outcomes) {
    if (outcome.mix != mix) continue;
    measured.push_back(outcome.measured_mean_us());
    predicted.push_back(outcome.predicted_mean_us());
  }
  return rank_correlation(measured, predicted);
}

/// Names of mixes (true: fitted on) and of scenarios, in order.
std::map<std::string, bool> mixes_of(const Validation& validation) {
  std::map<std::string, bool> mixes;
  for (const ScenarioOutcome& outcome : validation.outcomes) mixes[outcome.mix] = outcome.fitted;
  return mixes;
}

std::map<std::string, Filter> scenarios_of(const Validation& validation) {
  std::map<std::string, Filter> scenarios;
  for (const ScenarioOutcome& outcome : validation.outcomes)
    scenarios.try_emplace(
        outcome.scenario,
        [name = outcome.scenario](const ScenarioOutcome& other) { return other.scenario == name; });
  return scenarios;
}

/// The whole and its halves, with and without the scenario that lies past the stream budget.
std::vector<std::pair<std::string, Filter>> parts() {
  const Filter within = [](const ScenarioOutcome& outcome) {
    return outcome.scenario != "d_krisp";
  };
  const Filter fitted = [](const ScenarioOutcome& outcome) { return outcome.fitted; };
  const Filter held_out = [](const ScenarioOutcome& outcome) { return !outcome.fitted; };
  const auto both = [](const Filter& a, const Filter& b) -> Filter {
    return [a, b](const ScenarioOutcome& outcome) { return a(outcome) && b(outcome); };
  };
  return {{"all", [](const ScenarioOutcome&) { return true; }},
          {"all, fitted mixes", fitted},
          {"all, held-out mixes", held_out},
          {"without d_krisp", within},
          {"without d_krisp, fitted mixes", both(within, fitted)},
          {"without d_krisp, held-out mixes", both(within, held_out)}};
}

std::string row(const std::string& name, const Summary& summary) {
  return fmt::format("| {:<31} | {:>6} | {:>8.1f} | {:>6.1f} | {:>8.1f} |\n", name, summary.points,
                     100 * summary.median, 100 * summary.p90, 100 * summary.watts_median);
}

nlohmann::json to_json(const Summary& summary) {
  return {{"points", summary.points},
          {"median_error", summary.median},
          {"p90_error", summary.p90},
          {"median_watts_error", summary.watts_median}};
}

}  // namespace

std::string text_report(const Validation& validation, const model::GpuDescription& gpu) {
  std::string text = fmt::format(
      "Device model of {} ({}) against measurement on an H100: absolute error in per "
      "cent of a worker's\nmean latency and, last column, of the mean power.\n\n",
      gpu.name, gpu.marketing_name);
  const std::string head =
      "| {:<31} | points | median % |  p90 % | median W |\n"
      "| ------------------------------- | -----: | -------: | -----: | -------: |\n";
  text += fmt::format(fmt::runtime(head), "scenario");
  for (const auto& [name, filter] : scenarios_of(validation))
    text += row(name, summarise(validation, filter));
  text += "\n" + fmt::format(fmt::runtime(head), "part");
  for (const auto& [name, filter] : parts()) text += row(name, summarise(validation, filter));
  text += "\n| mix          | fitted on | median % | rank correlation of scenarios |\n";
  text += "| ------------ | --------- | -------: | ----------------------------: |\n";
  std::vector<double> fitted;
  std::vector<double> held_out;
  for (const auto& [mix, is_fitted] : mixes_of(validation)) {
    const double rank = correlation(validation, mix);
    (is_fitted ? fitted : held_out).push_back(rank);
    const Summary summary = summarise(
        validation, [name = mix](const ScenarioOutcome& other) { return other.mix == name; });
    text += fmt::format("| {:<12} | {:<9} | {:>8.1f} | {:>29.2f} |\n", mix,
                        is_fitted ? "yes" : "no", 100 * summary.median, rank);
  }
  text += fmt::format("\nMedian rank correlation: fitted mixes {:.2f}, held-out mixes {:.2f}.\n",
                      quantile(fitted, 0.5), quantile(held_out, 0.5));
  for (const std::string& skipped : validation.skipped)
    text += fmt::format("Skipped {}.\n", skipped);
  return text;
}

std::string json_report(const Validation& validation, const model::GpuDescription& gpu) {
  nlohmann::json root;
  root["schema"] = "eclip.validation/1";
  root["gpu"] = gpu.name;
  for (const auto& [name, filter] : scenarios_of(validation))
    root["scenarios"][name] = to_json(summarise(validation, filter));
  for (const auto& [name, filter] : parts())
    root["parts"][name] = to_json(summarise(validation, filter));
  for (const auto& [mix, is_fitted] : mixes_of(validation))
    root["mixes"][mix] = {{"fitted", is_fitted},
                          {"rank_correlation", correlation(validation, mix)}};
  root["skipped"] = validation.skipped;
  root["points"] = nlohmann::json::array();
  for (const ScenarioOutcome& outcome : validation.outcomes) {
    nlohmann::json workers = nlohmann::json::array();
    for (const WorkerPoint& worker : outcome.workers)
      workers.push_back({{"profile", worker.profile},
                         {"measured_us", worker.measured_us},
                         {"predicted_us", worker.predicted_us}});
    root["points"].push_back({{"mix", outcome.mix},
                              {"scenario", outcome.scenario},
                              {"measured_watts", outcome.measured_watts},
                              {"predicted_watts", outcome.predicted_watts},
                              {"workers", workers}});
  }
  return root.dump(1) + "\n";
}

}  // namespace eclip::bench
