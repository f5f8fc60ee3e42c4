#include "tools/eclip-bench/validation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string_view>

#include "daemon/model/profile.h"
#include "tools/eclip-bench/colocation.h"

namespace eclip::bench {
namespace {

/// The timing parameters of data/gpus/h100.toml were fitted on these mixes only.
constexpr std::array<std::string_view, 6> fitted_mixes{"4d@1",  "d+a+v@32", "d+r+s+v@8",
                                                       "d+r@1", "d+r@32",   "v+s@1"};
/// SMs in a group of the recorded masks, and groups of the whole device.
constexpr std::uint32_t group_size = 8;
constexpr std::uint32_t group_count = 16;

bool is_fitted(const std::string& mix) {
  return std::find(fitted_mixes.begin(), fitted_mixes.end(), mix) != fitted_mixes.end();
}

using Kernels = std::vector<std::shared_ptr<const model::Kernel>>;

/// Profiles by name, read once.
class ProfileShelf {
 public:
  explicit ProfileShelf(std::filesystem::path folder) : folder_(std::move(folder)) {}
  Result<Kernels> kernels(const std::string& name) {
    const auto found = kernels_.find(name);
    if (found != kernels_.end()) return found->second;
    const auto profile = model::load_profile(folder_ / (name + ".h100.json"));
    if (!profile) return tl::unexpected(profile.error());
    return kernels_[name] = kernels_of(*profile);
  }

 private:
  std::filesystem::path folder_;
  std::map<std::string, Kernels> kernels_;
};

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

double geometric_mean(const std::vector<WorkerPoint>& workers, double WorkerPoint::*value) {
  double sum = 0;
  for (const WorkerPoint& worker : workers) sum += std::log(worker.*value);
  return std::exp(sum / static_cast<double>(workers.size()));
}

double throughput(const std::vector<WorkerPoint>& workers, double WorkerPoint::*time) {
  double sum = 0;
  for (const WorkerPoint& worker : workers) sum += worker.solo_us / worker.*time;
  return sum;
}

Result<ScenarioOutcome> run_scenario(const model::GpuDescription& gpu, const Mix& mix,
                                     const Scenario& scenario, ProfileShelf& profiles,
                                     LoopOptions options) {
  const std::string where = "mix '" + mix.name + "', scenario '" + scenario.name + "'";
  ScenarioOutcome outcome{.mix = mix.name, .scenario = scenario.name, .workers = {}};
  outcome.fitted = is_fitted(mix.name);
  outcome.measured_watts = scenario.watts;
  std::vector<LoopWorker> workers;
  for (std::size_t i = 0; i < scenario.workers.size(); ++i) {
    auto kernels = profiles.kernels(mix.profiles[i]);
    if (!kernels) return fail(kernels.error(), where);
    auto worker = loop_worker(scenario.workers[i], std::move(*kernels), gpu.geometry.cu_count(),
                              where + ", worker " + std::to_string(i));
    if (!worker) return tl::unexpected(worker.error());
    workers.push_back(std::move(*worker));
  }
  options.serial = scenario.name == "a0";
  const auto predicted = run_closed_loop(gpu, workers, options);
  if (!predicted) return fail(predicted.error(), where);
  outcome.predicted_watts = predicted->watts;
  for (std::size_t i = 0; i < workers.size(); ++i)
    outcome.workers.push_back({.profile = mix.profiles[i],
                               .measured_us = scenario.workers[i].mean_us,
                               .predicted_us = predicted->mean_us[i],
                               .measured_p95_us = scenario.workers[i].p95_us,
                               .predicted_p95_us = predicted->p95_us[i],
                               .solo_us = mix.solo_us[i]});
  return outcome;
}

}  // namespace

double WorkerPoint::error() const {
  return std::abs(predicted_us - measured_us) / measured_us;
}
double WorkerPoint::p95_error() const {
  return std::abs(predicted_p95_us - measured_p95_us) / measured_p95_us;
}
double ScenarioOutcome::measured_throughput() const {
  return throughput(workers, &WorkerPoint::measured_us);
}
double ScenarioOutcome::predicted_throughput() const {
  return throughput(workers, &WorkerPoint::predicted_us);
}
double ScenarioOutcome::measured_mean_us() const {
  return geometric_mean(workers, &WorkerPoint::measured_us);
}
double ScenarioOutcome::predicted_mean_us() const {
  return geometric_mean(workers, &WorkerPoint::predicted_us);
}

Result<Validation> validate(const model::GpuDescription& gpu, const std::filesystem::path& data,
                            const LoopOptions& options, Half half) {
  const auto mixes = load_colocation(data / "colocation-h100.json");
  if (!mixes) return tl::unexpected(mixes.error());
  ProfileShelf profiles(data / "profiles");
  Validation validation;
  for (const Mix& mix : *mixes) {
    if (half != Half::both && is_fitted(mix.name) != (half == Half::fitted)) continue;
    for (const Scenario& scenario : mix.scenarios) {
      const bool recorded =
          std::none_of(scenario.workers.begin(), scenario.workers.end(),
                       [](const MeasuredWorker& worker) { return worker.assignment.empty(); });
      if (!recorded) {
        validation.skipped.push_back(mix.name + "/" + scenario.name +
                                     ": no kernel-to-stream assignment was recorded");
        continue;
      }
      auto outcome = run_scenario(gpu, mix, scenario, profiles, options);
      if (!outcome) return tl::unexpected(outcome.error());
      validation.outcomes.push_back(std::move(*outcome));
    }
  }
  return validation;
}

}  // namespace eclip::bench
