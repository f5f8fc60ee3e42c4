#include "daemon/planner/planner.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <tuple>

#include "daemon/model/occupancy.h"
#include "daemon/planner/row_simulation.h"

namespace eclip::planner {

struct PlanMemory {
  struct Evaluated {
    Prediction prediction;
    double value = 0;
  };
  std::vector<Worker> workers;
  std::shared_ptr<const CostTables> tables;
  /// By the stream of the tables of each worker, which is whole; no_stream: not active.
  std::map<std::vector<std::uint32_t>, Evaluated> evaluated;
  std::vector<std::uint8_t> searched;  ///< [active - 1]: for a likely set, and to the end
};

namespace {

using model::GpuDescription;

/// A closed loop is nearly always active; never quite, so that other active sets have a weight.
constexpr double most_activity = 0.999;
/// Masks of the policy "overlapping" are the smallest within this of the speed on the whole GPU.
constexpr double overlapping_slack = 0.1;
/// Active sets with less of the time are planned, but with less effort.
constexpr double rare_share = 0.01;
/// PlannerOptions::keep_up: what counts as behind, and how much more it counts than any objective.
constexpr double same_p95 = 1.003;
constexpr double same_throughput = 0.985;
constexpr double behind_penalty = 100;
constexpr std::array all_objectives{Objective::latency, Objective::throughput, Objective::energy};

/// A worker that hardly ever has a request; never quite, so that every set has a weight.
constexpr double least_activity = 1e-6;

Result<void> check_number(double number, bool may_be_zero, const std::string& what,
                          const std::string& remedy) {
  if (std::isfinite(number) && (number > 0 || (may_be_zero && number == 0))) return {};
  return fail(Errc::invalid_argument, what + " " + std::to_string(number) + "; " + remedy);
}

Result<void> check(const Worker& worker, const std::string& who) {
  if (worker.unknown && !worker.kernels.empty())
    return fail(Errc::invalid_argument, who + " is unknown and has " +
                                            std::to_string(worker.kernels.size()) +
                                            " kernels; leave out one of the two");
  if (!worker.unknown && worker.kernels.empty())
    return fail(Errc::invalid_argument,
                who + " has no kernels; record its profile again, or mark it as unknown");
  if (worker.kernels.size() > most_kernels)
    return fail(Errc::invalid_argument, who + " has " + std::to_string(worker.kernels.size()) +
                                            " kernels in a request, more than " +
                                            std::to_string(most_kernels) +
                                            "; profile a shorter request");
  for (const model::KernelRange& range : worker.stay_together)
    if (range.first > range.last || range.last >= worker.kernels.size())
      return fail(Errc::invalid_argument, who + ": kernels " + std::to_string(range.first) +
                                              " to " + std::to_string(range.last) +
                                              " are to stay together; give a range within its " +
                                              std::to_string(worker.kernels.size()) + " kernels");
  if (auto ok = check_number(worker.requests_per_s, true, who + " has the rate",
                             "give requests per second, or 0 for a closed loop");
      !ok)
    return ok;
  if (auto ok = check_number(worker.weight, false, who + " has the weight", "give one above 0");
      !ok)
    return ok;
  return check_number(worker.latency_bound_us, true, who + " has the latency bound",
                      "give microseconds, or 0 for none");
}

Result<void> check(const GpuDescription& gpu, std::span<const Worker> workers,
                   const PlannerOptions& options) {
  const std::string count = std::to_string(workers.size()) + " workers";
  if (workers.empty())
    return fail(Errc::invalid_argument, "a plan needs at least one worker; none was given");
  if (workers.size() > most_workers)
    return fail(Errc::budget_exceeded,
                count + " need " + std::to_string(workers.size()) + " home leaves, and a GPU has " +
                    std::to_string(stream_budget) +
                    " CU-masked streams; plan for fewer workers or use another GPU for some");
  if (options.pool) {
    if (auto ok = check_pool(gpu, *options.pool); !ok) return ok;
  } else if (gpu.geometry.xccs > 1) {
    return fail(Errc::unsupported, gpu.name + " has " + std::to_string(gpu.geometry.xccs) +
                                       " XCCs, for which the planner cannot make masks; give a "
                                       "pool whose masks have CUs on each");
  } else if (workers.size() > 2 * gpu.geometry.shader_engines) {
    return fail(Errc::budget_exceeded, count + " need as many halves of shader engines; " +
                                           gpu.name + " has " +
                                           std::to_string(2 * gpu.geometry.shader_engines) +
                                           ", so plan for fewer workers or give a pool");
  }
  // Beside the pool, each worker may be in a queue of its own without a mask.
  const std::size_t queues = (options.pool ? options.pool->size() : stream_budget) + workers.size();
  if (const std::uint32_t slots = gpu.topology.num_cp_queues; slots != 0 && queues > slots)
    return fail(Errc::budget_exceeded,
                count + " and the pool need up to " + std::to_string(queues) + " queues, and " +
                    gpu.name + " holds " + std::to_string(slots) +
                    " at a time: plan for fewer workers, or give a smaller pool");
  for (std::size_t w = 0; w < workers.size(); ++w)
    if (auto ok = check(workers[w], "worker " + std::to_string(w) + " ('" + workers[w].name + "')");
        !ok)
      return ok;
  return {};
}

bool cost_the_same(const Worker& a, const Worker& b) {
  return (a.kernels == b.kernels || (a.unknown && b.unknown)) && a.weight == b.weight &&
         a.latency_bound_us == b.latency_bound_us;
}

/// A pool with its streams as indices into the tables.
struct IndexedPool {
  Pool pool;
  std::vector<std::uint32_t> streams;  ///< of the pool, then the one without a mask
  std::vector<std::uint32_t> home;     ///< of each worker
  [[nodiscard]] std::uint32_t unmasked() const { return streams.back(); }
};

std::uint32_t index_of(std::vector<CuMask>& masks, const CuMask& mask) {
  const auto found = std::find(masks.begin(), masks.end(), mask);
  const auto index = static_cast<std::uint32_t>(found - masks.begin());
  if (found == masks.end()) masks.push_back(mask);
  return index;
}

/// What rows are compared with beside the objective, over a set of workers.
struct Pace {
  double p95 = std::numeric_limits<double>::infinity();  ///< geometric mean, relative to alone
  double throughput = 0;                                 ///< sum of rates relative to alone
};

double p95_of(std::vector<double> values) {
  const auto at = std::lround(0.95 * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

class Planning {
 public:
  Planning(const GpuDescription& gpu, std::span<const Worker> workers,
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

  Plan run() {
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

 private:
  /// The pool whose rows are best, and its rows for every active set.
  std::pair<const IndexedPool*, std::vector<Row>> planned_rows(
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

  [[nodiscard]] bool reuses_previous() const {
    const Plan* previous = options_.previous;
    if (previous == nullptr || !previous->memory || !options_.pool || options_.judge_by_simulation)
      return false;
    return std::equal(
        options_.pool->begin(), options_.pool->end(), previous->pool.streams.begin(),
        previous->pool.streams.end(),
        [](const CuMask& mask, const PoolStream& stream) { return mask == stream.mask; });
  }

  /// Of each worker the one of the previous plan whose costs are its own, too.
  [[nodiscard]] std::vector<std::optional<std::size_t>> workers_before() const {
    const std::vector<Worker>& before = options_.previous->memory->workers;
    std::vector<std::optional<std::size_t>> found(workers_.size());
    std::vector<bool> taken(before.size(), false);
    for (std::size_t w = 0; w < workers_.size(); ++w)
      for (std::size_t b = 0; b < before.size() && !found[w]; ++b)
        if (!taken[b] && options_.previous->groups[b] == groups_[w] &&
            cost_the_same(workers_[w], before[b])) {
          found[w] = b;
          taken[b] = true;
        }
    return found;
  }

  /// Values by worker of the previous plan, in the order of these workers.
  template <class T>
  [[nodiscard]] std::vector<T> reordered(const std::vector<T>& values, const T& absent) const {
    std::vector<T> of_workers(workers_.size(), absent);
    for (std::size_t w = 0; w < workers_.size(); ++w)
      if (before_[w]) of_workers[w] = values[*before_[w]];
    return of_workers;
  }
  [[nodiscard]] Prediction reordered(const Prediction& prediction) const {
    return {.request_us = reordered(prediction.request_us, 0.0),
            .alone_us = reordered(prediction.alone_us, 0.0),
            .watts = prediction.watts,
            .joules = reordered(prediction.joules, 0.0)};
  }

  /// What the previous plan has evaluated of workers that are still there.
  void remember_previous() {
    before_ = workers_before();
    std::vector<bool> stays(options_.previous->memory->workers.size(), false);
    for (const auto& before : before_)
      if (before) stays[*before] = true;
    for (const auto& [streams, known] : options_.previous->memory->evaluated) {
      bool all_stay = true;
      for (std::size_t b = 0; b < streams.size(); ++b)
        all_stay = all_stay && (streams[b] == no_stream || stays[b]);
      if (all_stay)
        memory_->evaluated[reordered(streams, no_stream)] = {reordered(known.prediction),
                                                             known.value};
    }
  }

  /// The previous plan's row for the same workers, in streams of the tables, and whether it was
  /// searched for, too; nothing when one of them is new.
  [[nodiscard]] std::optional<std::pair<Row, bool>> kept_row(const IndexedPool& pool,
                                                             WorkerSet active) const {
    WorkerSet was_active = 0;
    for (std::size_t w = 0; w < workers_.size(); ++w) {
      if (!(active >> w & 1U)) continue;
      if (!before_[w]) return std::nullopt;
      was_active |= WorkerSet{1} << *before_[w];
    }
    const Row& kept = options_.previous->row(was_active);
    Row row{.streams = reordered(kept.streams, {}),
            .prediction = reordered(kept.prediction),
            .value = kept.value};
    for (auto& worker : row.streams)
      for (std::uint32_t& stream : worker) stream = pool.streams[stream];
    return std::pair{std::move(row), options_.previous->memory->searched[was_active - 1] != 0};
  }

  /// Rows of workers that were there before are taken over, the others begin with the row without
  /// the newcomer. First each set gets a row that no policy beats; what time is left then goes to
  /// newcomers and to the search for the likely sets.
  std::vector<Row> replanned_rows(const RowSearch& search, const IndexedPool& pool) {
    std::vector<Row> rows(all());
    for (WorkerSet active = 1; active <= all(); ++active) {
      std::vector<Row> choices = starts_of(search, pool, active);
      if (auto kept = kept_row(pool, active)) {
        memory_->searched[active - 1] = kept->second;
        choices.insert(choices.begin(), std::move(kept->first));  // of equal ones it stays
      }
      rows[active - 1] =
          *std::min_element(choices.begin(), choices.end(),
                            [](const Row& a, const Row& b) { return a.value < b.value; });
    }
    std::vector<WorkerSet> sets = every_set();
    std::stable_sort(sets.begin(), sets.end(),
                     [this](WorkerSet a, WorkerSet b) { return share(a) > share(b); });
    for (const WorkerSet active : sets) {
      std::size_t newcomer = workers_.size();
      for (std::size_t w = 0; w < workers_.size(); ++w)
        if ((active >> w & 1U) && !before_[w]) newcomer = w;
      const WorkerSet others = active & ~(WorkerSet{1} << newcomer);
      if (newcomer < workers_.size() && others != 0)
        rows[active - 1] =
            search.join(std::move(rows[active - 1]), rows[others - 1], newcomer, pool.streams);
    }
    for (const WorkerSet active : sets)
      if (memory_->searched[active - 1] == 0) improve(search, pool, active, rows[active - 1]);
    return rows;
  }

  /// Searches for a row with an effort by how likely the set is.
  void improve(const RowSearch& search, const IndexedPool& pool, WorkerSet active, Row& row) {
    if (share(active) < rare_share) {
      row = search.move_groups(std::move(row), pool.streams);
      return;
    }
    std::vector<Row> starts = starts_of(search, pool, active);
    starts.push_back(std::move(row));
    row = search.search(std::move(starts), pool.streams);
    memory_->searched[active - 1] = !out_of_time();
  }

  [[nodiscard]] WorkerSet all() const { return (WorkerSet{1} << workers_.size()) - 1; }

  /// The given pool, or those to choose from.
  std::vector<IndexedPool> pools() {
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

  IndexedPool indexed(Pool pool) {
    IndexedPool indexed{.pool = std::move(pool), .streams = {}, .home = {}};
    for (const PoolStream& stream : indexed.pool.streams)
      indexed.streams.push_back(index_of(masks_, stream.mask));
    for (const std::uint32_t home : indexed.pool.home)
      indexed.home.push_back(indexed.streams[home]);
    indexed.streams.push_back(cost_.unmasked);
    return indexed;
  }

  [[nodiscard]] double share(WorkerSet active) const { return share_of(activity_, active); }
  [[nodiscard]] std::vector<WorkerSet> every_set() const {
    std::vector<WorkerSet> sets(all());
    std::iota(sets.begin(), sets.end(), WorkerSet{1});
    return sets;
  }
  /// The fewest sets that are active for nearly all of the time in which any worker is.
  [[nodiscard]] std::vector<WorkerSet> likely_sets() const {
    std::vector<WorkerSet> sets = every_set();
    std::stable_sort(sets.begin(), sets.end(),
                     [this](WorkerSet a, WorkerSet b) { return share(a) > share(b); });
    double left = 1;
    std::size_t count = 0;
    for (; count < sets.size() && left > rare_share; ++count) left -= share(sets[count]);
    sets.resize(std::max<std::size_t>(count, 1));
    return sets;
  }
  /// Mean over the active sets that have a row, weighted by how likely each is.
  [[nodiscard]] double mean(const std::vector<double>& values) const {
    double sum = 0;
    double weights = 0;
    for (WorkerSet active = 1; active <= all(); ++active) {
      if (values[active - 1] == 0) continue;
      sum += share(active) * values[active - 1];
      weights += share(active);
    }
    return weights > 0 ? sum / weights : std::numeric_limits<double>::infinity();
  }
  [[nodiscard]] double expected(const std::vector<Row>& rows) const {
    std::vector<double> values;
    values.reserve(rows.size());
    for (const Row& row : rows) values.push_back(row.value);
    return mean(values);
  }
  /// The same by simulation, over the sets that were judged by it; without, by the cost model.
  [[nodiscard]] double worth(const std::vector<Row>& rows) const {
    if (!options_.judge_by_simulation) return expected(rows);
    std::vector<double> values;
    values.reserve(rows.size());
    for (const Row& row : rows) values.push_back(row.simulated_value + row.behind);
    return mean(values);
  }
  [[nodiscard]] static double best_policy(const std::vector<Candidate>& candidates) {
    return std::min_element(
               candidates.begin(), candidates.end(),
               [](const Candidate& a, const Candidate& b) { return a.value < b.value; })
        ->value;
  }

  [[nodiscard]] bool out_of_time() const {
    return options_.search.out_of_time && options_.search.out_of_time();
  }

  /// Every active worker whole on its stream; each such row is evaluated once.
  [[nodiscard]] Row whole_row(const RowSearch& search, WorkerSet active,
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

  /// Of each worker, by who is active.
  using StreamOfWorker = std::function<std::vector<std::uint32_t>(WorkerSet active)>;
  [[nodiscard]] Candidate policy(const RowSearch& search, std::string name,
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

  /// The policies, and each worker on its leaf and the idle ones that it is given.
  [[nodiscard]] std::vector<Row> starts_of(const RowSearch& search, const IndexedPool& pool,
                                           WorkerSet active) const {
    const std::vector<std::uint32_t> unmasked(workers_.size(), pool.unmasked());
    return {whole_row(search, active, unmasked), whole_row(search, active, pool.home),
            whole_row(search, active, largest_free(pool, active))};
  }

  /// Every worker whole on a stream, for those of `sets` that have no row yet.
  [[nodiscard]] std::vector<Row> whole_rows(const RowSearch& search, const IndexedPool& pool,
                                            const std::vector<WorkerSet>& sets,
                                            std::vector<Row> rows = {}) const {
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

  /// False, and the row has not changed, when there was no time.
  bool simulate(const RowSearch& search, Row& row, Pace* pace = nullptr) const {
    LoopOptions how = options_.simulation;
    how.stop = options_.search.out_of_time;
    const auto outcome = simulate_row(gpu_, workers_, groups_, masks_, search, how, row);
    // Masks of a pool are of the GPU's size and not empty; nothing else is refused.
    assert(outcome || outcome.error().code == Errc::timed_out);
    if (!outcome) return false;
    if (pace != nullptr) *pace = pace_of(search, row, *outcome);
    return true;
  }

  [[nodiscard]] Pace pace_of(const RowSearch& search, const Row& row,
                             const LoopOutcome& outcome) const {
    double log_p95 = 0;
    double throughput = 0;
    std::size_t at = 0;
    for (std::size_t w = 0; w < workers_.size(); ++w) {
      if (row.streams[w].empty()) continue;
      log_p95 += std::log(p95_of(outcome.request_us[at++]) / search.solo_us(w));
      throughput += search.solo_us(w) / row.simulated_us[w];
    }
    return {std::exp(log_p95 / static_cast<double>(at)), throughput};
  }

  /// The better of unmasked and the first pool's homes.
  [[nodiscard]] Pace pace_of_policies(const RowSearch& search, WorkerSet active) const {
    Pace best;
    const std::vector<std::uint32_t> unmasked(workers_.size(), first_pool_->unmasked());
    for (const auto& streams : {unmasked, first_pool_->home}) {
      Row row = whole_row(search, active, streams);
      Pace pace;
      if (!simulate(search, row, &pace)) return {};
      best = {std::min(best.p95, pace.p95), std::max(best.throughput, pace.throughput)};
    }
    return best;
  }

  [[nodiscard]] static double behind(const Pace& pace, const Pace& policies) {
    return behind_penalty *
           (std::max(0.0, pace.p95 / (policies.p95 * same_p95) - 1) +
            std::max(0.0, policies.throughput * same_throughput / pace.throughput - 1));
  }

  /// What searches for all objectives find.
  void add_for_other_objectives(const RowSearch& search, const IndexedPool& pool, WorkerSet active,
                                std::vector<Row>& candidates) const {
    for (const Objective objective : all_objectives) {
      if (objective == options_.search.objective) continue;
      SearchOptions options = options_.search;
      options.objective = objective;
      const RowSearch other(gpu_, *memory_->tables, groups_, cost_, options);
      std::vector<Row> starts;
      for (const Row& start : starts_of(search, pool, active))
        starts.push_back(other.evaluate(start.streams));
      candidates.push_back(search.evaluate(other.search(std::move(starts), pool.streams).streams));
    }
  }

  /// For the likely sets and all workers: the best in the device model of the policies, the best
  /// for whole workers, and the best that the search found.
  [[nodiscard]] std::vector<Row> judged_rows(const RowSearch& search,
                                             const IndexedPool& pool) const {
    std::vector<WorkerSet> sets = likely_sets();
    if (std::find(sets.begin(), sets.end(), all()) == sets.end()) sets.push_back(all());
    std::vector<Row> rows(all());
    for (const WorkerSet active : sets) {
      if (options_.search.out_of_time && options_.search.out_of_time()) break;
      std::vector<Row> candidates = starts_of(search, pool, active);
      candidates.push_back(search.move_workers(candidates, pool.streams));
      candidates.push_back(search.search(candidates, pool.streams));
      Pace policies;
      if (options_.keep_up) {
        add_for_other_objectives(search, pool, active, candidates);
        policies = pace_of_policies(search, active);
      }
      Row& best = rows[active - 1];
      for (std::size_t i = 0; i < candidates.size(); ++i) {
        const auto same = [&](const Row& other) { return other.streams == candidates[i].streams; };
        if (std::any_of(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(i),
                        same))
          continue;
        Pace pace;
        if (!simulate(search, candidates[i], &pace)) break;
        if (options_.keep_up) candidates[i].behind = behind(pace, policies);
        if (best.value == 0 || candidates[i].simulated_value + candidates[i].behind <
                                   best.simulated_value + best.behind)
          best = candidates[i];
      }
    }
    return rows;
  }

  /// Each active worker on the largest stream that has its home's CUs and none of another active
  /// worker's home, nor of what another was given.
  [[nodiscard]] std::vector<std::uint32_t> largest_free(const IndexedPool& pool,
                                                        WorkerSet active) const {
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

  /// From streams of the tables to streams of the plan. Where a pool has a mask of all CUs, one
  /// worker alone on the whole GPU has that stream; several have no mask, and queues of their own.
  static void renumber(Row& row, const std::vector<std::uint32_t>& streams) {
    const std::uint32_t whole = streams.back();
    const auto on_whole =
        std::count_if(row.streams.begin(), row.streams.end(), [whole](const auto& worker) {
          return std::find(worker.begin(), worker.end(), whole) != worker.end();
        });
    for (auto& worker : row.streams)
      for (std::uint32_t& stream : worker)
        stream = stream == whole && on_whole > 1
                     ? static_cast<std::uint32_t>(streams.size() - 1)
                     : static_cast<std::uint32_t>(
                           std::find(streams.begin(), streams.end(), stream) - streams.begin());
  }

  const GpuDescription& gpu_;
  std::span<const Worker> workers_;
  const PlannerOptions& options_;
  CostOptions cost_;
  std::vector<Groups> groups_;
  std::vector<double> activity_;
  std::vector<CuMask> masks_;
  const IndexedPool* first_pool_ = nullptr;
  std::shared_ptr<PlanMemory> memory_ = std::make_shared<PlanMemory>();
  std::vector<std::optional<std::size_t>> before_;  // of each worker, in the previous plan
};

}  // namespace

double share_of(std::span<const double> activity, WorkerSet active) {
  double product = 1;
  double none = 1;
  for (std::size_t w = 0; w < activity.size(); ++w) {
    product *= active >> w & 1U ? activity[w] : 1 - activity[w];
    none *= 1 - activity[w];
  }
  return product / (1 - none);
}

void sum_up_rows(Plan& plan, std::span<const Worker> workers) {
  plan.value = 0;
  plan.violations.clear();
  for (WorkerSet active = 1; active <= plan.rows.size(); ++active) {
    plan.value += share_of(plan.activity, active) * plan.row(active).value;
    for (const Violation& late : violations_of(workers, active, plan.row(active)))
      plan.violations.push_back(late);
  }
}

Worker profiled_worker(const model::Profile& profile, std::string name, double requests_per_s) {
  Worker worker{.name = std::move(name),
                .kernels = kernels_of(profile),
                .requests_per_s = requests_per_s,
                .stay_together = profile.stay_together};
  worker.uniform = profile.uniform;
  return worker;
}

Worker as_planned(const GpuDescription& gpu, const Worker& worker) {
  if (!worker.unknown) return worker;
  constexpr std::uint32_t workgroup_size = 256;
  const std::uint32_t cus = gpu.geometry.cu_count();
  model::LaunchShape shape{.workgroups = 0, .workgroup_size = workgroup_size};
  shape.workgroups = cus * model::workgroups_per_cu(shape, gpu.geometry);
  const std::vector<model::TimePoint> points{{cus, unknown_request_us}};
  Worker planned = worker;
  planned.kernels = {std::make_shared<const model::Kernel>(*model::Kernel::create(shape, points))};
  return planned;
}

Result<Plan> make_plan(const GpuDescription& gpu, std::span<const Worker> workers,
                       const PlannerOptions& options) {
  if (auto checked = check(gpu, workers, options); !checked) return tl::unexpected(checked.error());
  std::vector<Worker> planned;
  planned.reserve(workers.size());
  for (const Worker& worker : workers) planned.push_back(as_planned(gpu, worker));
  return Planning(gpu, planned, options).run();
}

}  // namespace eclip::planner
