// What a plan takes over from the one before it.
#include <algorithm>

#include "daemon/planner/planning.h"

namespace eclip::planner {
namespace {

bool cost_the_same(const Worker& a, const Worker& b) {
  return (a.kernels == b.kernels || (a.unknown && b.unknown)) && a.weight == b.weight &&
         a.latency_bound_us == b.latency_bound_us;
}

}  // namespace

bool Planning::reuses_previous() const {
  const Plan* previous = options_.previous;
  if (previous == nullptr || !previous->memory || !options_.pool || options_.judge_by_simulation)
    return false;
  return std::equal(options_.pool->begin(), options_.pool->end(), previous->pool.streams.begin(),
                    previous->pool.streams.end(), [](const CuMask& mask, const PoolStream& stream) {
                      return mask == stream.mask;
                    });
}

std::vector<std::optional<std::size_t>> Planning::workers_before() const {
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

Prediction Planning::reordered(const Prediction& prediction) const {
  return {.request_us = reordered(prediction.request_us, 0.0),
          .alone_us = reordered(prediction.alone_us, 0.0),
          .watts = prediction.watts,
          .joules = reordered(prediction.joules, 0.0)};
}

void Planning::remember_previous() {
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

std::optional<std::pair<Row, bool>> Planning::kept_row(const IndexedPool& pool,
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

std::vector<Row> Planning::replanned_rows(const RowSearch& search, const IndexedPool& pool) {
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

}  // namespace eclip::planner
