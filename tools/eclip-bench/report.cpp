#include "tools/eclip-bench/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/eclip-bench/judgement.h"

namespace eclip::bench {
namespace {

std::map<std::string, Filter> scenarios_of(const Validation& validation) {
  std::map<std::string, Filter> scenarios;
  for (const ScenarioOutcome& outcome : validation.outcomes)
    scenarios.try_emplace(
        outcome.scenario,
        [name = outcome.scenario](const ScenarioOutcome& other) { return other.scenario == name; });
  return scenarios;
}

/// The whole and its halves.
std::vector<std::pair<std::string, Filter>> parts() {
  const auto half = [](Half which) -> Filter {
    return [which](const ScenarioOutcome& outcome) { return is_in(outcome, which); };
  };
  return {{"all", half(Half::both)},
          {"all, fitted mixes", half(Half::fitted)},
          {"all, held-out mixes", half(Half::held_out)}};
}

std::string row(const std::string& name, const Summary& summary) {
  return fmt::format("| {:<20} | {:>6} | {:>7.1f} | {:>6.1f} | {:>6.1f} | {:>13.1f} | {:>8.1f} |\n",
                     name, summary.points, 100 * summary.median, 100 * summary.p90,
                     100 * summary.p95_median, 100 * summary.throughput_median,
                     100 * summary.watts_median);
}

std::string head(const char* name) {
  return fmt::format(
      "\n| {:<20} | points | mean, % |  p90 % |  p95, % | throughput, % | power, % |\n"
      "| -------------------- | -----: | ------: | -----: | -----: | ------------: | -------: |\n",
      name);
}

std::string targets_table(const Validation& validation) {
  std::string text =
      "| target                             |     limit |    all |         | fitted |         | "
      "held out |         |\n"
      "| ---------------------------------- | --------: | -----: | ------- | -----: | ------- | "
      "-------: | ------- |\n";
  for (const Target& target : judge(validation)) {
    const auto shown = [&target](double value) {
      return target.at_least ? fmt::format("{:.2f}", value) : fmt::format("{:.1f} %", 100 * value);
    };
    const auto verdict = [&target](double value) { return target.met(value) ? "met" : "NOT met"; };
    text += fmt::format("| {:<34} | {:>9} | {:>6} | {:<7} | {:>6} | {:<7} | {:>8} | {:<7} |\n",
                        target.name, (target.at_least ? ">= " : "<= ") + shown(target.limit),
                        shown(target.all), verdict(target.all), shown(target.fitted),
                        verdict(target.fitted), shown(target.held_out), verdict(target.held_out));
  }
  return text;
}

std::string mixes_table(const Validation& validation) {
  std::string text = "\n| mix          | fitted on | mean, % | rank correlation of scenarios |\n";
  text += "| ------------ | --------- | ------: | ----------------------------: |\n";
  for (const auto& [mix, fitted] : mixes_of(validation)) {
    const Summary summary = summarise(
        validation, [name = mix](const ScenarioOutcome& other) { return other.mix == name; });
    text += fmt::format("| {:<12} | {:<9} | {:>7.1f} | {:>29.2f} |\n", mix, fitted ? "yes" : "no",
                        100 * summary.median, rank_of_scenarios(validation, mix));
  }
  return text;
}

nlohmann::json to_json(const Summary& summary) {
  return {{"points", summary.points},
          {"median_error", summary.median},
          {"p90_error", summary.p90},
          {"median_p95_error", summary.p95_median},
          {"median_throughput_error", summary.throughput_median},
          {"median_watts_error", summary.watts_median}};
}

}  // namespace

std::string text_report(const Validation& validation, const model::GpuDescription& gpu) {
  std::string text =
      fmt::format("Device model of {} ({}) against measurement on an H100: absolute errors.\n\n",
                  gpu.name, gpu.marketing_name);
  text += targets_table(validation);
  text +=
      "\nMedians of a worker's mean latency (and its 90th percentile) and p95 latency, and of a\n"
      "scenario's throughput and mean power.\n";
  text += head("scenario");
  for (const auto& [name, filter] : scenarios_of(validation))
    text += row(name, summarise(validation, filter));
  text += head("part");
  for (const auto& [name, filter] : parts()) text += row(name, summarise(validation, filter));
  text += mixes_table(validation);
  for (const std::string& skipped : validation.skipped)
    text += fmt::format("Skipped {}.\n", skipped);
  return text;
}

std::string detail_report(const Validation& validation) {
  std::string text =
      "Predicted / measured: mean and p95 latency in us, throughput relative to the "
      "workers alone, power in W.\n";
  for (const ScenarioOutcome& outcome : validation.outcomes) {
    text += fmt::format("\n{} {} ({}): throughput {:.2f} / {:.2f}, power {:.0f} / {:.0f}\n",
                        outcome.mix, outcome.scenario, outcome.fitted ? "fitted" : "held out",
                        outcome.predicted_throughput(), outcome.measured_throughput(),
                        outcome.predicted_watts, outcome.measured_watts);
    for (const WorkerPoint& worker : outcome.workers)
      text +=
          fmt::format("  {:<24} mean {:>8.0f} / {:>8.0f} ({:>+5.1f} %)  p95 {:>8.0f} / {:>8.0f}\n",
                      worker.profile, worker.predicted_us, worker.measured_us,
                      100 * (worker.predicted_us / worker.measured_us - 1), worker.predicted_p95_us,
                      worker.measured_p95_us);
  }
  return text + "\n";
}

std::string json_report(const Validation& validation, const model::GpuDescription& gpu) {
  nlohmann::json root;
  root["schema"] = "eclip.validation/2";
  root["gpu"] = gpu.name;
  for (const Target& target : judge(validation))
    root["targets"].push_back({{"name", target.name},
                               {"limit", target.limit},
                               {"at_least", target.at_least},
                               {"all", target.all},
                               {"fitted", target.fitted},
                               {"held_out", target.held_out}});
  for (const auto& [name, filter] : scenarios_of(validation))
    root["scenarios"][name] = to_json(summarise(validation, filter));
  for (const auto& [name, filter] : parts())
    root["parts"][name] = to_json(summarise(validation, filter));
  for (const auto& [mix, fitted] : mixes_of(validation))
    root["mixes"][mix] = {{"fitted", fitted},
                          {"rank_correlation", rank_of_scenarios(validation, mix)}};
  root["skipped"] = validation.skipped;
  root["points"] = nlohmann::json::array();
  for (const ScenarioOutcome& outcome : validation.outcomes) {
    nlohmann::json workers = nlohmann::json::array();
    for (const WorkerPoint& worker : outcome.workers)
      workers.push_back({{"profile", worker.profile},
                         {"measured_us", worker.measured_us},
                         {"predicted_us", worker.predicted_us},
                         {"measured_p95_us", worker.measured_p95_us},
                         {"predicted_p95_us", worker.predicted_p95_us}});
    root["points"].push_back({{"mix", outcome.mix},
                              {"scenario", outcome.scenario},
                              {"measured_watts", outcome.measured_watts},
                              {"predicted_watts", outcome.predicted_watts},
                              {"measured_throughput", outcome.measured_throughput()},
                              {"predicted_throughput", outcome.predicted_throughput()},
                              {"workers", workers}});
  }
  return root.dump(1) + "\n";
}

}  // namespace eclip::bench
