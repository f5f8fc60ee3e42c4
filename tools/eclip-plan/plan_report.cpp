#include "tools/eclip-plan/plan_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace eclip::plan {
namespace {

using planner::Candidate;
using planner::Objective;
using planner::Plan;
using planner::Row;
using planner::Worker;
using planner::WorkerSet;

const char* name_of(Objective objective) {
  switch (objective) {
    case Objective::latency:
      return "latency";
    case Objective::throughput:
      return "throughput";
    case Objective::energy:
      break;
  }
  return "energy";
}

const char* meaning_of(Objective objective) {
  switch (objective) {
    case Objective::latency:
      return "mean slowdown relative to the whole GPU alone";
    case Objective::throughput:
      return "harmonic mean slowdown relative to the whole GPU alone";
    case Objective::energy:
      break;
  }
  return "mean energy of a request relative to the whole GPU alone";
}

std::string stream_name(const Plan& plan, std::uint32_t stream) {
  return stream == plan.unmasked ? "unmasked" : fmt::format("{}", stream);
}

/// "0", or "0 x12, 3 x4, 0 x7" for a worker that switches: stream and groups in a row.
std::string runs_of(const Plan& plan, const std::vector<std::uint32_t>& streams) {
  std::string text;
  for (std::size_t first = 0; first < streams.size();) {
    std::size_t end = first;
    while (end < streams.size() && streams[end] == streams[first]) ++end;
    if (first == 0 && end == streams.size()) return stream_name(plan, streams[0]);
    text += fmt::format("{}{} x{}", first == 0 ? "" : ", ", stream_name(plan, streams[first]),
                        end - first);
    first = end;
  }
  return text;
}

std::size_t switches_of(const std::vector<std::uint32_t>& streams) {
  std::size_t switches = 0;
  for (std::size_t g = 1; g < streams.size(); ++g)
    if (streams[g] != streams[g - 1]) ++switches;
  return switches;
}

std::string set_name(WorkerSet set, std::size_t workers) {
  std::string text;
  for (std::size_t w = 0; w < workers; ++w)
    if (set >> w & 1U) text += (text.empty() ? "" : "+") + std::to_string(w);
  return text;
}

/// Joules of a request: its dynamic energy, and its equal share of the idle power for its time.
double joules_of(const Row& row, std::size_t worker, const model::GpuDescription& gpu,
                 std::size_t active) {
  return row.prediction.joules[worker] + gpu.power.idle_watts * row.prediction.request_us[worker] *
                                             1e-6 / static_cast<double>(active);
}

std::string pool_table(const Plan& plan, std::size_t workers) {
  std::string text = fmt::format(
      "Pool '{}': {} CU-masked streams of {}{}\n\n| stream | leaves of | CUs | mask |\n"
      "| ---: | --- | ---: | --- |\n",
      plan.pool.name, plan.pool.streams.size(), planner::stream_budget,
      plan.pool.pruned_unions == 0
          ? ""
          : fmt::format(" ({} useful unions of leaves did not fit)", plan.pool.pruned_unions));
  for (std::size_t s = 0; s < plan.pool.streams.size(); ++s)
    text += fmt::format(
        "| {} | {} | {} | {} |\n", s,
        plan.pool.streams[s].leaves == 0 ? "-" : set_name(plan.pool.streams[s].leaves, workers),
        plan.pool.streams[s].mask.count(), plan.pool.streams[s].mask.to_string());
  return text;
}

std::string worker_table(const Plan& plan, std::span<const Worker> workers,
                         const model::GpuDescription& gpu) {
  const Row& row = plan.rows.back();
  std::string text =
      "\nAll workers active; times of a request in ms, energy in J (its own, and its share of the "
      "idle power):\n\n| worker | profile | stream | switches | predicted | simulated | alone | "
      "unmasked | model-wise | energy |\n"
      "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
  const auto other_ms = [&](const Candidate& other, std::size_t w) {
    return other.all_active.prediction.request_us[w] / 1000;
  };
  for (std::size_t w = 0; w < workers.size(); ++w)
    text +=
        fmt::format("| {} | {} | {} | {} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.2f} |\n",
                    w, workers[w].name, runs_of(plan, row.streams[w]), switches_of(row.streams[w]),
                    row.prediction.request_us[w] / 1000,
                    row.simulated_us.empty() ? 0 : row.simulated_us[w] / 1000,
                    plan.solo_us[w] / 1000, other_ms(plan.candidates[0], w),
                    other_ms(plan.candidates[1], w), joules_of(row, w, gpu, workers.size()));
  return text + fmt::format("\nMean power {:.0f} W.\n", row.prediction.watts);
}

std::string row_table(const Plan& plan, std::size_t workers) {
  std::string text = "\n| active | stream of each worker | value |\n| --- | --- | ---: |\n";
  for (WorkerSet active = 1; active <= plan.rows.size(); ++active) {
    const Row& row = plan.row(active);
    std::string streams;
    for (std::size_t w = 0; w < workers; ++w)
      if (active >> w & 1U)
        streams +=
            fmt::format("{}{}: {}", streams.empty() ? "" : "; ", w, runs_of(plan, row.streams[w]));
    text += fmt::format("| {} | {} | {:.3f} |\n", set_name(active, workers), streams, row.value);
  }
  return text;
}

std::string violation_table(const Plan& plan, std::span<const Worker> workers) {
  if (plan.violations.empty()) return "";
  std::string text =
      "\nLatency bounds that no plan found keeps; these rows come closest:\n\n| active | worker | "
      "request, ms | bound, ms |\n| --- | --- | ---: | ---: |\n";
  for (const planner::Violation& violation : plan.violations)
    text += fmt::format("| {} | {} ({}) | {:.2f} | {:.2f} |\n",
                        set_name(violation.active, workers.size()), violation.worker,
                        workers[violation.worker].name, violation.request_us / 1000,
                        violation.latency_bound_us / 1000);
  return text;
}

std::string candidate_table(const Plan& plan) {
  const Row& row = plan.rows.back();
  const bool is_simulated = row.simulated_value > 0;
  std::string text = fmt::format(
      "\nAll workers active, {}: {:.3f}.\n\n| rejected | value | why |\n| --- | ---: | --- |\n",
      is_simulated ? "simulated" : "predicted", is_simulated ? row.simulated_value : row.value);
  for (const Candidate& candidate : plan.candidates) {
    const Row& other = candidate.all_active;
    const double value = is_simulated ? other.simulated_value : other.value;
    const double worse = 100 * (value / (is_simulated ? row.simulated_value : row.value) - 1);
    text += fmt::format("| {} | {:.3f} | {} |\n", candidate.name, value,
                        worse < 0.1 ? "as good; the plan has rows for idle workers"
                                    : fmt::format("{:.1f} % worse", worse));
  }
  return text;
}

}  // namespace

std::string plan_report(const Plan& plan, std::span<const Worker> workers,
                        const model::GpuDescription& gpu, Objective objective) {
  std::string text = pool_table(plan, workers.size());
  text += worker_table(plan, workers, gpu);
  text += row_table(plan, workers.size());
  text += candidate_table(plan);
  text += violation_table(plan, workers);
  text += fmt::format(
      "\n{} ({}), expected over the active sets: {:.3f}; no plan on this pool is below {:.3f} "
      "(gap {:.0f} %).{}\n",
      name_of(objective), meaning_of(objective), plan.value, plan.lower_bound,
      100 * (plan.value / plan.lower_bound - 1),
      plan.complete ? "" : " The search ran out of time.");
  return text;
}

std::string pool_toml(const Plan& plan) {
  std::string text = "[pool]\nstreams = [";
  for (std::size_t s = 0; s < plan.pool.streams.size(); ++s)
    text += fmt::format("{}\"0:{}\"", s == 0 ? "" : ", ", plan.pool.streams[s].mask.to_string());
  return text + "]\n";
}

std::string plan_json(const Plan& plan, std::span<const Worker> workers,
                      const model::GpuDescription& gpu, Objective objective) {
  nlohmann::json root;
  root["schema"] = "eclip.plan/1";
  root["gpu"] = gpu.name;
  root["objective"] = name_of(objective);
  root["value"] = plan.value;
  root["lower_bound"] = plan.lower_bound;
  root["complete"] = plan.complete;
  root["pool"]["name"] = plan.pool.name;
  root["pool"]["pruned_unions"] = plan.pool.pruned_unions;
  root["pool"]["streams"] = nlohmann::json::array();
  for (const planner::PoolStream& stream : plan.pool.streams)
    root["pool"]["streams"].push_back(
        {{"cu_list", stream.mask.to_string()}, {"leaves", stream.leaves}});
  root["unmasked"] = plan.unmasked;
  for (std::size_t w = 0; w < workers.size(); ++w)
    root["workers"].push_back({{"name", workers[w].name},
                               {"requests_per_s", workers[w].requests_per_s},
                               {"unknown", workers[w].unknown},
                               {"weight", workers[w].weight},
                               {"latency_bound_us", workers[w].latency_bound_us},
                               {"home", plan.pool.home[w]},
                               {"activity", plan.activity[w]},
                               {"alone_us", plan.solo_us[w]},
                               {"first_kernel_of_group", plan.groups[w]}});
  for (WorkerSet active = 1; active <= plan.rows.size(); ++active) {
    const Row& row = plan.row(active);
    root["rows"].push_back({{"active", active},
                            {"value", row.value},
                            {"simulated_value", row.simulated_value},
                            {"simulated_us", row.simulated_us},
                            {"stream_of_group", row.streams},
                            {"request_us", row.prediction.request_us},
                            {"joules", row.prediction.joules},
                            {"watts", row.prediction.watts}});
  }
  for (const Candidate& candidate : plan.candidates)
    root["candidates"].push_back({{"name", candidate.name},
                                  {"value", candidate.value},
                                  {"simulated_value", candidate.all_active.simulated_value},
                                  {"request_us", candidate.all_active.prediction.request_us}});
  for (const planner::Violation& violation : plan.violations)
    root["violations"].push_back({{"active", violation.active},
                                  {"worker", violation.worker},
                                  {"request_us", violation.request_us},
                                  {"latency_bound_us", violation.latency_bound_us}});
  return root.dump(1) + "\n";
}

}  // namespace eclip::plan
