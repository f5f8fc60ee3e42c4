// The search for the streams of one set of active workers: descent over whole workers, dynamic
// programming over a worker's groups of kernels, best response between workers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "daemon/planner/cost_model.h"
#include "daemon/planner/pool.h"

namespace eclip::planner {

/// What a plan minimises: means over workers by their weights. A worker past its latency bound adds
/// more than any plan gains.
enum class Objective : std::uint8_t {
  latency,     ///< mean over workers of request time relative to the whole GPU alone
  throughput,  ///< the same as a harmonic mean: 1 / mean of relative rates
  energy,      ///< mean over workers of joules of a request relative to the whole GPU alone; a
               ///< request takes its own energy and an equal share of the idle power
};

/// The first kernel of each group of a worker; the first is 0. Kernels of a group stay together.
using Groups = std::vector<std::uint32_t>;

/// Cuts a request into groups of at least `group_us` on the whole GPU alone, never between kernels
/// that stay together. A request shorter than two groups stays whole, which group_us = infinity
/// does to all.
Groups cut_into_groups(const Worker& worker, std::uint32_t cus, double group_us);

/// The stream of each group of each worker, an index into the streams of the tables; a worker
/// without entries is not active.
using GroupStreams = std::vector<std::vector<std::uint32_t>>;  // [worker][group]

struct Row {
  GroupStreams streams;
  Prediction prediction;
  double value = 0;  ///< of the objective
  /// Request times in the device model and the objective's value of them, where they were asked
  /// for.
  std::vector<double> simulated_us{};  // [worker]
  double simulated_value = 0;
  /// How far it is behind simple policies (PlannerOptions::keep_up); 0: not, or not looked at.
  double behind = 0;
  bool by_arrivals = false;  ///< chosen by choose_rows, whatever its value
};

/// A latency bound that a row does not keep. None was found that does for that set of workers.
struct Violation {
  WorkerSet active = 0;
  std::size_t worker = 0;
  double request_us = 0;  ///< simulated where the row was, else predicted
  double latency_bound_us = 0;
};

struct SearchOptions {
  Objective objective = Objective::latency;
  /// Single groups are moved, too, where that takes no more predictions than this in a round.
  std::uint32_t most_group_moves = 256;
  /// Asked between predictions; true ends the search with the best so far. Empty: never.
  std::function<bool()> out_of_time;
};

/// Everything about the workers that does not depend on who is active. What it refers to must
/// outlive it.
class RowSearch {
 public:
  RowSearch(const model::GpuDescription& gpu, const CostTables& tables,
            const std::vector<Groups>& groups, const CostOptions& cost,
            const SearchOptions& options);

  /// Every active worker on one stream.
  [[nodiscard]] GroupStreams whole(WorkerSet active,
                                   const std::vector<std::uint32_t>& stream_of_worker) const;
  [[nodiscard]] Row evaluate(GroupStreams streams) const;
  /// From the best of `starts` (not empty), moves one worker at a time to a better stream
  /// among `allowed`, or swaps two workers' streams, while that helps. Never worse than any start.
  [[nodiscard]] Row move_workers(std::vector<Row> starts,
                                 const std::vector<std::uint32_t>& allowed) const;
  /// The better of `row` and `before` with one more worker, whole on any of the allowed streams.
  [[nodiscard]] Row join(Row row, const Row& before, std::size_t worker,
                         const std::vector<std::uint32_t>& allowed) const;
  /// Splits workers over streams: dynamic programming over (group, stream) for one worker at a time
  /// against the others as they are, with what they lose, then moves of single groups, while the
  /// value gets better.
  [[nodiscard]] Row move_groups(Row row, const std::vector<std::uint32_t>& allowed) const;
  /// Both, from each of `starts` (not empty); the best found.
  [[nodiscard]] Row search(std::vector<Row> starts,
                           const std::vector<std::uint32_t>& allowed) const;
  /// No assignment to the allowed streams has a smaller value: every kernel on its fastest stream,
  /// nobody else there, no switch.
  [[nodiscard]] double lower_bound(WorkerSet active,
                                   const std::vector<std::uint32_t>& allowed) const;
  /// A worker's request alone on the stream with most CUs, us.
  [[nodiscard]] double solo_us(std::size_t worker) const { return solo_us_[worker]; }

  /// The objective's value; [worker], a worker that takes no time is not active.
  [[nodiscard]] double value_of(const std::vector<double>& request_us,
                                const std::vector<double>& joules) const;

 private:
  [[nodiscard]] std::vector<std::uint32_t> streams_of_kernels(
      std::size_t worker, const std::vector<std::uint32_t>& streams) const;
  [[nodiscard]] CostModel model_of(const GroupStreams& streams) const;
  [[nodiscard]] bool cannot_be_better(const Row& row, std::size_t worker,
                                      std::uint32_t stream) const;
  /// What a little more time of a worker's request adds to the value, up to a factor for all.
  [[nodiscard]] double cost_of_time(std::size_t worker, double request_us) const;
  [[nodiscard]] std::vector<std::uint32_t> best_response(
      const CostModel& model, std::size_t worker, const std::vector<std::uint32_t>& allowed) const;
  bool swap_workers(Row& row) const;
  bool try_better(Row& row, GroupStreams streams) const;
  [[nodiscard]] bool is_small(const Row& row, const std::vector<std::uint32_t>& allowed) const;
  bool respond(Row& row, const std::vector<std::uint32_t>& allowed) const;
  bool move_single_groups(Row& row, const std::vector<std::uint32_t>& allowed) const;
  [[nodiscard]] bool out_of_time() const { return options_.out_of_time && options_.out_of_time(); }

  const model::GpuDescription& gpu_;
  const CostTables& tables_;
  const std::vector<Groups>& groups_;
  const CostOptions& cost_;
  const SearchOptions& options_;
  std::vector<double> solo_us_;
  std::vector<double> solo_joules_;                                  // dynamic
  std::vector<std::vector<CostModel::ActiveWorker>> whole_workers_;  // [worker][stream]
  mutable std::map<GroupStreams, double> known_;  // least values: descents meet again and again
};

}  // namespace eclip::planner
