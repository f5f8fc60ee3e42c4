#include "daemon/planner/planning.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

namespace eclip::planner {
namespace {

/// A closed loop is nearly always active; never quite, so that other active sets have a weight.
constexpr double most_activity = 0.999;
/// A worker that hardly ever has a request; never quite, so that every set has a weight.
constexpr double least_activity = 1e-6;
/// Masks of the policy "overlapping" are the smallest within this of the speed on the whole GPU.
constexpr double overlapping_slack = 0.1;
/// Active sets with less of the time are planned, but with less effort.
constexpr double rare_share = 0.01;

std::uint32_t index_of(std::vector<CuMask>& masks, const CuMask& mask) {
  const auto found = std::find(masks.begin(), masks.end(), mask);
  const auto index = static_cast<std::uint32_t>(found - masks.begin());
  if (found == masks.end()) masks.push_back(mask);
  return index;
}

}  // namespace

Planning::Planning(const model::GpuDescription& gpu, std::span<const Worker> workers,
                   const PlannerOptions& options)
    : gpu_(gpu), workers_(workers), options_(options), cost_(options.cost) {
  for (const Worker& worker : workers) {
    const std::uint32_t cus = gpu.geometry.cu_count();
    groups_.push_back(cut_into_groups(worker, cus, options.group_us));
    const double busy = worker.requests_per_s * 1e-6 * service_us(worker, cus);
    activity_.push_back(worker.requests_per_s == 0
                            ? most_activity
                            : std::clamp(busy, least_activity, most_activity));
  }
  // Stream 0 of the tables is the whole GPU, with or without a mask: the cost is the same.
  masks_.push_back(CuMask::full(gpu.geometry.cu_count()));
  cost_.unmasked = 0;
  cost_.queues = 0;
}

Plan Planning::run() {
  const std::vector<IndexedPool> pools = this->pools();
  first_pool_ = pools.data();
  memory_->workers.assign(workers_.begin(), workers_.end());
  memory_->searched.assign(all(), 0);
  if (reuses_previous()) {
    remember_previous();
    memory_->tables = std::make_shared<const CostTables>(
        gpu_, workers_, masks_, Resolution::classes, *options_.previous->memory->tables, before_);
  } else {
    memory_->tables =
        std::make_shared<const CostTables>(gpu_, workers_, masks_, Resolution::classes);
  }
  const RowSearch search(gpu_, *memory_->tables, groups_, cost_, options_.search);

  Plan plan{.pool = {}, .groups = groups_, .activity = activity_};
  for (std::size_t w = 0; w < workers_.size(); ++w) plan.solo_us.push_back(search.solo_us(w));
  plan.candidates.push_back(policy(search, "unmasked", [&](WorkerSet) {
    return std::vector<std::uint32_t>(workers_.size(), pools[0].unmasked());
  }));
  for (const IndexedPool& pool : pools) {
    plan.candidates.push_back(policy(search,
                                     pools.size() > 1 ? pool.pool.name : std::string("homes"),
                                     [&](WorkerSet) { return pool.home; }));
    if (pools.size() == 1)
      plan.candidates.push_back(policy(
          search, "largest free", [&](WorkerSet active) { return largest_free(pool, active); }));
  }

  const IndexedPool* pool = pools.data();
  std::vector<Row> rows;
  if (reuses_previous()) {
    rows = replanned_rows(search, *pool);
  } else {
    std::tie(pool, rows) = planned_rows(search, pools, plan.candidates);
  }
  std::vector<double> bounds;
  for (WorkerSet active = 1; active <= all(); ++active)
    bounds.push_back(search.lower_bound(active, pool->streams));
  plan.lower_bound = mean(bounds);
  plan.complete = !out_of_time();
  plan.pool = pool->pool;
  plan.unmasked = static_cast<std::uint32_t>(pool->pool.streams.size());
  for (Row& row : rows) renumber(row, pool->streams);
  plan.rows = std::move(rows);
  sum_up_rows(plan, workers_);
  plan.memory = std::move(memory_);
  return plan;
}

std::pair<const IndexedPool*, std::vector<Row>> Planning::planned_rows(
    const RowSearch& search, const std::vector<IndexedPool>& pools,
    const std::vector<Candidate>& candidates) {
  // Pools are compared by the likely active sets; the best one is planned for all sets. Should a
  // policy be better after all, in the rest, its pool is planned, too.
  std::vector<std::vector<Row>> rows;
  rows.reserve(pools.size());
  for (const IndexedPool& pool : pools)
    rows.push_back(options_.judge_by_simulation ? judged_rows(search, pool)
                                                : whole_rows(search, pool, likely_sets()));
  std::vector<std::size_t> order(pools.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return worth(rows[a]) < worth(rows[b]); });
  std::vector<Row> best_rows;
  const IndexedPool* best_pool = nullptr;
  for (const std::size_t at : order) {
    if (best_pool &&
        (options_.judge_by_simulation || expected(best_rows) <= best_policy(candidates)))
      break;
    std::vector<Row> all_rows = whole_rows(search, pools[at], every_set(), std::move(rows[at]));
    if (best_pool && expected(all_rows) >= expected(best_rows)) continue;
    best_rows = std::move(all_rows);
    best_pool = &pools[at];
  }
  for (WorkerSet active = 1; active <= all(); ++active) {
    Row& row = best_rows[active - 1];
    if (row.simulated_value == 0) improve(search, *best_pool, active, row);  // else judged
  }
  return {best_pool, std::move(best_rows)};
}

void Planning::improve(const RowSearch& search, const IndexedPool& pool, WorkerSet active,
                       Row& row) {
  if (share(active) < rare_share) {
    row = search.move_groups(std::move(row), pool.streams);
    return;
  }
  std::vector<Row> starts = starts_of(search, pool, active);
  starts.push_back(std::move(row));
  row = search.search(std::move(starts), pool.streams);
  memory_->searched[active - 1] = !out_of_time();
}

std::vector<IndexedPool> Planning::pools() {
  const auto of_masks = [this](const char* name, std::span<const CuMask> masks) {
    return indexed(pool_of_masks(gpu_, name, masks, workers_, activity_));
  };
  std::vector<IndexedPool> pools;
  if (options_.pool) {
    pools.push_back(of_masks("given", *options_.pool));
    return pools;
  }
  // Nothing tells leaves of unknown workers apart.
  const auto& geometry = gpu_.geometry;
  const std::vector<CuMask> tree = tree_masks(geometry.cu_count(), geometry.shader_engines);
  const bool all_unknown =
      std::all_of(workers_.begin(), workers_.end(), [](const Worker& w) { return w.unknown; });
  if (all_unknown && workers_.size() <= 4 && !tree.empty()) {
    pools.push_back(of_masks("tree", tree));
    return pools;
  }
  const LeafSizes sized = sized_leaves(gpu_, workers_, activity_);
  const LeafSizes equal = equal_leaves(gpu_, workers_.size());
  pools.push_back(indexed(pool_of_leaves(gpu_, "disjoint", sized, workers_, activity_)));
  if (equal.halves != sized.halves)
    pools.push_back(indexed(pool_of_leaves(gpu_, "equal", equal, workers_, activity_)));
  pools.push_back(indexed(overlapping_pool(gpu_, workers_, overlapping_slack)));
  return pools;
}

IndexedPool Planning::indexed(Pool pool) {
  IndexedPool indexed{.pool = std::move(pool), .streams = {}, .home = {}};
  for (const PoolStream& stream : indexed.pool.streams)
    indexed.streams.push_back(index_of(masks_, stream.mask));
  for (const std::uint32_t home : indexed.pool.home) indexed.home.push_back(indexed.streams[home]);
  indexed.streams.push_back(cost_.unmasked);
  return indexed;
}

std::vector<WorkerSet> Planning::every_set() const {
  std::vector<WorkerSet> sets(all());
  std::iota(sets.begin(), sets.end(), WorkerSet{1});
  return sets;
}

std::vector<WorkerSet> Planning::likely_sets() const {
  std::vector<WorkerSet> sets = every_set();
  std::stable_sort(sets.begin(), sets.end(),
                   [this](WorkerSet a, WorkerSet b) { return share(a) > share(b); });
  double left = 1;
  std::size_t count = 0;
  for (; count < sets.size() && left > rare_share; ++count) left -= share(sets[count]);
  sets.resize(std::max<std::size_t>(count, 1));
  return sets;
}

double Planning::mean(const std::vector<double>& values) const {
  double sum = 0;
  double weights = 0;
  for (WorkerSet active = 1; active <= all(); ++active) {
    if (values[active - 1] == 0) continue;
    sum += share(active) * values[active - 1];
    weights += share(active);
  }
  return weights > 0 ? sum / weights : std::numeric_limits<double>::infinity();
}

double Planning::expected(const std::vector<Row>& rows) const {
  std::vector<double> values;
  values.reserve(rows.size());
  for (const Row& row : rows) values.push_back(row.value);
  return mean(values);
}

double Planning::worth(const std::vector<Row>& rows) const {
  if (!options_.judge_by_simulation) return expected(rows);
  std::vector<double> values;
  values.reserve(rows.size());
  for (const Row& row : rows) values.push_back(row.simulated_value + row.behind);
  return mean(values);
}

double Planning::best_policy(const std::vector<Candidate>& candidates) {
  return std::min_element(candidates.begin(), candidates.end(),
                          [](const Candidate& a, const Candidate& b) { return a.value < b.value; })
      ->value;
}

bool Planning::out_of_time() const {
  return options_.search.out_of_time && options_.search.out_of_time();
}

Row Planning::whole_row(const RowSearch& search, WorkerSet active,
                        std::vector<std::uint32_t> stream_of_worker) const {
  GroupStreams streams = search.whole(active, stream_of_worker);
  for (std::size_t w = 0; w < workers_.size(); ++w)
    if (!(active >> w & 1U)) stream_of_worker[w] = no_stream;
  const auto [known, is_new] = memory_->evaluated.try_emplace(std::move(stream_of_worker));
  if (is_new) {
    Row row = search.evaluate(std::move(streams));
    known->second = {row.prediction, row.value};
    return row;
  }
  return {.streams = std::move(streams),
          .prediction = known->second.prediction,
          .value = known->second.value};
}

Candidate Planning::policy(const RowSearch& search, std::string name,
                           const StreamOfWorker& streams_of) const {
  std::vector<double> values;
  Candidate candidate{.name = std::move(name), .all_active = {}};
  for (WorkerSet active = 1; active <= all(); ++active) {
    candidate.all_active = whole_row(search, active, streams_of(active));
    values.push_back(candidate.all_active.value);
  }
  candidate.value = mean(values);
  if (options_.judge_by_simulation) simulate(search, candidate.all_active);
  return candidate;
}

std::vector<Row> Planning::starts_of(const RowSearch& search, const IndexedPool& pool,
                                     WorkerSet active) const {
  const std::vector<std::uint32_t> unmasked(workers_.size(), pool.unmasked());
  return {whole_row(search, active, unmasked), whole_row(search, active, pool.home),
          whole_row(search, active, largest_free(pool, active))};
}

std::vector<Row> Planning::whole_rows(const RowSearch& search, const IndexedPool& pool,
                                      const std::vector<WorkerSet>& sets,
                                      std::vector<Row> rows) const {
  rows.resize(all());
  for (const WorkerSet active : sets) {
    Row& row = rows[active - 1];
    if (row.value > 0) continue;
    const std::vector<Row> starts = starts_of(search, pool, active);
    row = search.move_workers(starts, pool.streams);
    // From every start where it matters: pools are compared by the outcome.
    for (std::size_t i = 0; i < starts.size() && share(active) >= rare_share; ++i) {
      Row other = search.move_workers({starts[i]}, pool.streams);
      if (other.value < row.value) row = std::move(other);
    }
  }
  return rows;
}

std::vector<std::uint32_t> Planning::largest_free(const IndexedPool& pool, WorkerSet active) const {
  std::vector<std::uint32_t> streams = pool.home;
  const auto is_free = [&](const CuMask& mask, std::size_t worker) {
    for (std::size_t other = 0; other < workers_.size(); ++other)
      if (other != worker && (active >> other & 1U) && mask.overlap(masks_[streams[other]]) > 0)
        return false;
    return true;
  };
  for (std::size_t w = 0; w < workers_.size(); ++w) {
    if (!(active >> w & 1U)) continue;
    const CuMask& home = masks_[pool.home[w]];
    for (const std::uint32_t s : pool.streams)
      if (masks_[s].count() > masks_[streams[w]].count() &&
          masks_[s].overlap(home) == home.count() && is_free(masks_[s], w))
        streams[w] = s;
  }
  return streams;
}

void Planning::renumber(Row& row, const std::vector<std::uint32_t>& streams) {
  const std::uint32_t whole = streams.back();
  const auto on_whole =
      std::count_if(row.streams.begin(), row.streams.end(), [whole](const auto& worker) {
        return std::find(worker.begin(), worker.end(), whole) != worker.end();
      });
  for (auto& worker : row.streams)
    for (std::uint32_t& stream : worker)
      stream = stream == whole && on_whole > 1
                   ? static_cast<std::uint32_t>(streams.size() - 1)
                   : static_cast<std::uint32_t>(std::find(streams.begin(), streams.end(), stream) -
                                                streams.begin());
}

}  // namespace eclip::planner
