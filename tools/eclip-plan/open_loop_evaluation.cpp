#include "tools/eclip-plan/open_loop_evaluation.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "daemon/model/profile.h"
#include "daemon/planner/open_loop.h"
#include "daemon/planner/planner.h"
#include "ipc/read_file.h"
#include "tools/eclip-bench/statistics.h"

namespace eclip::plan {
namespace {

using nlohmann::json;
using planner::Worker;
using planner::WorkerSet;

constexpr std::array loads{0.4, 0.6, 0.8};

/// The cells to simulate, with what was measured.
Result<std::vector<OpenLoopCell>> read_cells(const std::filesystem::path& file) {
  const auto content = read_file(file);
  if (!content) return fail(content.error(), "open-loop mixes");
  std::vector<OpenLoopCell> cells;
  try {
    const json root = json::parse(*content);
    for (const json& mix : root.at("mixes"))
      for (const double load : loads) {
        OpenLoopCell& cell = cells.emplace_back(
            OpenLoopCell{.mix = mix.at("mix"), .load = load, .profiles = mix.at("profiles")});
        for (const json& measured : mix.at("measured")) {
          if (measured.at("load") != load) continue;
          const auto relative = [&](const char* key) {
            return Relative{measured.at(key).at(0), measured.at(key).at(1)};
          };
          cell.measured_static = relative("static_disjoint");
          cell.measured_active = relative("active_sets");
        }
      }
  } catch (const json::exception& error) {
    return fail(Errc::malformed, file.string() + ": " + error.what() + "; restore the file");
  }
  return cells;
}

Result<std::vector<Worker>> read_workers(const std::vector<std::string>& names,
                                         const std::filesystem::path& data) {
  std::vector<Worker> workers;
  for (const std::string& name : names) {
    const auto profile = model::load_profile(data / "profiles" / (name + ".h100.json"));
    if (!profile) return tl::unexpected(profile.error());
    workers.push_back(planner::profiled_worker(*profile, name));
  }
  return workers;
}

/// Sets rates to a share of those in a closed loop without masks.
Result<void> set_rates(std::vector<Worker>& workers, const model::GpuDescription& gpu,
                       double load) {
  std::vector<planner::LoopWorker> loop;
  loop.reserve(workers.size());
  for (const Worker& worker : workers)
    loop.push_back({.kernels = worker.kernels,
                    .streams = {CuMask::full(gpu.geometry.cu_count())},
                    .stream_of_kernel = std::vector<std::uint32_t>(worker.kernels.size(), 0)});
  const auto outcome = planner::run_closed_loop(gpu, loop, {});
  if (!outcome) return tl::unexpected(outcome.error());
  for (std::size_t w = 0; w < workers.size(); ++w)
    workers[w].requests_per_s = load * 1e6 / outcome->mean_us[w];
  return {};
}

Result<void> simulate(OpenLoopCell& cell, std::vector<Worker> workers,
                      const model::GpuDescription& gpu, const planner::OpenLoopOptions& options) {
  if (auto set = set_rates(workers, gpu, cell.load); !set) return set;
  const auto plan = planner::make_plan(gpu, workers, {});
  if (!plan) return tl::unexpected(plan.error());
  const planner::Pool leaves =
      planner::pool_of_leaves(gpu, "disjoint", planner::sized_leaves(gpu, workers, plan->activity),
                              workers, plan->activity);
  std::vector<CuMask> streams;
  for (const planner::PoolStream& stream : plan->pool.streams) streams.push_back(stream.mask);
  streams.push_back(CuMask::full(gpu.geometry.cu_count()));
  std::vector<CuMask> homes;
  for (const std::uint32_t home : leaves.home) homes.push_back(leaves.streams[home].mask);
  const auto run = [&](const std::vector<CuMask>& masks,
                       const planner::StreamTable& table) -> Result<void> {
    const auto outcome = planner::run_open_loop(gpu, workers, plan->groups, masks, table, options);
    if (!outcome) return tl::unexpected(outcome.error());
    auto& p95_us = cell.p95_us.emplace_back();
    for (const auto& latency_us : outcome->latency_us)
      p95_us.push_back(bench::quantile(latency_us, 0.95));
    return {};
  };
  // In the order of Sharing.
  if (auto ran = run(streams, [&](auto, auto, WorkerSet) { return plan->unmasked; }); !ran)
    return ran;
  if (auto ran = run(homes, [](std::size_t worker, auto,
                               WorkerSet) { return static_cast<std::uint32_t>(worker); });
      !ran)
    return ran;
  return run(streams, [&](std::size_t worker, std::size_t group, WorkerSet active) {
    return plan->row(active).streams[worker][group];
  });
}

std::string text_of(const std::optional<Relative>& relative) {
  return relative ? fmt::format("{:.2f} ({:.2f})", relative->mean, relative->worst) : "-";
}

/// Geometric mean over the cells of a value.
template <class Value>
double mean_over(const std::vector<OpenLoopCell>& cells, const Value& value) {
  double sum = 0;
  for (const OpenLoopCell& cell : cells) sum += std::log(value(cell));
  return std::exp(sum / static_cast<double>(cells.size()));
}

}  // namespace

Relative OpenLoopCell::relative(Sharing sharing) const {
  const auto& unmasked = p95_us[static_cast<std::size_t>(Sharing::unmasked)];
  const auto& own = p95_us[static_cast<std::size_t>(sharing)];
  Relative relative;
  double sum = 0;
  for (std::size_t w = 0; w < own.size(); ++w) {
    const double ratio = own[w] / unmasked[w];
    sum += std::log(ratio);
    relative.worst = std::max(relative.worst, ratio);
  }
  relative.mean = std::exp(sum / static_cast<double>(own.size()));
  return relative;
}

Result<std::vector<OpenLoopCell>> evaluate_open_loop(const model::GpuDescription& gpu,
                                                     const std::filesystem::path& data,
                                                     std::uint32_t requests, std::uint64_t seed) {
  auto cells = read_cells(data / "active-sets-h100.json");
  if (!cells) return cells;
  for (OpenLoopCell& cell : *cells) {
    auto workers = read_workers(cell.profiles, data);
    if (!workers) return tl::unexpected(workers.error());
    if (auto done = simulate(cell, std::move(*workers), gpu, {.requests = requests, .seed = seed});
        !done)
      return tl::unexpected(done.error());
  }
  return cells;
}

std::string open_loop_report(const std::vector<OpenLoopCell>& cells, const std::string& gpu) {
  std::string text = fmt::format(
      "Requests that arrive at random, simulated ({}): p95 relative to unmasked, geometric mean "
      "over "
      "the workers\n(worst worker in brackets); measured: on the H100, where it was.\n\n"
      "| mix | load | static disjoint | active sets | measured static | measured active sets |\n"
      "| --- | ---: | --- | --- | --- | --- |\n",
      gpu);
  for (const OpenLoopCell& cell : cells)
    text += fmt::format("| {} | {:.1f} | {} | {} | {} | {} |\n", cell.mix, cell.load,
                        text_of(cell.relative(Sharing::static_disjoint)),
                        text_of(cell.relative(Sharing::active_sets)), text_of(cell.measured_static),
                        text_of(cell.measured_active));
  const auto active = [](const OpenLoopCell& cell) {
    return cell.relative(Sharing::active_sets).mean;
  };
  return text +
         fmt::format(
             "\nActive sets over all cells: x{:.2f} of unmasked, x{:.2f} of the better of unmasked "
             "and static.\n",
             mean_over(cells, active), mean_over(cells, [&](const OpenLoopCell& cell) {
               return active(cell) / std::min(1.0, cell.relative(Sharing::static_disjoint).mean);
             }));
}

std::string open_loop_json(const std::vector<OpenLoopCell>& cells, const std::string& gpu) {
  json root;
  root["schema"] = "eclip.open-loop/1";
  root["simulated"] = gpu;
  const auto of = [](const Relative& relative) {
    return json{{"mean", relative.mean}, {"worst", relative.worst}};
  };
  for (const OpenLoopCell& cell : cells) {
    json& entry = root["cells"].emplace_back(json{{"mix", cell.mix},
                                                  {"load", cell.load},
                                                  {"profiles", cell.profiles},
                                                  {"p95_us", cell.p95_us}});
    entry["static_disjoint"] = of(cell.relative(Sharing::static_disjoint));
    entry["active_sets"] = of(cell.relative(Sharing::active_sets));
    if (cell.measured_static) entry["measured"]["static_disjoint"] = of(*cell.measured_static);
    if (cell.measured_active) entry["measured"]["active_sets"] = of(*cell.measured_active);
  }
  return root.dump(1) + "\n";
}

}  // namespace eclip::plan
