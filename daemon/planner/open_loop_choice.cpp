#include "daemon/planner/open_loop_choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace eclip::planner {
namespace {

/// A row replaces another when it is better by more than this: less is chance.
constexpr double least_gain_of_choice = 0.005;

/// Streams of all rows.
using RowStreams = std::vector<GroupStreams>;  // [active - 1]

double share_of(const Plan& plan, WorkerSet active) {
  double product = 1;
  double none = 1;
  for (std::size_t w = 0; w < plan.activity.size(); ++w) {
    product *= active >> w & 1U ? plan.activity[w] : 1 - plan.activity[w];
    none *= 1 - plan.activity[w];
  }
  return product / (1 - none);
}

double value_of_outcome(const OpenLoopOutcome& outcome) {
  double sum = 0;
  for (std::vector<double> latency_us : outcome.latency_us) {
    const double count = static_cast<double>(latency_us.size());
    const double mean = std::accumulate(latency_us.begin(), latency_us.end(), 0.0) / count;
    const auto p95 = latency_us.begin() + std::lround(0.95 * (count - 1));
    std::nth_element(latency_us.begin(), p95, latency_us.end());
    sum += (std::log(mean) + std::log(*p95)) / 2;
  }
  return std::exp(sum / static_cast<double>(outcome.latency_us.size()));
}

class RowChoice {
 public:
  RowChoice(const model::GpuDescription& gpu, std::span<const Worker> workers, const Plan& plan,
            const OpenLoopChoiceOptions& options)
      : gpu_(gpu), workers_(workers), plan_(plan), options_(options) {
    for (const PoolStream& stream : plan.pool.streams) masks_.push_back(stream.mask);
    masks_.push_back(CuMask::full(gpu.geometry.cu_count()));
    for (const Row& row : plan.rows) best_.push_back(row.streams);
  }

  Result<RowStreams> run() {
    auto value = value_of(best_);
    if (!value) return tl::unexpected(value.error());
    best_value_ = *value;
    if (auto done = try_everywhere(); !done) return tl::unexpected(done.error());
    for (std::size_t w = 0; w < workers_.size(); ++w)
      if (auto done = try_rows(reserving(w)); !done) return tl::unexpected(done.error());
    std::vector<WorkerSet> sets(plan_.rows.size());
    std::iota(sets.begin(), sets.end(), WorkerSet{1});
    std::stable_sort(sets.begin(), sets.end(), [this](WorkerSet a, WorkerSet b) {
      return share_of(plan_, a) > share_of(plan_, b);
    });
    for (const WorkerSet active : sets) {
      if (share_of(plan_, active) < options_.least_share) break;
      for (const GroupStreams& row : whole_rows(active))
        if (auto done = try_row(active, row); !done) return tl::unexpected(done.error());
    }
    for (const WorkerSet active : sets) {
      if (share_of(plan_, active) < options_.likely_share) break;
      for (std::size_t w = 0; w < workers_.size(); ++w) {
        if (!(active >> w & 1U) || active == WorkerSet{1} << w) continue;
        for (const std::uint32_t stream : {plan_.unmasked, plan_.pool.home[w]}) {
          GroupStreams row = best_[active - 1];
          row[w].assign(plan_.groups[w].size(), stream);
          if (auto done = try_row(active, row); !done) return tl::unexpected(done.error());
        }
      }
    }
    return std::move(best_);
  }

  Result<double> value_of(const RowStreams& rows) const {
    const StreamTable table = [&](std::size_t worker, std::size_t group, WorkerSet active) {
      return rows[active - 1][worker][group];
    };
    const auto outcome = run_open_loop(gpu_, workers_, plan_.groups, masks_, table, options_.loop);
    if (!outcome) return tl::unexpected(outcome.error());
    return value_of_outcome(*outcome);
  }

 private:
  [[nodiscard]] bool out_of_time() const { return options_.out_of_time && options_.out_of_time(); }

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
    if (rows == best_ || out_of_time()) return {};
    auto value = value_of(rows);
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
  const OpenLoopChoiceOptions& options_;
  std::vector<CuMask> masks_;
  RowStreams best_;
  double best_value_ = 0;
};

}  // namespace

Result<double> open_loop_value(const model::GpuDescription& gpu, std::span<const Worker> workers,
                               const Plan& plan, const OpenLoopOptions& options) {
  const OpenLoopChoiceOptions once{.loop = options};
  RowStreams rows;
  for (const Row& row : plan.rows) rows.push_back(row.streams);
  return RowChoice(gpu, workers, plan, once).value_of(rows);
}

Result<Plan> choose_rows(const model::GpuDescription& gpu, std::span<const Worker> workers,
                         Plan plan, const OpenLoopChoiceOptions& options) {
  auto chosen = RowChoice(gpu, workers, plan, options).run();
  if (!chosen) return tl::unexpected(chosen.error());
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    Row& row = plan.rows[i];
    if (row.streams == (*chosen)[i]) continue;
    // What was predicted was another row's.
    row = Row{.streams = std::move((*chosen)[i]), .prediction = {}};
  }
  return plan;
}

}  // namespace eclip::planner
