#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tools/eclip-bench/judgement.h"
#include "tools/eclip-plan/evaluate.h"

namespace eclip::plan {
namespace {

using bench::Half;
using bench::ScenarioOutcome;
using bench::Validation;

constexpr std::array<std::pair<Half, const char*>, 3> halves{
    {{Half::both, "all"}, {Half::fitted, "fitted"}, {Half::held_out, "held out"}}};
/// A choice this close to the best is as good as it.
constexpr double close_enough = 0.02;

struct Figures {
  bench::Summary errors;
  double rank = 0;
  std::size_t mixes = 0;
  std::size_t good_choices = 0;
  double worst_regret = 0;
};

Figures figures_of(const Validation& validation, Half half) {
  Figures figures;
  figures.errors = bench::summarise(
      validation, [half](const ScenarioOutcome& outcome) { return bench::is_in(outcome, half); });
  figures.rank = bench::median_rank(validation, half);
  for (const Choice& choice : choices(validation)) {
    if (half != Half::both && choice.fitted != (half == Half::fitted)) continue;
    ++figures.mixes;
    figures.worst_regret = std::max(figures.worst_regret, choice.regret);
    if (choice.regret <= close_enough) ++figures.good_choices;
  }
  return figures;
}

std::string scenario_table(const std::vector<Evaluation>& evaluations) {
  std::string text = "\nMedian error of a worker's mean latency by scenario, %:\n\n| scenario |";
  std::string rule = "| --- |";
  for (const Evaluation& evaluation : evaluations) {
    text += fmt::format(" {} |", name_of(evaluation.judge));
    rule += " ---: |";
  }
  text += "\n" + rule + "\n";
  std::set<std::string> scenarios;
  for (const ScenarioOutcome& outcome : evaluations.front().validation.outcomes)
    scenarios.insert(outcome.scenario);
  for (const std::string& scenario : scenarios) {
    text += fmt::format("| {} |", scenario);
    for (const Evaluation& evaluation : evaluations)
      text += fmt::format(
          " {:.1f} |",
          100 * bench::summarise(evaluation.validation, [&](const ScenarioOutcome& outcome) {
                  return outcome.scenario == scenario;
                }).median);
    text += "\n";
  }
  return text;
}

std::string mix_table(const Evaluation& evaluation) {
  std::string text = fmt::format(
      "\nMixes by {}:\n\n| mix | fitted on | error, % | rank | measured best | ranked first | "
      "regret, % |\n| --- | --- | ---: | ---: | --- | --- | ---: |\n",
      name_of(evaluation.judge));
  for (const Choice& choice : choices(evaluation.validation)) {
    const auto errors =
        bench::summarise(evaluation.validation,
                         [&](const ScenarioOutcome& outcome) { return outcome.mix == choice.mix; });
    text += fmt::format("| {} | {} | {:.1f} | {:.2f} | {} | {} | {:.1f} |\n", choice.mix,
                        choice.fitted ? "yes" : "no", 100 * errors.median,
                        bench::rank_of_scenarios(evaluation.validation, choice.mix),
                        choice.measured_best, choice.chosen, 100 * choice.regret);
  }
  return text;
}

std::string worker_table(const Evaluation& evaluation) {
  std::string text = fmt::format(
      "\nMean latency by {}, us:\n\n| mix | scenario | worker | predicted | measured "
      "| error, % |\n| --- | --- | --- | ---: | ---: | ---: |\n",
      name_of(evaluation.judge));
  for (const ScenarioOutcome& outcome : evaluation.validation.outcomes)
    for (const bench::WorkerPoint& worker : outcome.workers)
      text += fmt::format("| {} | {} | {} | {:.0f} | {:.0f} | {:+.1f} |\n", outcome.mix,
                          outcome.scenario, worker.profile, worker.predicted_us, worker.measured_us,
                          100 * (worker.predicted_us / worker.measured_us - 1));
  return text;
}

}  // namespace

std::string evaluation_report(const std::vector<Evaluation>& evaluations, bool detail) {
  std::string text =
      "Error of a worker's mean latency against measurement; rank correlation of a mix's "
      "scenarios\n(median of mixes); mixes whose scenario ranked first is within 2 % of the "
      "measured best.\n\n| judge | mixes | median, % | p90, % | rank | first within 2 % | worst "
      "regret, % |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |\n";
  for (const Evaluation& evaluation : evaluations)
    for (const auto& [half, name] : halves) {
      const Figures figures = figures_of(evaluation.validation, half);
      text += fmt::format("| {} | {} | {:.1f} | {:.1f} | {:.2f} | {} of {} | {:.1f} |\n",
                          name_of(evaluation.judge), name, 100 * figures.errors.median,
                          100 * figures.errors.p90, figures.rank, figures.good_choices,
                          figures.mixes, 100 * figures.worst_regret);
    }
  text += scenario_table(evaluations);
  for (const Evaluation& evaluation : evaluations) {
    text += mix_table(evaluation);
    if (detail) text += worker_table(evaluation);
  }
  return text;
}

std::string evaluation_json(const std::vector<Evaluation>& evaluations) {
  nlohmann::json root;
  root["schema"] = "eclip.evaluation/1";
  for (const Evaluation& evaluation : evaluations) {
    nlohmann::json& judge = root["judges"][name_of(evaluation.judge)];
    for (const auto& [half, name] : halves) {
      const Figures figures = figures_of(evaluation.validation, half);
      judge["parts"][name] = {{"median_error", figures.errors.median},
                              {"p90_error", figures.errors.p90},
                              {"rank_correlation", figures.rank},
                              {"mixes", figures.mixes},
                              {"first_within_2_percent", figures.good_choices}};
    }
    for (const Choice& choice : choices(evaluation.validation))
      judge["mixes"][choice.mix] = {
          {"measured_best", choice.measured_best},
          {"ranked_first", choice.chosen},
          {"regret", choice.regret},
          {"rank_correlation", bench::rank_of_scenarios(evaluation.validation, choice.mix)}};
    for (const ScenarioOutcome& outcome : evaluation.validation.outcomes)
      for (const bench::WorkerPoint& worker : outcome.workers)
        judge["points"].push_back({{"mix", outcome.mix},
                                   {"scenario", outcome.scenario},
                                   {"worker", worker.profile},
                                   {"predicted_us", worker.predicted_us},
                                   {"measured_us", worker.measured_us}});
  }
  return root.dump(1) + "\n";
}

}  // namespace eclip::plan
