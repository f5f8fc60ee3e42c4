#include "tools/eclip-bench/recorded_plan.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "daemon/model/profile.h"

namespace eclip::bench {
namespace {

using planner::LoopWorker;

/// The timing parameters of data/gpus/h100.toml were fitted on these mixes only.
constexpr std::array<std::string_view, 6> fitted_mixes{"4d@1",  "d+a+v@32", "d+r+s+v@8",
                                                       "d+r@1", "d+r@32",   "v+s@1"};
/// SMs in a group of the recorded masks, and groups of the whole device.
constexpr std::uint32_t group_size = 8;
constexpr std::uint32_t group_count = 16;

CuMask mask_of(const StreamGroups& groups, std::uint32_t cu_count) {
  if (!groups) return CuMask::full(cu_count);
  CuMask mask(cu_count);
  for (const std::uint32_t group : *groups) {
    // 132 SMs make 16 groups and 4 more, which the data shows to be in the last group: full-size
    // masks are as fast as none, and of four equal workers the last is a tenth faster.
    const std::uint32_t end = group + 1 == group_count ? cu_count : (group + 1) * group_size;
    for (std::uint32_t cu = group * group_size; cu < end; ++cu) mask.insert(cu);
  }
  return mask;
}

Result<LoopWorker> loop_worker(const MeasuredWorker& measured, Kernels kernels,
                               std::uint32_t cu_count, const std::string& where) {
  LoopWorker worker{.kernels = std::move(kernels), .streams = {}, .stream_of_kernel = {}};
  for (const StreamGroups& groups : measured.streams)
    worker.streams.push_back(mask_of(groups, cu_count));
  for (const AssignmentRun& run : measured.assignment) {
    if (run.stream >= worker.streams.size())
      return fail(Errc::malformed, where + ": a run names stream " + std::to_string(run.stream) +
                                       " of " + std::to_string(worker.streams.size()));
    worker.stream_of_kernel.insert(worker.stream_of_kernel.end(), run.kernels, run.stream);
  }
  if (worker.stream_of_kernel.size() != worker.kernels.size())
    return fail(Errc::malformed,
                where + ": the runs assign " + std::to_string(worker.stream_of_kernel.size()) +
                    " kernels; the profile has " + std::to_string(worker.kernels.size()));
  return worker;
}

}  // namespace

Result<Kernels> ProfileShelf::kernels(const std::string& name) {
  const auto found = kernels_.find(name);
  if (found != kernels_.end()) return found->second;
  const auto profile = model::load_profile(folder_ / (name + ".h100.json"));
  if (!profile) return tl::unexpected(profile.error());
  return kernels_[name] = planner::kernels_of(*profile);
}

bool is_fitted(const std::string& mix) {
  return std::find(fitted_mixes.begin(), fitted_mixes.end(), mix) != fitted_mixes.end();
}

bool is_serial(const Scenario& scenario) {
  return scenario.name == "a0";
}

bool is_recorded(const Scenario& scenario) {
  return std::none_of(scenario.workers.begin(), scenario.workers.end(),
                      [](const MeasuredWorker& worker) { return worker.assignment.empty(); });
}

Result<std::vector<LoopWorker>> recorded_plan(const model::GpuDescription& gpu, const Mix& mix,
                                              const Scenario& scenario, ProfileShelf& profiles) {
  const std::string where = "mix '" + mix.name + "', scenario '" + scenario.name + "'";
  std::vector<LoopWorker> workers;
  for (std::size_t i = 0; i < scenario.workers.size(); ++i) {
    auto kernels = profiles.kernels(mix.profiles[i]);
    if (!kernels) return fail(kernels.error(), where);
    auto worker = loop_worker(scenario.workers[i], std::move(*kernels), gpu.geometry.cu_count(),
                              where + ", worker " + std::to_string(i));
    if (!worker) return tl::unexpected(worker.error());
    workers.push_back(std::move(*worker));
  }
  return workers;
}

}  // namespace eclip::bench
