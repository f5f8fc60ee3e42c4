#include "daemon/planner/search.h"

#include <algorithm>
#include <cmath>

namespace eclip::planner {
namespace {

/// A smaller gain than this is the fixed point's noise, not a better plan.
constexpr double least_gain = 1e-4;

/// A value that is so much worse after the first rounds of the fixed point will not become better.
constexpr double hopeless_share = 1.15;

bool is_better(double value, double than) {
  return value < than * (1 - least_gain);
}

}  // namespace

Groups cut_into_groups(const Worker& worker, std::uint32_t cus, double group_us) {
  Groups groups{0};
  if (worker.uniform) return groups;
  std::vector<bool> may_begin(worker.kernels.size(), true);
  for (const model::KernelRange& range : worker.stay_together)
    for (std::uint32_t k = range.first + 1; k <= range.last; ++k) may_begin[k] = false;
  double left_us = service_us(worker, cus);
  double since_us = 0;
  for (std::uint32_t k = 0; k < worker.kernels.size(); ++k) {
    // What is left has to make a group, too.
    if (may_begin[k] && since_us >= group_us && left_us >= group_us) {
      groups.push_back(k);
      since_us = 0;
    }
    const double time_us = worker.kernels[k]->time_on_mask_us(cus);
    since_us += time_us;
    left_us -= time_us;
  }
  return groups;
}

RowSearch::RowSearch(const model::GpuDescription& gpu, const CostTables& tables,
                     const std::vector<Groups>& groups, const CostOptions& cost,
                     const SearchOptions& options)
    : gpu_(gpu), tables_(tables), groups_(groups), cost_(cost), options_(options) {
  std::uint32_t largest = 0;
  for (std::uint32_t s = 1; s < tables.streams(); ++s)
    if (tables.cus(s) > tables.cus(largest)) largest = s;
  for (std::size_t w = 0; w < tables.workers(); ++w) {
    auto& on_stream = whole_workers_.emplace_back();
    for (std::uint32_t s = 0; s < tables.streams(); ++s) {
      const std::vector<std::uint32_t> streams(tables.class_of_kernel(w).size(), s);
      on_stream.push_back(CostModel::active_worker(gpu, tables, w, streams, cost));
    }
    solo_us_.push_back(on_stream[largest].alone_us());
    solo_joules_.push_back(on_stream[largest].joules);
  }
}

GroupStreams RowSearch::whole(WorkerSet active,
                              const std::vector<std::uint32_t>& stream_of_worker) const {
  GroupStreams streams(groups_.size());
  for (std::size_t w = 0; w < streams.size(); ++w)
    if (active >> w & 1U) streams[w].assign(groups_[w].size(), stream_of_worker[w]);
  return streams;
}

std::vector<std::uint32_t> RowSearch::streams_of_kernels(
    std::size_t worker, const std::vector<std::uint32_t>& streams) const {
  const Groups& groups = groups_[worker];
  const std::size_t kernels = tables_.class_of_kernel(worker).size();
  std::vector<std::uint32_t> of_kernel;
  of_kernel.reserve(kernels);
  for (std::size_t g = 0; g < streams.size(); ++g) {
    const std::size_t end = g + 1 < groups.size() ? groups[g + 1] : kernels;
    of_kernel.insert(of_kernel.end(), end - groups[g], streams[g]);
  }
  return of_kernel;
}

CostModel RowSearch::model_of(const GroupStreams& streams) const {
  std::vector<CostModel::ActiveWorker> workers;
  for (std::size_t w = 0; w < streams.size(); ++w) {
    const auto& of_group = streams[w];
    const bool is_whole =
        !of_group.empty() && std::count(of_group.begin(), of_group.end(), of_group[0]) ==
                                 static_cast<std::ptrdiff_t>(of_group.size());
    workers.push_back(is_whole ? whole_workers_[w][of_group[0]]
                               : CostModel::active_worker(gpu_, tables_, w,
                                                          streams_of_kernels(w, of_group), cost_));
  }
  return {gpu_, tables_, std::move(workers), cost_};
}

double RowSearch::value_of(const std::vector<double>& request_us,
                           const std::vector<double>& joules) const {
  double workers = 0;
  double weights = 0;
  double slowdowns = 0;
  double rates = 0;
  double penalties = 0;
  for (std::size_t w = 0; w < request_us.size(); ++w) {
    if (request_us[w] == 0) continue;
    const double weight = tables_.weight(w);
    ++workers;
    weights += weight;
    slowdowns += weight * request_us[w] / solo_us_[w];
    rates += weight * solo_us_[w] / request_us[w];
    penalties += late_penalty(request_us[w], tables_.latency_bound_us(w));
  }
  switch (options_.objective) {
    case Objective::latency:
      return penalties + slowdowns / weights;
    case Objective::throughput:
      return penalties + weights / rates;
    case Objective::energy:
      break;
  }
  const double idle_joules_per_us = gpu_.power.idle_watts * 1e-6;
  double energies = 0;
  for (std::size_t w = 0; w < request_us.size(); ++w)
    if (request_us[w] > 0)
      energies += tables_.weight(w) * (joules[w] + idle_joules_per_us * request_us[w] / workers) /
                  (solo_joules_[w] + idle_joules_per_us * solo_us_[w]);
  return penalties + energies / weights;
}

double RowSearch::cost_of_time(std::size_t worker, double request_us) const {
  return tables_.weight(worker) / solo_us_[worker] +
         late_penalty(request_us, tables_.latency_bound_us(worker)) / request_us;
}

Row RowSearch::evaluate(GroupStreams streams) const {
  Row row{.streams = std::move(streams), .prediction = {}};
  row.prediction = model_of(row.streams).solve();
  row.value = value_of(row.prediction.request_us, row.prediction.joules);
  return row;
}

bool RowSearch::try_better(Row& row, GroupStreams streams) const {
  double& at_least = known_[streams];  // 0 when it is new
  if (at_least > 0 && !is_better(at_least, row.value)) return false;
  CostModel model = model_of(streams);
  bool hopeless = false;
  Prediction prediction = model.solve([&](const CostModel& so_far) {
    const Prediction times = so_far.prediction();
    hopeless = value_of(times.request_us, times.joules) > row.value * hopeless_share;
    return hopeless;
  });
  at_least = hopeless ? row.value : value_of(prediction.request_us, prediction.joules);
  if (hopeless || !is_better(at_least, row.value)) return false;
  row = {.streams = std::move(streams), .prediction = std::move(prediction), .value = at_least};
  return true;
}

bool RowSearch::cannot_be_better(const Row& row, std::size_t worker, std::uint32_t stream) const {
  std::vector<double> alone_us = row.prediction.alone_us;
  std::vector<double> joules = row.prediction.joules;
  alone_us[worker] = whole_workers_[worker][stream].alone_us();
  joules[worker] = whole_workers_[worker][stream].joules;
  return !is_better(value_of(alone_us, joules), row.value);
}

bool RowSearch::swap_workers(Row& row) const {
  bool improved = false;
  for (std::size_t a = 0; a < row.streams.size(); ++a)
    for (std::size_t b = a + 1; b < row.streams.size(); ++b) {
      if (row.streams[a].empty() || row.streams[b].empty() || out_of_time()) continue;
      const std::uint32_t of_a = row.streams[a].front();
      const std::uint32_t of_b = row.streams[b].front();
      if (of_a == of_b) continue;
      GroupStreams swapped = row.streams;
      std::fill(swapped[a].begin(), swapped[a].end(), of_b);
      std::fill(swapped[b].begin(), swapped[b].end(), of_a);
      improved = try_better(row, std::move(swapped)) || improved;
    }
  return improved;
}

Row RowSearch::move_workers(std::vector<Row> starts,
                            const std::vector<std::uint32_t>& allowed) const {
  Row best = *std::min_element(starts.begin(), starts.end(),
                               [](const Row& a, const Row& b) { return a.value < b.value; });
  for (bool improved = true; improved;) {
    improved = false;
    for (std::size_t w = 0; w < best.streams.size(); ++w) {
      if (best.streams[w].empty()) continue;
      for (const std::uint32_t s : allowed) {
        if (out_of_time()) return best;
        if (best.streams[w].front() == s || cannot_be_better(best, w, s)) continue;
        GroupStreams moved = best.streams;
        std::fill(moved[w].begin(), moved[w].end(), s);
        improved = try_better(best, std::move(moved)) || improved;
      }
    }
    improved = swap_workers(best) || improved;
  }
  return best;
}

Row RowSearch::join(Row row, const Row& before, std::size_t worker,
                    const std::vector<std::uint32_t>& allowed) const {
  for (const std::uint32_t s : allowed) {
    if (out_of_time()) break;
    GroupStreams joined = before.streams;
    joined[worker].assign(groups_[worker].size(), s);
    try_better(row, std::move(joined));
  }
  return row;
}

std::vector<std::uint32_t> RowSearch::best_response(
    const CostModel& model, std::size_t worker, const std::vector<std::uint32_t>& allowed) const {
  const Groups& groups = groups_[worker];
  const auto classes = tables_.class_of_kernel(worker);
  const double switch_us = gpu_.timing.barrier_us - gpu_.timing.launch_gap_us;
  // What others lose counts as they count.
  const std::vector<double> request_us = model.prediction().request_us;
  std::vector<double> weights;
  const double own = cost_of_time(worker, request_us[worker]);
  for (std::size_t w = 0; w < request_us.size(); ++w)
    weights.push_back(request_us[w] == 0 ? 0 : cost_of_time(w, request_us[w]) / own);
  // cost[g][s]: group g on allowed[s]; then the least of all groups up to g that ends there.
  std::vector<std::vector<double>> cost(groups.size(), std::vector<double>(allowed.size(), 0));
  std::vector<std::vector<std::size_t>> from(groups.size(),
                                             std::vector<std::size_t>(allowed.size(), 0));
  for (std::size_t s = 0; s < allowed.size(); ++s) {
    std::vector<double> times_us = model.class_times_us(worker, allowed[s]);
    const std::vector<double> delays_us = model.class_delays_us(worker, allowed[s], weights);
    for (std::size_t c = 0; c < times_us.size(); ++c) times_us[c] += delays_us[c];
    std::size_t group = 0;
    for (std::size_t k = 0; k < classes.size(); ++k) {
      if (group + 1 < groups.size() && groups[group + 1] == k) ++group;
      cost[group][s] += times_us[classes[k]];
    }
  }
  for (std::size_t g = 1; g < groups.size(); ++g) {
    const auto& before = cost[g - 1];
    const auto cheapest =
        static_cast<std::size_t>(std::min_element(before.begin(), before.end()) - before.begin());
    for (std::size_t s = 0; s < allowed.size(); ++s) {
      const bool stays = before[s] <= before[cheapest] + switch_us;
      from[g][s] = stays ? s : cheapest;
      cost[g][s] += stays ? before[s] : before[cheapest] + switch_us;
    }
  }
  std::vector<std::uint32_t> streams(groups.size());
  auto s = static_cast<std::size_t>(std::min_element(cost.back().begin(), cost.back().end()) -
                                    cost.back().begin());
  for (std::size_t g = groups.size(); g > 0; --g) {
    streams[g - 1] = allowed[s];
    s = from[g - 1][s];
  }
  return streams;
}

bool RowSearch::respond(Row& row, const std::vector<std::uint32_t>& allowed) const {
  bool improved = false;
  for (std::size_t w = 0; w < row.streams.size(); ++w) {
    if (row.streams[w].size() < 2) continue;
    if (out_of_time()) return false;
    CostModel model = model_of(row.streams);
    model.solve();
    GroupStreams moved = row.streams;
    moved[w] = best_response(model, w, allowed);
    if (moved[w] != row.streams[w]) improved = try_better(row, std::move(moved)) || improved;
  }
  return improved;
}

bool RowSearch::is_small(const Row& row, const std::vector<std::uint32_t>& allowed) const {
  std::size_t groups = 0;
  for (const auto& streams : row.streams) groups += streams.size();
  return groups * allowed.size() <= options_.most_group_moves;
}

bool RowSearch::move_single_groups(Row& row, const std::vector<std::uint32_t>& allowed) const {
  if (!is_small(row, allowed)) return false;
  bool improved = false;
  for (std::size_t w = 0; w < row.streams.size(); ++w)
    for (std::size_t g = 0; g < row.streams[w].size(); ++g)
      for (const std::uint32_t s : allowed) {
        if (out_of_time()) return false;
        if (row.streams[w][g] == s) continue;
        GroupStreams moved = row.streams;
        moved[w][g] = s;
        improved = try_better(row, std::move(moved)) || improved;
      }
  return improved;
}

Row RowSearch::move_groups(Row row, const std::vector<std::uint32_t>& allowed) const {
  while (respond(row, allowed) || move_single_groups(row, allowed)) {
  }
  return row;
}

Row RowSearch::search(std::vector<Row> starts, const std::vector<std::uint32_t>& allowed) const {
  Row best = move_groups(move_workers(starts, allowed), allowed);
  for (Row& start : starts) {
    Row other = move_groups(move_workers({std::move(start)}, allowed), allowed);
    if (is_better(other.value, best.value)) best = std::move(other);
  }
  return best;
}

double RowSearch::lower_bound(WorkerSet active, const std::vector<std::uint32_t>& allowed) const {
  std::vector<double> request_us(tables_.workers(), 0);
  std::vector<double> joules(tables_.workers(), 0);
  for (std::size_t w = 0; w < request_us.size(); ++w) {
    if (!(active >> w & 1U)) continue;
    request_us[w] =
        cost_.request_overhead_us + static_cast<double>(tables_.class_of_kernel(w).size() - 1) *
                                        std::min(gpu_.timing.launch_gap_us, gpu_.timing.barrier_us);
    for (std::size_t c = 0; c < tables_.classes(w); ++c) {
      const double kernels = tables_.kernels_of_class(w)[c];
      double least_us = CostTables::never_us;
      double least_held = CostTables::never_us;
      for (const std::uint32_t s : allowed) {
        const KernelCost& cost = tables_.costs(w, s)[c];
        least_us = std::min(least_us, cost.alone_us);
        least_held = std::min(least_held, cost.held_us() * tables_.cus(s));
      }
      request_us[w] += kernels * least_us;
      joules[w] += kernels * gpu_.power.cu_active_watts * least_held * 1e-6;
    }
  }
  return value_of(request_us, joules);
}

}  // namespace eclip::planner
