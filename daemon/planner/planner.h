// The planner: workers and their profiles in, plan out. Pure: no clock, file or thread. How it goes
// from profiles to a plan: docs/planner.md.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "daemon/planner/closed_loop.h"
#include "daemon/planner/search.h"
#include "ipc/result.h"

namespace eclip::planner {

inline constexpr std::size_t most_workers = stream_budget;
inline constexpr std::size_t most_kernels = 1'000'000;  ///< of one worker

struct PlannerOptions {
  SearchOptions search{};
  CostOptions cost{};     ///< `unmasked` and `queues` are the planner's to set
  double group_us = 500;  ///< a worker looks for another stream no more often than that
  /// Among the policies and what the search found, take what is best in the device model, for the
  /// likely active sets and for all workers: some 10 to 50 ms for each candidate.
  bool judge_by_simulation = false;
  LoopOptions simulation{};  ///< how
};

/// A simple policy or pool that the plan was compared with.
struct Candidate {
  std::string name;
  /// Expected over the active sets, by the cost model. The plan's is not larger; with
  /// judge_by_simulation, the plan's simulated_value for all workers is not.
  double value = 0;
  Row all_active;  ///< its row for all workers at once
};

/// Streams 0 .. pool.streams.size() - 1 are the pool's; stream `unmasked` has no CU mask and does
/// not count in the budget.
struct Plan {
  Pool pool;
  std::uint32_t unmasked = 0;
  std::vector<Groups> groups;         ///< of each worker
  std::vector<double> activity;       ///< share of the time in which each worker has a request
  std::vector<double> solo_us;        ///< each worker alone without a mask
  std::vector<Row> rows;              ///< rows[active - 1] for every set of active workers
  double value = 0;                   ///< expected over the active sets
  double lower_bound = 0;             ///< no plan on this pool has a smaller expected value
  std::vector<Candidate> candidates;  ///< what was evaluated and rejected
  bool complete = true;               ///< false when the search ran out of time

  [[nodiscard]] const Row& row(WorkerSet active) const { return rows[active - 1]; }
};

/// Errc::invalid_argument: no worker, a worker without kernels or with too many, a rate that is not
/// a finite number of at least 0. Errc::budget_exceeded: more than most_workers workers, or more
/// workers than halves of shader engines. The message names the worker and the remedy.
Result<Plan> make_plan(const model::GpuDescription& gpu, std::span<const Worker> workers,
                       const PlannerOptions& options);

}  // namespace eclip::planner
