#include "tools/eclip-bench/colocate_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "daemon/planner/plan_document.h"
#include "tools/eclip-bench/colocate_judgement.h"

namespace eclip::bench {
namespace {

using nlohmann::json;

std::string name_of_load(LoadShare load) {
  return load == closed_loop ? "closed" : fmt::format("{:.2f}", load);
}

std::string means_table(const std::vector<PolicySummary>& all) {
  std::string text =
      "| GPU | load | policy | throughput | p95 | worst worker's p95 | the worst of all | requests "
      "per joule | fairness |\n"
      "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
  for (const PolicySummary& summary : all)
    text += fmt::format("| {} | {} | {} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.2f} |\n",
                        summary.gpu, name_of_load(summary.load), name_of(summary.policy),
                        summary.throughput, summary.p95, summary.worst_p95_mean, summary.worst_p95,
                        summary.requests_per_joule, summary.fairness);
  return text;
}

std::string targets_text(const std::vector<ColocateTarget>& targets) {
  std::string text = "\n| GPU | target | limit | reached | |\n| --- | --- | ---: | ---: | --- |\n";
  for (const ColocateTarget& target : targets)
    text += fmt::format("| {} | {} | {} {:.2f} | {:.3f} | {} |\n", target.gpu, target.name,
                        target.at_least ? ">=" : "<=", target.limit, target.value,
                        target.met() ? "met" : "NOT met");
  return text;
}

std::string misses_text(const std::vector<Rivalry>& rivals) {
  std::string text =
      "\n| GPU | mix | load | throughput | p95 | better is | worst worker beside unmasked | its "
      "p95 "
      "| others on a leaf, % of time |\n"
      "| --- | --- | --- | ---: | ---: | --- | --- | ---: | ---: |\n";
  std::size_t misses = 0;
  for (const Rivalry& rivalry : rivals) {
    if (rivalry.keeps_throughput() && rivalry.keeps_p95()) continue;
    ++misses;
    text += fmt::format("| {} | {} | {} | {:.2f}{} | {:.2f}{} | {} | {} | {:.2f} | {:.1f} |\n",
                        rivalry.cell->gpu, rivalry.cell->mix, name_of_load(rivalry.cell->load),
                        rivalry.throughput, rivalry.keeps_throughput() ? "" : " !", rivalry.p95,
                        rivalry.keeps_p95() ? "" : " !", name_of(rivalry.rival),
                        rivalry.worst_worker, rivalry.worst_p95, 100 * rivalry.intrusion_share);
  }
  if (rivals.empty()) return "";
  return fmt::format(
             "\nCells where ECLIP is behind the better of unmasked and model-wise (!): {} of {}.\n",
             misses, rivals.size()) +
         (misses == 0 ? "" : text);
}

std::string cell_text(const Colocation& colocation, const Cell& cell) {
  std::string text = fmt::format(
      "{} {} {} {}: throughput {:.3f} ({:.3f}-{:.3f}), fairness {:.2f}, {:.0f} W, {:.3f} J per "
      "request\n",
      cell.gpu, cell.mix, name_of_load(cell.load), name_of(cell.policy), cell.stp.median,
      cell.stp.least, cell.stp.most, cell.fairness.median, cell.watts.median,
      cell.joules_per_request.median);
  for (const MixInfo& mix : colocation.mixes) {
    if (mix.gpu != cell.gpu || mix.mix != cell.mix) continue;
    for (std::size_t w = 0; w < cell.workers.size(); ++w) {
      const WorkerFigures& worker = cell.workers[w];
      const double requests = std::max(1.0, static_cast<double>(worker.completed));
      const auto each = [requests](std::uint64_t count) {
        return static_cast<double>(count) / requests;
      };
      text += fmt::format(
          "  {:<24} {:>7.1f}/s, of alone {:.2f}; p50 {:>8.2f} p95 {:>8.2f} ({:.2f}-{:.2f}) p99 "
          "{:>8.2f} ms; per request {:.1f} ioctls {:.1f} barriers {:.1f} switches; others on its "
          "leaf: mean {:.0f} us p95 {:.0f} us, {:.1f} % of time\n",
          mix.profiles[w], worker.requests_per_s.median, worker.relative_rate.median,
          worker.p50_us.median / 1000, worker.p95_us.median / 1000, worker.p95_us.least / 1000,
          worker.p95_us.most / 1000, worker.p99_us.median / 1000, each(worker.counts.ioctls),
          each(worker.counts.barriers), each(worker.counts.switches),
          worker.intrusion_mean_us.median, worker.intrusion_p95_us.median,
          100 * worker.intrusion_share.median);
    }
  }
  return text;
}

json spread_json(const Spread& spread) {
  return {{"median", spread.median}, {"min", spread.least}, {"max", spread.most}};
}

json cell_json(const Cell& cell, const Colocation& colocation) {
  json entry{{"gpu", cell.gpu},
             {"mix", cell.mix},
             {"load", cell.load == closed_loop ? json("closed") : json(cell.load)},
             {"policy", name_of(cell.policy)},
             {"throughput", spread_json(cell.stp)},
             {"p95_us", spread_json(cell.p95_us)},
             {"fairness", spread_json(cell.fairness)},
             {"watts", spread_json(cell.watts)},
             {"joules_per_request", spread_json(cell.joules_per_request)},
             {"joules_per_work", spread_json(cell.joules_per_work)},
             {"requests_arrived", cell.arrived},
             {"requests_completed", cell.completed},
             {"kernels_completed", cell.kernels},
             {"kernels_out_of_order", cell.disorder},
             {"workers", json::array()}};
  for (const WorkerFigures& worker : cell.workers)
    entry["workers"].push_back({{"requests_per_s", spread_json(worker.requests_per_s)},
                                {"relative_rate", spread_json(worker.relative_rate)},
                                {"p50_us", spread_json(worker.p50_us)},
                                {"p95_us", spread_json(worker.p95_us)},
                                {"p99_us", spread_json(worker.p99_us)},
                                {"intrusion_mean_us", spread_json(worker.intrusion_mean_us)},
                                {"intrusion_p95_us", spread_json(worker.intrusion_p95_us)},
                                {"intrusion_share", spread_json(worker.intrusion_share)},
                                {"requests", worker.completed},
                                {"scheduled", worker.counts.scheduled},
                                {"bypassed", worker.counts.bypassed},
                                {"switches", worker.counts.switches},
                                {"barriers", worker.counts.barriers},
                                {"ioctls", worker.counts.ioctls}});
  const Cell* unmasked = colocation.find(cell.gpu, cell.mix, cell.load, Policy::unmasked);
  if (unmasked != nullptr)
    entry["relative_to_unmasked"] = {
        {"throughput", relative_stp(cell, *unmasked)},
        {"p95", mean_relative_p95(cell, *unmasked)},
        {"p95_of_workers", relative_p95(cell, *unmasked)},
        {"requests_per_joule", relative_work_per_joule(cell, *unmasked)}};
  return entry;
}

}  // namespace

std::string colocate_text(const Colocation& colocation, const ColocateOptions& options,
                          bool detail) {
  std::string text = fmt::format(
      "Co-located workers, simulated: {} seeds, {} requests of the slowest worker for each, plans "
      "for {}.\nLoad: each worker's share of its rate in a closed loop without masks, or closed "
      "loop.\n\n",
      options.seeds, options.requests, planner::name_of(options.objective));
  if (detail)
    for (const Cell& cell : colocation.cells) text += cell_text(colocation, cell);
  text +=
      "\nGeometric means over mixes, relative to unmasked (fairness: mean of Jain's index; "
      "simulated):\n\n";
  text += means_table(summaries(colocation));
  text += targets_text(targets_of(colocation));
  return text + misses_text(rivalries(colocation));
}

std::string colocate_json(const Colocation& colocation, const ColocateOptions& options) {
  json root{{"schema", "eclip.colocate/1"},
            {"simulated", true},
            {"seeds", options.seeds},
            {"requests", options.requests},
            {"objective", planner::name_of(options.objective)},
            {"mixes", json::array()},
            {"cells", json::array()},
            {"summaries", json::array()},
            {"targets", json::array()}};
  for (const MixInfo& mix : colocation.mixes)
    root["mixes"].push_back({{"gpu", mix.gpu},
                             {"mix", mix.mix},
                             {"profiles", mix.profiles},
                             {"solo_us", mix.solo_us},
                             {"unmasked_us", mix.unmasked_us}});
  for (const Cell& cell : colocation.cells) root["cells"].push_back(cell_json(cell, colocation));
  for (const PolicySummary& summary : summaries(colocation))
    root["summaries"].push_back(
        {{"gpu", summary.gpu},
         {"load", summary.load == closed_loop ? json("closed") : json(summary.load)},
         {"policy", name_of(summary.policy)},
         {"mixes", summary.mixes},
         {"throughput", summary.throughput},
         {"p95", summary.p95},
         {"worst_worker_p95", summary.worst_p95_mean},
         {"worst_p95", summary.worst_p95},
         {"requests_per_joule", summary.requests_per_joule},
         {"fairness", summary.fairness}});
  for (const ColocateTarget& target : targets_of(colocation))
    root["targets"].push_back({{"gpu", target.gpu},
                               {"name", target.name},
                               {"limit", target.limit},
                               {"at_least", target.at_least},
                               {"value", target.value},
                               {"met", target.met()}});
  return root.dump(1) + "\n";
}

}  // namespace eclip::bench
