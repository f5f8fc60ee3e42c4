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
                                  std::span<const double> activity, WorkerSet active) {
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
      const double gain =
          activity[i] * std::log(times.on(i, halves) / times.on(i, halves + sizes.halves[idle]));
      if (gain > best_gain) {
        best_gain = gain;
        taker = i;
      }
    }
    if (taker < shares.size()) shares[taker] |= WorkerSet{1} << idle;
  }
  return shares;
}

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
        const double slowdown = times.on(i, halves) / times.on(i, total);
        const double cost = best[i][before] + activity[i] * slowdown;
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
  return share_idle(times, sizes, activity, active);
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
    const std::vector<WorkerSet> shares = share_idle(times, sizes, activity, active);
    for (std::size_t i = 0; i < shares.size(); ++i) {
      if (!std::has_single_bit(shares[i]) && shares[i] != 0)
        gains[shares[i]] +=
            probability(active, activity) *
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

}  // namespace eclip::planner
