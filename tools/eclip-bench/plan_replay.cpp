#include "tools/eclip-bench/plan_replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "daemon/model/profile.h"
#include "daemon/planner/plan_document.h"
#include "ipc/read_file.h"
#include "tools/eclip-bench/statistics.h"

namespace eclip::bench {
namespace {

struct ReplayFigures {
  double mean_ms;
  double p50_ms;
  double p95_ms;
};

ReplayFigures figures_of(const WorkerOutcome& worker) {
  const auto& us = worker.latency_us;
  if (us.empty()) return {.mean_ms = 0, .p50_ms = 0, .p95_ms = 0};
  const double sum = std::accumulate(us.begin(), us.end(), 0.0);
  return {.mean_ms = sum / static_cast<double>(us.size()) / 1000,
          .p50_ms = quantile(us, 0.5) / 1000,
          .p95_ms = quantile(us, 0.95) / 1000};
}

Result<nlohmann::json> read_document(const std::filesystem::path& path) {
  auto text = read_file(path);
  if (!text) return tl::unexpected(text.error());
  auto document = nlohmann::json::parse(*text, nullptr, false);
  if (document.is_discarded()) return fail(Errc::malformed, path.string() + " is not JSON");
  return document;
}

}  // namespace

Result<PlanReplay> replay_plan(const model::GpuDescription& gpu, const PlanReplayOptions& options) {
  const auto document = read_document(options.plan);
  if (!document) return tl::unexpected(document.error());
  const auto plan = planner::parse_plan(*document, gpu.geometry.cu_count());
  if (!plan) return fail(plan.error(), options.plan.string());
  PlanReplay replay;
  std::vector<planner::Worker> workers;
  std::vector<std::optional<std::uint32_t>> seats;
  for (std::size_t w = 0; w < plan->workers.size(); ++w) {
    const auto& planned = plan->workers[w];
    const auto profile =
        model::load_profile(options.data / "profiles" / (planned.profile + ".json"));
    if (!profile) return tl::unexpected(profile.error());
    const auto& worker = (*document)["workers"][w];
    const auto given = worker.find("requests_per_s");
    const double rate = given != worker.end() && given->is_number() ? given->get<double>() : 0;
    workers.push_back(planner::profiled_worker(*profile, planned.name, rate));
    replay.names.push_back(planned.name);
    seats.emplace_back(static_cast<std::uint32_t>(w));
  }
  replay.open_loop = std::all_of(workers.begin(), workers.end(),
                                 [](const auto& worker) { return worker.requests_per_s > 0; });
  Sharing sharing;
  sharing.pool = plan->pool;
  for (std::size_t w = 0; w < workers.size(); ++w)
    sharing.tables.push_back(planner::table_of(*plan, w, seats));
  auto outcome = run_colocated(
      gpu, workers, sharing,
      {.open_loop = replay.open_loop, .requests = options.requests, .seed = options.seed});
  if (!outcome) return tl::unexpected(outcome.error());
  replay.outcome = std::move(*outcome);
  return replay;
}

std::string plan_replay_text(const PlanReplay& replay) {
  std::string text = fmt::format(
      "{}, simulated in virtual time. Device time, ms; requests of {:.3f} s.\n\n"
      "| worker | requests | mean | p50 | p95 | scheduled | bypassed | switches |\n"
      "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
      replay.open_loop ? "Requests at random" : "Closed loop", replay.outcome.seconds);
  for (std::size_t w = 0; w < replay.names.size(); ++w) {
    const WorkerOutcome& worker = replay.outcome.workers[w];
    const ReplayFigures figures = figures_of(worker);
    text += fmt::format("| {} | {} | {:.3f} | {:.3f} | {:.3f} | {} | {} | {} |\n", replay.names[w],
                        worker.latency_us.size(), figures.mean_ms, figures.p50_ms, figures.p95_ms,
                        worker.counts.scheduled, worker.counts.bypassed, worker.counts.switches);
  }
  return text;
}

std::string plan_replay_json(const PlanReplay& replay) {
  nlohmann::json workers = nlohmann::json::array();
  for (std::size_t w = 0; w < replay.names.size(); ++w) {
    const WorkerOutcome& worker = replay.outcome.workers[w];
    const ReplayFigures figures = figures_of(worker);
    workers.push_back(
        {{"name", replay.names[w]},
         {"requests", worker.latency_us.size()},
         {"latency_ms",
          {{"mean", figures.mean_ms}, {"p50", figures.p50_ms}, {"p95", figures.p95_ms}}},
         {"scheduled", worker.counts.scheduled},
         {"bypassed", worker.counts.bypassed},
         {"switches", worker.counts.switches}});
  }
  return nlohmann::json{{"schema", "eclip.plan-replay/1"},
                        {"simulated", true},
                        {"open_loop", replay.open_loop},
                        {"seconds", replay.outcome.seconds},
                        {"workers", workers}}
             .dump(2) +
         "\n";
}

}  // namespace eclip::bench
