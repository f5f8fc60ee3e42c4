#include "tools/eclip-bench/colocate.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <thread>

#include "daemon/model/profile.h"
#include "tools/eclip-bench/colocation.h"
#include "tools/eclip-bench/statistics.h"

namespace eclip::bench {
namespace {

using planner::Worker;

Spread spread_of(const std::vector<double>& values) {
  return {quantile(values, 0.5), quantile(values, 0), quantile(values, 1)};
}

double geometric_mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += std::log(value);
  return std::exp(sum / static_cast<double>(values.size()));
}

/// Calls the function for 0 .. count - 1 on so many threads; the first error in order.
Result<void> for_each_of(std::size_t count, unsigned jobs,
                         const std::function<Result<void>(std::size_t)>& function) {
  std::atomic<std::size_t> next{0};
  std::vector<Result<void>> results(count);
  const auto work = [&] {
    for (std::size_t i = next++; i < count; i = next++) {
      try {
        results[i] = function(i);
      } catch (const std::exception& error) {
        results[i] = fail(Errc::device_failed, error.what());
      }
    }
  };
  std::vector<std::jthread> threads;
  for (unsigned t = 1; t < jobs; ++t) threads.emplace_back(work);
  work();
  threads.clear();
  for (Result<void>& result : results)
    if (!result) return result;
  return {};
}

/// Mean times of workers in a closed loop without masks, us.
Result<std::vector<double>> unmasked_times(const model::GpuDescription& gpu,
                                           std::span<const Worker> workers) {
  std::vector<planner::LoopWorker> loop;
  for (const Worker& worker : workers)
    loop.push_back({.kernels = worker.kernels,
                    .streams = {CuMask::full(gpu.geometry.cu_count())},
                    .stream_of_kernel = std::vector<std::uint32_t>(worker.kernels.size(), 0)});
  auto outcome = planner::run_closed_loop(gpu, loop, {});
  if (!outcome) return tl::unexpected(outcome.error());
  return std::move(outcome->mean_us);
}

/// A mix on a GPU, ready to be run at any load.
struct PreparedMix {
  const model::GpuDescription* gpu = nullptr;
  MixInfo info;
  std::vector<Worker> workers;
};

Result<void> prepare(PreparedMix& mix) {
  auto unmasked = unmasked_times(*mix.gpu, mix.workers);
  if (!unmasked) return tl::unexpected(unmasked.error());
  mix.info.unmasked_us = std::move(*unmasked);
  for (const Worker& worker : mix.workers) {
    auto alone = unmasked_times(*mix.gpu, {&worker, 1});
    if (!alone) return tl::unexpected(alone.error());
    mix.info.solo_us.push_back(alone->front());
  }
  return {};
}

/// Runs of a cell, one for each seed, and their figures.
class CellOfRuns {
 public:
  CellOfRuns(const PreparedMix& mix, LoadShare load, Policy policy) : mix_(mix) {
    cell_.gpu = mix.gpu->name;
    cell_.mix = mix.info.mix;
    cell_.load = load;
    cell_.policy = policy;
    cell_.workers.resize(mix.workers.size());
  }

  void add(RunOutcome run) {
    double stp = 0;
    double squares = 0;
    double work_s = 0;
    double requests = 0;
    std::vector<double> p95_us;
    for (std::size_t w = 0; w < run.workers.size(); ++w) {
      const WorkerOutcome& worker = run.workers[w];
      const double relative = worker.requests_per_s * mix_.info.solo_us[w] * 1e-6;
      stp += relative;
      squares += relative * relative;
      requests += worker.counted;
      work_s += worker.counted * mix_.info.solo_us[w] * 1e-6;
      p95_us.push_back(quantile(worker.latency_us, 0.95));
      WorkerFigures& figures = cell_.workers[w];
      figures.completed += worker.completed;
      add_counts(figures.counts, worker.counts);
      cell_.arrived += worker.arrived;
      cell_.completed += worker.completed;
      cell_.kernels += worker.completed * mix_.workers[w].kernels.size();
      if (worker.kernels < worker.completed * mix_.workers[w].kernels.size()) ++cell_.disorder;
    }
    const auto workers = static_cast<double>(run.workers.size());
    cell_.disorder += run.disorder;
    cell_.stp_by_seed.push_back(stp);
    cell_.work_per_joule_by_seed.push_back(work_s / run.joules);
    fairness_.push_back(stp * stp / (workers * squares));
    watts_.push_back(run.joules / run.seconds);
    joules_per_request_.push_back(run.joules / requests);
    joules_per_work_.push_back(run.joules / work_s);
    mean_p95_us_.push_back(geometric_mean_of(p95_us));
    cell_.p95_us_by_seed.push_back(std::move(p95_us));
    runs_.push_back(std::move(run));
  }

  Cell done() {
    cell_.stp = spread_of(cell_.stp_by_seed);
    cell_.p95_us = spread_of(mean_p95_us_);
    cell_.fairness = spread_of(fairness_);
    cell_.watts = spread_of(watts_);
    cell_.joules_per_request = spread_of(joules_per_request_);
    cell_.joules_per_work = spread_of(joules_per_work_);
    for (std::size_t w = 0; w < cell_.workers.size(); ++w) {
      const auto over_seeds = [&](const auto& figure) {
        std::vector<double> values;
        for (const RunOutcome& run : runs_) values.push_back(figure(run.workers[w]));
        return spread_of(values);
      };
      const auto latency = [&](double share) {
        return over_seeds(
            [share](const WorkerOutcome& worker) { return quantile(worker.latency_us, share); });
      };
      WorkerFigures& figures = cell_.workers[w];
      figures.requests_per_s =
          over_seeds([](const WorkerOutcome& worker) { return worker.requests_per_s; });
      figures.relative_rate = over_seeds([&](const WorkerOutcome& worker) {
        return worker.requests_per_s * mix_.info.solo_us[w] * 1e-6;
      });
      figures.p50_us = latency(0.5);
      figures.p95_us = latency(0.95);
      figures.p99_us = latency(0.99);
      figures.intrusion_mean_us = over_seeds([](const WorkerOutcome& worker) {
        double sum = 0;
        for (const double us : worker.intrusion_us) sum += us;
        return worker.intrusion_us.empty() ? 0
                                           : sum / static_cast<double>(worker.intrusion_us.size());
      });
      figures.intrusion_p95_us = over_seeds(
          [](const WorkerOutcome& worker) { return quantile(worker.intrusion_us, 0.95); });
      figures.intrusion_share =
          over_seeds([](const WorkerOutcome& worker) { return worker.intrusion_share; });
    }
    return std::move(cell_);
  }

 private:
  static void add_counts(SendCounts& sum, const SendCounts& counts) {
    sum.scheduled += counts.scheduled;
    sum.bypassed += counts.bypassed;
    sum.switches += counts.switches;
    sum.barriers += counts.barriers;
    sum.ioctls += counts.ioctls;
  }

  const PreparedMix& mix_;
  Cell cell_;
  std::vector<RunOutcome> runs_;
  std::vector<double> fairness_;
  std::vector<double> watts_;
  std::vector<double> joules_per_request_;
  std::vector<double> joules_per_work_;
  std::vector<double> mean_p95_us_;
};

Result<void> write_trace(const Trace& trace, const std::filesystem::path& file) {
  std::ofstream stream(file);
  stream << trace.json();
  stream.close();
  if (!stream) return fail(Errc::access_denied, "trace " + file.string() + ": cannot be written");
  return {};
}

/// All policies for a mix at a load.
Result<std::vector<Cell>> run_cells(const PreparedMix& mix, LoadShare load,
                                    const std::vector<Policy>& policies,
                                    const ColocateOptions& options) {
  std::vector<Worker> workers = mix.workers;
  for (std::size_t w = 0; w < workers.size() && load != closed_loop; ++w)
    workers[w].requests_per_s = load * 1e6 / mix.info.unmasked_us[w];
  const auto plan = plan_for(*mix.gpu, workers, options.objective, options.group_us);
  if (!plan) return tl::unexpected(plan.error());
  std::vector<Cell> cells;
  for (const Policy policy : policies) {
    const Sharing sharing = sharing_of(policy, *mix.gpu, workers, *plan);
    CellOfRuns runs(mix, load, policy);
    for (std::uint64_t seed = 1; seed <= options.seeds; ++seed) {
      const RunOptions how{
          .open_loop = load != closed_loop,
          .requests = options.requests,
          .seed = seed,
          .backlog = policy == Policy::eclip && load != closed_loop ? options.backlog : 0};
      const bool traced = seed == 1 && !options.trace.empty();
      Trace trace(mix.info.profiles);
      auto run = policy == Policy::own_gpu
                     ? run_apart(*mix.gpu, workers, sharing, how)
                     : run_colocated(*mix.gpu, workers, sharing, how, traced ? &trace : nullptr);
      if (!run) return tl::unexpected(run.error());
      runs.add(std::move(*run));
      if (!traced) continue;
      if (auto written = write_trace(trace, options.trace); !written)
        return tl::unexpected(written.error());
    }
    cells.push_back(runs.done());
  }
  return cells;
}

/// The mixes that are asked for, on every GPU.
Result<std::vector<PreparedMix>> prepared_mixes(const ColocateOptions& options) {
  const auto known = load_colocation(options.data / "colocation-h100.json");
  if (!known) return tl::unexpected(known.error());
  for (const std::string& name : options.mixes)
    if (std::none_of(known->begin(), known->end(),
                     [&](const Mix& mix) { return mix.name == name; })) {
      std::string names;
      for (const Mix& mix : *known) {
        names += names.empty() ? "" : ", ";
        names += mix.name;
      }
      return fail(Errc::invalid_argument,
                  fmt::format("there is no mix '{}'; give one of {}", name, names));
    }
  std::vector<PreparedMix> mixes;
  std::map<std::string, Worker> workers;  // by profile: kernels are shared
  for (const model::GpuDescription& gpu : options.gpus)
    for (const Mix& mix : *known) {
      if (!options.mixes.empty() &&
          std::find(options.mixes.begin(), options.mixes.end(), mix.name) == options.mixes.end())
        continue;
      PreparedMix& prepared = mixes.emplace_back();
      prepared.gpu = &gpu;
      prepared.info = {.gpu = gpu.name, .mix = mix.name, .profiles = mix.profiles};
      for (const std::string& name : mix.profiles) {
        if (!workers.contains(name)) {
          const auto profile =
              model::load_profile(options.data / "profiles" / (name + ".h100.json"));
          if (!profile) return tl::unexpected(profile.error());
          workers[name] = planner::profiled_worker(*profile, name);
        }
        prepared.workers.push_back(workers[name]);
      }
    }
  return mixes;
}

/// Of the seeds that both have.
template <class Value>
double median_ratio(const Cell& cell, const Cell& base, const Value& value) {
  std::vector<double> ratios;
  const std::size_t seeds = std::min(cell.stp_by_seed.size(), base.stp_by_seed.size());
  for (std::size_t seed = 0; seed < seeds; ++seed)
    ratios.push_back(value(cell, seed) / value(base, seed));
  return quantile(ratios, 0.5);
}

}  // namespace

const Cell* Colocation::find(const std::string& gpu, const std::string& mix, LoadShare load,
                             Policy policy) const {
  const auto found = std::find_if(cells.begin(), cells.end(), [&](const Cell& cell) {
    return cell.gpu == gpu && cell.mix == mix && cell.load == load && cell.policy == policy;
  });
  return found == cells.end() ? nullptr : &*found;
}

Result<Colocation> colocate(const ColocateOptions& options) {
  const std::vector<Policy> policies =
      options.policies.empty() ? std::vector<Policy>(all_policies.begin(), all_policies.end())
                               : options.policies;
  const std::vector<LoadShare> loads =
      options.loads.empty() ? std::vector<LoadShare>{closed_loop, 0.4, 0.6, 0.8} : options.loads;
  auto mixes = prepared_mixes(options);
  if (!mixes) return tl::unexpected(mixes.error());
  if (!options.trace.empty() && mixes->size() * policies.size() * loads.size() != 1)
    return fail(Errc::invalid_argument,
                "a trace is of one cell; give one --gpu, --mix, --policy and --load");
  if (auto ready = for_each_of(mixes->size(), options.jobs,
                               [&](std::size_t i) { return prepare((*mixes)[i]); });
      !ready)
    return tl::unexpected(ready.error());
  std::vector<std::vector<Cell>> cells(mixes->size() * loads.size());
  auto done = for_each_of(cells.size(), options.jobs, [&](std::size_t i) -> Result<void> {
    const PreparedMix& mix = (*mixes)[i / loads.size()];
    auto of_mix = run_cells(mix, loads[i % loads.size()], policies, options);
    if (!of_mix) return fail(of_mix.error(), mix.info.gpu + ", mix '" + mix.info.mix + "'");
    cells[i] = std::move(*of_mix);
    return {};
  });
  if (!done) return tl::unexpected(done.error());
  Colocation colocation;
  for (PreparedMix& mix : *mixes) colocation.mixes.push_back(std::move(mix.info));
  for (auto& of_mix : cells)
    for (Cell& cell : of_mix) colocation.cells.push_back(std::move(cell));
  return colocation;
}

std::vector<double> relative_p95(const Cell& cell, const Cell& base) {
  std::vector<double> relative;
  for (std::size_t w = 0; w < cell.workers.size(); ++w)
    relative.push_back(median_ratio(
        cell, base, [w](const Cell& of, std::size_t seed) { return of.p95_us_by_seed[seed][w]; }));
  return relative;
}

double mean_relative_p95(const Cell& cell, const Cell& base) {
  return median_ratio(cell, base, [](const Cell& of, std::size_t seed) {
    return geometric_mean_of(of.p95_us_by_seed[seed]);
  });
}

double relative_stp(const Cell& cell, const Cell& base) {
  return median_ratio(cell, base,
                      [](const Cell& of, std::size_t seed) { return of.stp_by_seed[seed]; });
}

double relative_work_per_joule(const Cell& cell, const Cell& base) {
  return median_ratio(
      cell, base, [](const Cell& of, std::size_t seed) { return of.work_per_joule_by_seed[seed]; });
}

}  // namespace eclip::bench
