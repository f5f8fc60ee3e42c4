#include "daemon/planner/open_loop_choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "daemon/planner/row_simulation.h"

namespace eclip::planner {
namespace {

/// A row replaces another when it is better by more than this: less is chance.
constexpr double least_gain_of_choice = 0.005;
/// Workers with a lower rate are hardly ever active.
constexpr double least_simulated_rate = 0.1;
/// A queue grows as surely at so many times what the GPU can do alone.
constexpr double most_simulated_load = 2;
/// A bound that is broken anyway may be broken by so many times as much.
constexpr double same_lateness = 1.001;

/// Streams of all rows.
using RowStreams = std::vector<GroupStreams>;  // [active - 1]

double value_of_outcome(const OpenLoopOutcome& outcome, std::span<const Worker> workers) {
  double sum = 0;
  double weights = 0;
  for (std::size_t w = 0; w < workers.size(); ++w) {
    std::vector<double> latency_us = outcome.latency_us[w];
    const double count = static_cast<double>(latency_us.size());
    const double mean = std::accumulate(latency_us.begin(), latency_us.end(), 0.0) / count;
    const auto p95 = latency_us.begin() + std::lround(0.95 * (count - 1));
    std::nth_element(latency_us.begin(), p95, latency_us.end());
    sum += workers[w].weight * (std::log(mean) + std::log(*p95)) / 2;
    weights += workers[w].weight;
  }
  return std::exp(sum / weights);
}

/// Of the plan's streams, and of the one without a mask.
std::vector<CuMask> masks_of(const Plan& plan, const model::GpuDescription& gpu) {
  std::vector<CuMask> masks;
  for (const PoolStream& stream : plan.pool.streams) masks.push_back(stream.mask);
  masks.push_back(CuMask::full(gpu.geometry.cu_count()));
  return masks;
}

/// open_loop_value, with other rows than the plan's.
Result<double> simulated_value(const model::GpuDescription& gpu, std::span<const Worker> workers,
                               const Plan& plan, std::span<const CuMask> masks,
                               const RowStreams& rows, const OpenLoopOptions& options) {
  const StreamTable table = [&](std::size_t worker, std::size_t group, WorkerSet active) {
    return rows[active - 1][worker][group];
  };
  const auto outcome = run_open_loop(gpu, workers, plan.groups, masks, table, options);
  if (!outcome) return tl::unexpected(outcome.error());
  return value_of_outcome(*outcome, workers);
}

/// A row of these streams, predicted and simulated in a closed loop.
Result<Row> simulated_row(const model::GpuDescription& gpu, std::span<const Worker> workers,
                          const Plan& plan, const RowSearch& search, std::span<const CuMask> masks,
                          const GroupStreams& streams, const std::function<bool()>& stop) {
  Row row = search.evaluate(streams);
  const auto outcome =
      simulate_row(gpu, workers, plan.groups, masks, search, LoopOptions{.stop = stop}, row);
  if (!outcome) return tl::unexpected(outcome.error());
  return row;
}

class RowChoice {
 public:
  RowChoice(const model::GpuDescription& gpu, std::span<const Worker> workers, const Plan& plan,
            const RowSearch& search, const std::vector<CuMask>& masks,
            const OpenLoopChoiceOptions& options)
      : gpu_(gpu),
        workers_(workers),
        plan_(plan),
        search_(search),
        masks_(masks),
        options_(options),
        loop_(options.loop) {
    loop_.stop = [this] { return is_set(options_.out_of_time) || is_set(options_.stop); };
    loop_.most_requests = options.most_rounds * options.loop.requests * workers.size();
    for (const Row& row : plan.rows) best_.push_back(row.streams);
  }

  Result<void> run() {
    auto value = simulated_value(gpu_, workers_, plan_, masks_, best_, loop_);
    if (!value) return tl::unexpected(value.error());
    best_value_ = *value;
    if (auto done = try_everywhere(); !done) return done;
    for (std::size_t w = 0; w < workers_.size(); ++w)
      if (auto done = try_rows(reserving(w)); !done) return done;
    std::vector<WorkerSet> sets(plan_.rows.size());
    std::iota(sets.begin(), sets.end(), WorkerSet{1});
    std::stable_sort(sets.begin(), sets.end(), [this](WorkerSet a, WorkerSet b) {
      return share_of(plan_.activity, a) > share_of(plan_.activity, b);
    });
    for (const WorkerSet active : sets) {
      if (share_of(plan_.activity, active) < options_.least_share) break;
      for (const GroupStreams& row : whole_rows(active))
        if (auto done = try_row(active, row); !done) return done;
    }
    for (const WorkerSet active : sets) {
      if (share_of(plan_.activity, active) < options_.likely_share) break;
      for (std::size_t w = 0; w < workers_.size(); ++w) {
        if (!(active >> w & 1U) || active == WorkerSet{1} << w) continue;
        for (const std::uint32_t stream : {plan_.unmasked, plan_.pool.home[w]}) {
          GroupStreams row = best_[active - 1];
          row[w].assign(plan_.groups[w].size(), stream);
          if (auto done = try_row(active, row); !done) return done;
        }
      }
    }
    return {};
  }
  /// The best rows; after an error of run(), those so far.
  [[nodiscard]] const RowStreams& best() const { return best_; }

 private:
  static bool is_set(const std::function<bool()>& question) { return question && question(); }

  /// Nobody masked, everybody at home, the row of all workers.
  [[nodiscard]] std::vector<GroupStreams> whole_rows(WorkerSet active) const {
    std::vector<GroupStreams> rows(3, GroupStreams(workers_.size()));
    for (std::size_t w = 0; w < workers_.size(); ++w) {
      if (!(active >> w & 1U)) continue;
      rows[0][w].assign(plan_.groups[w].size(), plan_.unmasked);
      rows[1][w].assign(plan_.groups[w].size(), plan_.pool.home[w]);
      rows[2][w] = plan_.rows.back().streams[w];
    }
    return rows;
  }

  /// The best rows, but a worker's home is nobody else's while it is idle, where the others have a
  /// stream around their homes without it: it need not wait for them when it wakes up.
  [[nodiscard]] RowStreams reserving(std::size_t owner) const {
    const CuMask& kept = masks_[plan_.pool.home[owner]];
    RowStreams rows = best_;
    for (WorkerSet active = 1; active <= rows.size(); ++active) {
      if (active >> owner & 1U) continue;
      for (std::size_t w = 0; w < workers_.size(); ++w)
        for (std::uint32_t& stream : rows[active - 1][w])
          if (masks_[stream].overlap(kept) > 0) stream = largest_beside(w, stream, kept);
    }
    return rows;
  }

  /// The worker's largest stream around its home, within `stream` and without `kept`; `stream` when
  /// there is none.
  [[nodiscard]] std::uint32_t largest_beside(std::size_t worker, std::uint32_t stream,
                                             const CuMask& kept) const {
    const CuMask& home = masks_[plan_.pool.home[worker]];
    std::uint32_t best = stream;
    std::uint32_t most = 0;
    for (std::uint32_t s = 0; s < plan_.pool.streams.size(); ++s) {
      const std::uint32_t cus = masks_[s].count();
      if (masks_[s].overlap(kept) > 0 || masks_[s].overlap(home) < home.count() ||
          masks_[s].overlap(masks_[stream]) < cus || cus <= most)
        continue;
      best = s;
      most = cus;
    }
    return best;
  }

  Result<void> try_rows(RowStreams rows) {
    if (rows == best_) return {};
    const auto is_late = breaks_bound(rows);
    if (!is_late) return tl::unexpected(is_late.error());
    if (*is_late) return {};
    auto value = simulated_value(gpu_, workers_, plan_, masks_, rows, loop_);
    if (!value) return tl::unexpected(value.error());
    if (*value > best_value_ * (1 - least_gain_of_choice)) return {};
    best_value_ = *value;
    best_ = std::move(rows);
    return {};
  }
  Result<void> try_row(WorkerSet active, GroupStreams row) {
    RowStreams rows = best_;
    rows[active - 1] = std::move(row);
    return try_rows(std::move(rows));
  }
  /// Whether a row that is new makes a worker late that is not in the plan's, or later.
  [[nodiscard]] Result<bool> breaks_bound(const RowStreams& rows) const {
    if (std::none_of(workers_.begin(), workers_.end(),
                     [](const Worker& worker) { return worker.latency_bound_us > 0; }))
      return false;
    for (WorkerSet active = 1; active <= rows.size(); ++active) {
      if (rows[active - 1] == best_[active - 1]) continue;
      const auto row =
          simulated_row(gpu_, workers_, plan_, search_, masks_, rows[active - 1], loop_.stop);
      if (!row) return tl::unexpected(row.error());
      for (const Violation& late : violations_of(workers_, active, *row))
        if (std::none_of(plan_.violations.begin(), plan_.violations.end(),
                         [&](const Violation& known) {
                           return known.active == active && known.worker == late.worker &&
                                  late.request_us <= known.request_us * same_lateness;
                         }))
          return true;
    }
    return false;
  }
  /// The simple tables: one kind of row for every set.
  Result<void> try_everywhere() {
    for (std::size_t kind = 0; kind < 3; ++kind) {
      RowStreams rows;
      for (WorkerSet active = 1; active <= plan_.rows.size(); ++active)
        rows.push_back(whole_rows(active)[kind]);
      if (auto done = try_rows(std::move(rows)); !done) return done;
    }
    return {};
  }

  const model::GpuDescription& gpu_;
  std::span<const Worker> workers_;
  const Plan& plan_;
  const RowSearch& search_;
  const std::vector<CuMask>& masks_;
  const OpenLoopChoiceOptions& options_;
  OpenLoopOptions loop_;
  RowStreams best_;
  double best_value_ = 0;
};

/// As planned, and with a rate that can be simulated.
std::vector<Worker> to_simulate(const model::GpuDescription& gpu, std::span<const Worker> workers) {
  std::vector<Worker> planned;
  for (const Worker& worker : workers) {
    planned.push_back(as_planned(gpu, worker));
    if (worker.requests_per_s == 0) continue;
    const double capacity = 1e6 / service_us(planned.back(), gpu.geometry.cu_count());
    planned.back().requests_per_s =
        std::min(std::max(worker.requests_per_s, least_simulated_rate),
                 std::max(most_simulated_load * capacity, least_simulated_rate));
  }
  return planned;
}

}  // namespace

Result<double> open_loop_value(const model::GpuDescription& gpu, std::span<const Worker> workers,
                               const Plan& plan, const OpenLoopOptions& options) {
  RowStreams rows;
  for (const Row& row : plan.rows) rows.push_back(row.streams);
  return simulated_value(gpu, to_simulate(gpu, workers), plan, masks_of(plan, gpu), rows, options);
}

Result<Plan> choose_rows(const model::GpuDescription& gpu, std::span<const Worker> workers,
                         Plan plan, const OpenLoopChoiceOptions& options) {
  if (options.objective == Objective::energy) return plan;
  const std::vector<Worker> planned = to_simulate(gpu, workers);
  const std::vector<CuMask> masks = masks_of(plan, gpu);
  const CostTables tables(gpu, planned, masks, Resolution::classes);
  const CostOptions cost{.unmasked = plan.unmasked};
  const SearchOptions how{.objective = options.objective};
  const RowSearch search(gpu, tables, plan.groups, cost, how);
  RowChoice choice(gpu, planned, plan, search, masks, options);
  const auto done = choice.run();
  if (!done && done.error().code != Errc::timed_out) return tl::unexpected(done.error());
  if (options.stop && options.stop()) return fail(Errc::timed_out, "the choice was stopped");
  plan.complete = plan.complete && !(options.out_of_time && options.out_of_time());
  for (WorkerSet active = 1; active <= plan.rows.size(); ++active) {
    Row& row = plan.rows[active - 1];
    if (const GroupStreams& streams = choice.best()[active - 1]; row.streams != streams) {
      auto whole = simulated_row(gpu, planned, plan, search, masks, streams, options.stop);
      if (!whole) return tl::unexpected(whole.error());
      row = std::move(*whole);
      row.by_arrivals = true;
    }
  }
  sum_up_rows(plan, planned);
  return plan;
}

}  // namespace eclip::planner
