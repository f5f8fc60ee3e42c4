#include "daemon/planner/pool.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace eclip::planner {
namespace {

using model::GpuDescription;

std::uint32_t halves_of(const GpuDescription& gpu) {
  return 2 * gpu.geometry.shader_engines;
}

/// The CUs of one half of a shader engine; halves 2e and 2e + 1 are engine e.
void insert_half(CuMask& mask, std::uint32_t half, const GpuDescription& gpu) {
  const std::uint32_t per_engine = gpu.geometry.cus_per_shader_engine;
  const std::uint32_t middle = (per_engine + 1) / 2;
  const std::uint32_t first = half % 2 == 0 ? 0 : middle;
  const std::uint32_t last = half % 2 == 0 ? middle : per_engine;
  for (std::uint32_t i = first; i < last; ++i)
    mask.insert(i * gpu.geometry.shader_engines + half / 2);
}

CuMask halves_mask(const GpuDescription& gpu, std::uint32_t first, std::uint32_t count) {
  CuMask mask(gpu.geometry.cu_count());
  for (std::uint32_t i = 0; i < count; ++i) insert_half(mask, (first + i) % halves_of(gpu), gpu);
  return mask;
}

/// Leaves side by side, those of whole engines first, so that none straddles engines.
std::vector<CuMask> lay_out(const GpuDescription& gpu, const LeafSizes& sizes) {
  std::vector<std::size_t> order(sizes.halves.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return sizes.halves[a] % 2 < sizes.halves[b] % 2;
  });
  std::vector<CuMask> leaves(order.size(), CuMask(gpu.geometry.cu_count()));
  std::uint32_t next = 0;
  for (const std::size_t worker : order) {
    leaves[worker] = halves_mask(gpu, next, sizes.halves[worker]);
    next += sizes.halves[worker];
  }
  return leaves;
}

CuMask union_of(const std::vector<CuMask>& leaves, WorkerSet set) {
  CuMask mask(leaves.front().size());
  for (std::size_t i = 0; i < leaves.size(); ++i)
    if (set >> i & 1U)
      for (std::uint32_t cu = 0; cu < mask.size(); ++cu)
        if (leaves[i].contains(cu)) mask.insert(cu);
  return mask;
}

std::uint32_t halves_in(const LeafSizes& sizes, WorkerSet leaves) {
  std::uint32_t halves = 0;
  for (std::size_t i = 0; i < sizes.halves.size(); ++i)
    if (leaves >> i & 1U) halves += sizes.halves[i];
  return halves;
}

/// Probability that exactly these workers are active.
double probability(WorkerSet active, std::span<const double> activity) {
  double product = 1;
  for (std::size_t i = 0; i < activity.size(); ++i)
    product *= active >> i & 1U ? activity[i] : 1 - activity[i];
  return product;
}

/// What a leaf on which the worker's kernels take `time_us` costs, relative to the whole GPU.
double leaf_cost(const GpuDescription& gpu, const Worker& worker, double activity, double time_us,
                 double fastest_us) {
  const double gaps_us = static_cast<double>(worker.kernels.size() - 1) * gpu.timing.launch_gap_us;
  return worker.weight * activity * time_us / fastest_us +
         late_penalty(time_us + gaps_us, worker.latency_bound_us);
}

/// Request times by number of halves, each computed once.
class LeafTimes {
 public:
  LeafTimes(const GpuDescription& gpu, std::span<const Worker> workers)
      : gpu_(gpu), workers_(workers), times_(workers.size()) {}
  double on(std::size_t worker, std::uint32_t halves) {
    auto& times = times_[worker];
    if (times.size() <= halves) times.resize(halves + 1, 0);
    if (times[halves] == 0)
      times[halves] = service_us(workers_[worker], cus_of_halves(gpu_, halves));
    return times[halves];
  }

 private:
  const GpuDescription& gpu_;
  std::span<const Worker> workers_;
  std::vector<std::vector<double>> times_;
};

std::vector<WorkerSet> share_idle(LeafTimes& times, const LeafSizes& sizes,
                                  std::span<const Worker> workers, std::span<const double> activity,
                                  WorkerSet active) {
  std::vector<WorkerSet> shares(sizes.halves.size(), 0);
  for (std::size_t i = 0; i < shares.size(); ++i)
    if (active >> i & 1U) shares[i] = WorkerSet{1} << i;
  for (std::size_t idle = 0; idle < shares.size(); ++idle) {
    if (active >> idle & 1U) continue;
    std::size_t taker = shares.size();
    double best_gain = 0;
    for (std::size_t i = 0; i < shares.size(); ++i) {
      if (shares[i] == 0) continue;
      const std::uint32_t halves = halves_in(sizes, shares[i]);
      const double gain = workers[i].weight * activity[i] *
                          std::log(times.on(i, halves) / times.on(i, halves + sizes.halves[idle]));
      if (gain > best_gain) {
        best_gain = gain;
        taker = i;
      }
    }
    if (taker < shares.size()) shares[taker] |= WorkerSet{1} << idle;
  }
  return shares;
}

/// Homes on given streams, by depth-first search, the most promising stream first.
class HomeSearch {
 public:
  HomeSearch(const GpuDescription& gpu, std::span<const CuMask> masks,
             std::span<const Worker> workers, std::span<const double> activity)
      : streams_(masks.size()),
        homes_(workers.size()),
        costs_(workers.size()),
        left_(workers.size() + 1),
        neighbours_(masks.size()) {
    for (const CuMask& mask : masks) {
      auto& overlaps = overlaps_.emplace_back();
      for (const CuMask& other : masks) overlaps.push_back(mask.overlap(other) > 0 ? 1 : 0);
    }
    for (std::size_t w = 0; w < workers.size(); ++w) {
      const double fastest_us = service_us(workers[w], gpu.geometry.cu_count());
      for (const CuMask& mask : masks)
        costs_[w].push_back(leaf_cost(gpu, workers[w], activity[w],
                                      service_us(workers[w], mask.count()), fastest_us));
    }
    for (std::size_t w = workers.size(); w > 0; --w)
      left_[w - 1] = left_[w] + *std::min_element(costs_[w - 1].begin(), costs_[w - 1].end());
  }

  std::vector<std::uint32_t> run() {
    place(0, {});
    return best_homes_;
  }

 private:
  /// Pairs of workers that share CUs, then the sum of slowdowns.
  using Cost = std::pair<std::uint32_t, double>;

  /// The least that the workers from `worker` on can add: each meets those that are placed.
  [[nodiscard]] bool can_be_better(std::size_t worker, const Cost& so_far) const {
    const auto workers = static_cast<std::uint32_t>(homes_.size() - worker);
    const std::uint32_t pairs = *std::min_element(neighbours_.begin(), neighbours_.end());
    return best_homes_.empty() ||
           Cost{so_far.first + workers * pairs, so_far.second + left_[worker]} < best_;
  }

  void place(std::size_t worker, const Cost& so_far) {
    if (!can_be_better(worker, so_far)) return;
    if (worker == homes_.size()) {
      best_ = so_far;
      best_homes_ = homes_;
      return;
    }
    std::vector<std::pair<Cost, std::uint32_t>> choices;
    for (std::uint32_t s = 0; s < streams_; ++s)
      choices.push_back({{so_far.first + neighbours_[s], so_far.second + costs_[worker][s]}, s});
    std::sort(choices.begin(), choices.end());
    for (const auto& [cost, stream] : choices) {
      homes_[worker] = stream;
      for (std::size_t s = 0; s < streams_; ++s) neighbours_[s] += overlaps_[stream][s];
      place(worker + 1, cost);
      for (std::size_t s = 0; s < streams_; ++s) neighbours_[s] -= overlaps_[stream][s];
    }
  }

  std::size_t streams_;
  std::vector<std::vector<std::uint32_t>> overlaps_;  // [stream][stream]: 1 when they share CUs
  std::vector<std::uint32_t> homes_;
  std::vector<std::vector<double>> costs_;  // [worker][stream]
  std::vector<double> left_;                // least cost of this worker and those after it
  std::vector<std::uint32_t> neighbours_;   // of each stream: placed workers that share its CUs
  Cost best_;
  std::vector<std::uint32_t> best_homes_;
};

void add_stream(Pool& pool, const CuMask& mask, WorkerSet leaves) {
  for (const PoolStream& stream : pool.streams)
    if (stream.mask == mask) return;
  pool.streams.push_back({mask, leaves});
}

}  // namespace

std::uint32_t cus_of_halves(const GpuDescription& gpu, std::uint32_t halves) {
  const std::uint32_t per_engine = gpu.geometry.cus_per_shader_engine;
  return halves / 2 * per_engine + halves % 2 * ((per_engine + 1) / 2);
}

double service_us(const Worker& worker, std::uint32_t cus) {
  double sum = 0;
  for (const auto& kernel : worker.kernels) sum += kernel->time_on_mask_us(cus);
  return sum;
}

LeafSizes sized_leaves(const GpuDescription& gpu, std::span<const Worker> workers,
                       std::span<const double> activity) {
  const std::uint32_t total = halves_of(gpu);
  if (workers.size() > total) return {};
  LeafTimes times(gpu, workers);
  constexpr double impossible = std::numeric_limits<double>::infinity();
  // best[i][h]: of the first i workers on h halves; taken: the last one's.
  std::vector<std::vector<double>> best(workers.size() + 1,
                                        std::vector<double>(total + 1, impossible));
  std::vector<std::vector<std::uint32_t>> taken(workers.size() + 1,
                                                std::vector<std::uint32_t>(total + 1, 0));
  best[0][0] = 0;
  for (std::size_t i = 0; i < workers.size(); ++i)
    for (std::uint32_t before = 0; before <= total; ++before) {
      if (best[i][before] == impossible) continue;
      for (std::uint32_t halves = 1; before + halves <= total; ++halves) {
        if (!is_leaf_size(halves)) continue;
        const double cost = best[i][before] + leaf_cost(gpu, workers[i], activity[i],
                                                        times.on(i, halves), times.on(i, total));
        if (cost >= best[i + 1][before + halves]) continue;
        best[i + 1][before + halves] = cost;
        taken[i + 1][before + halves] = halves;
      }
    }
  const auto& last = best.back();
  auto used = static_cast<std::uint32_t>(std::min_element(last.begin(), last.end()) - last.begin());
  LeafSizes sizes{std::vector<std::uint32_t>(workers.size())};
  for (std::size_t i = workers.size(); i > 0; --i) {
    sizes.halves[i - 1] = taken[i][used];
    used -= taken[i][used];
  }
  return sizes;
}

LeafSizes equal_leaves(const GpuDescription& gpu, std::size_t workers) {
  const auto count = static_cast<std::uint32_t>(workers);
  if (count > halves_of(gpu)) return {};
  std::uint32_t halves = halves_of(gpu) / count;
  if (!is_leaf_size(halves)) --halves;
  return {std::vector<std::uint32_t>(workers, halves)};
}

std::vector<WorkerSet> share_idle_leaves(const GpuDescription& gpu, const LeafSizes& sizes,
                                         std::span<const Worker> workers,
                                         std::span<const double> activity, WorkerSet active) {
  LeafTimes times(gpu, workers);
  return share_idle(times, sizes, workers, activity, active);
}

Pool pool_of_leaves(const GpuDescription& gpu, std::string name, const LeafSizes& sizes,
                    std::span<const Worker> workers, std::span<const double> activity) {
  Pool pool{.name = std::move(name), .streams = {}, .home = {}};
  const std::vector<CuMask> leaves = lay_out(gpu, sizes);
  for (std::uint32_t i = 0; i < leaves.size(); ++i) {
    pool.home.push_back(i);
    pool.streams.push_back({leaves[i], WorkerSet{1} << i});
  }
  // Unions by what they are expected to save: over the active sets in which they would be used.
  LeafTimes times(gpu, workers);
  const WorkerSet all = (WorkerSet{1} << leaves.size()) - 1;
  std::map<WorkerSet, double> gains;
  for (WorkerSet active = 1; active <= all; ++active) {
    const std::vector<WorkerSet> shares = share_idle(times, sizes, workers, activity, active);
    for (std::size_t i = 0; i < shares.size(); ++i) {
      if (!std::has_single_bit(shares[i]) && shares[i] != 0)
        gains[shares[i]] +=
            workers[i].weight * probability(active, activity) *
            std::log(times.on(i, sizes.halves[i]) / times.on(i, halves_in(sizes, shares[i])));
    }
  }
  // All unions of up to three leaves fit; those that nobody is given come last.
  if (leaves.size() <= 3)
    for (WorkerSet set = 1; set <= all; ++set)
      if (!std::has_single_bit(set)) gains.try_emplace(set, 0);
  std::vector<std::pair<WorkerSet, double>> unions(gains.begin(), gains.end());
  std::stable_sort(unions.begin(), unions.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  for (const auto& [set, gain] : unions) {
    if (pool.streams.size() < stream_budget)
      add_stream(pool, union_of(leaves, set), set);
    else
      ++pool.pruned_unions;
  }
  return pool;
}

Pool overlapping_pool(const GpuDescription& gpu, std::span<const Worker> workers, double slack) {
  Pool pool{.name = "overlapping", .streams = {}, .home = {}};
  const std::uint32_t total = halves_of(gpu);
  LeafTimes times(gpu, workers);
  std::uint32_t next = 0;
  for (std::size_t i = 0; i < workers.size(); ++i) {
    std::uint32_t halves = 2;
    while (halves < total && times.on(i, halves) > (1 + slack) * times.on(i, total)) halves += 2;
    const CuMask mask = halves_mask(gpu, next, halves);
    next = (next + halves) % total;
    add_stream(pool, mask, 0);
    for (std::uint32_t s = 0; s < pool.streams.size(); ++s)
      if (pool.streams[s].mask == mask) pool.home.push_back(s);
  }
  return pool;
}

std::vector<CuMask> tree_masks(std::uint32_t cu_count, std::uint32_t shader_engines) {
  if (shader_engines % 4 != 0 || cu_count < shader_engines) return {};
  std::vector<CuMask> masks;
  for (const std::uint32_t parts : {1U, 2U, 4U})
    for (std::uint32_t part = 0; part < parts; ++part) {
      CuMask& mask = masks.emplace_back(cu_count);
      for (std::uint32_t cu = 0; cu < cu_count; ++cu)
        if (cu % shader_engines * parts / shader_engines == part) mask.insert(cu);
    }
  return masks;
}

Result<void> check_pool(const GpuDescription& gpu, std::span<const CuMask> masks) {
  if (masks.empty())
    return fail(Errc::invalid_argument, "the given pool has no stream; give at least one CU mask");
  if (masks.size() > stream_budget)
    return fail(Errc::budget_exceeded, "the given pool has " + std::to_string(masks.size()) +
                                           " CU-masked streams; the budget of a GPU is " +
                                           std::to_string(stream_budget) + ": remove " +
                                           std::to_string(masks.size() - stream_budget));
  for (std::size_t s = 0; s < masks.size(); ++s) {
    const std::string which = "stream " + std::to_string(s) + " of the given pool";
    if (masks[s].size() != gpu.geometry.cu_count())
      return fail(Errc::invalid_argument,
                  which + " has a mask for " + std::to_string(masks[s].size()) + " CUs; " +
                      gpu.name + " has " + std::to_string(gpu.geometry.cu_count()) +
                      ": make it for this GPU");
    if (masks[s].empty())
      return fail(Errc::invalid_argument,
                  which + " has no CU: a queue on it would hang; name at least one");
    for (std::uint32_t xcc = 0; xcc < gpu.geometry.xccs; ++xcc) {
      std::uint32_t cu = xcc;
      while (cu < masks[s].size() && !masks[s].contains(cu)) cu += gpu.geometry.xccs;
      if (cu >= masks[s].size())
        return fail(Errc::invalid_argument,
                    which + " (" + masks[s].to_string() + ") has no CU on XCC " +
                        std::to_string(xcc) + " of " + std::to_string(gpu.geometry.xccs) +
                        ": a queue on it would hang; add a CU whose index modulo " +
                        std::to_string(gpu.geometry.xccs) + " is " + std::to_string(xcc));
    }
  }
  return {};
}

Pool pool_of_masks(const GpuDescription& gpu, std::string name, std::span<const CuMask> masks,
                   std::span<const Worker> workers, std::span<const double> activity) {
  Pool pool{.name = std::move(name), .streams = {}, .home = {}};
  for (const CuMask& mask : masks) pool.streams.push_back({mask, 0});
  pool.home = HomeSearch(gpu, masks, workers, activity).run();
  return pool;
}

}  // namespace eclip::planner
