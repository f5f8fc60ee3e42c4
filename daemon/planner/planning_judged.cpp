// Rows that are chosen by what happens in the device model.
#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "daemon/planner/planning.h"
#include "daemon/planner/row_simulation.h"

namespace eclip::planner {
namespace {

/// PlannerOptions::keep_up: what counts as behind, and how much more it counts than any objective.
constexpr double same_p95 = 1.003;
constexpr double same_throughput = 0.985;
constexpr double behind_penalty = 100;
constexpr std::array all_objectives{Objective::latency, Objective::throughput, Objective::energy};

double p95_of(std::vector<double> values) {
  const auto at = std::lround(0.95 * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

}  // namespace

bool Planning::simulate(const RowSearch& search, Row& row, Pace* pace) const {
  LoopOptions how = options_.simulation;
  how.stop = options_.search.out_of_time;
  const auto outcome = simulate_row(gpu_, workers_, groups_, masks_, search, how, row);
  // Masks of a pool are of the GPU's size and not empty; nothing else is refused.
  assert(outcome || outcome.error().code == Errc::timed_out);
  if (!outcome) return false;
  if (pace != nullptr) *pace = pace_of(search, row, *outcome);
  return true;
}

Pace Planning::pace_of(const RowSearch& search, const Row& row, const LoopOutcome& outcome) const {
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

Pace Planning::pace_of_policies(const RowSearch& search, WorkerSet active) const {
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

double Planning::behind(const Pace& pace, const Pace& policies) {
  return behind_penalty *
         (std::max(0.0, pace.p95 / (policies.p95 * same_p95) - 1) +
          std::max(0.0, policies.throughput * same_throughput / pace.throughput - 1));
}

void Planning::add_for_other_objectives(const RowSearch& search, const IndexedPool& pool,
                                        WorkerSet active, std::vector<Row>& candidates) const {
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

std::vector<Row> Planning::judged_rows(const RowSearch& search, const IndexedPool& pool) const {
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
      if (best.value == 0 ||
          candidates[i].simulated_value + candidates[i].behind < best.simulated_value + best.behind)
        best = candidates[i];
    }
  }
  return rows;
}

}  // namespace eclip::planner
