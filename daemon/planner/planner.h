// The planner: workers and their profiles in, plan out. Pure: no clock, file or thread. How it goes
// from profiles to a plan: docs/planner.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "daemon/planner/closed_loop.h"
#include "daemon/planner/search.h"
#include "ipc/result.h"

namespace eclip::planner {

inline constexpr std::size_t most_workers = stream_budget;
inline constexpr std::size_t most_kernels = 1'000'000;  ///< of one worker
inline constexpr double unknown_request_us = 1000;      ///< of a worker without a profile

struct PlannerOptions {
  SearchOptions search{};
  CostOptions cost{};     ///< `unmasked` and `queues` are the planner's to set
  double group_us = 500;  ///< a worker looks for another stream no more often than that
  /// The streams that there are: the plan's pool is these, in this order. Without: the planner
  /// chooses a pool.
  std::optional<std::vector<CuMask>> pool{};
  /// The plan before, of the same GPU and the same other options, when workers have joined, left or
  /// changed their rates. With a given pool of the same masks, and without judge_by_simulation, its
  /// rows for sets of workers that were there already (the same kernel objects) are taken over, and
  /// the others start from the row without the newcomer; else it changes nothing. Used within
  /// make_plan only.
  const struct Plan* previous = nullptr;
  /// Among the policies and what the search found, take what is best in the device model, for the
  /// likely active sets and for all workers: some 10 to 50 ms for each candidate.
  bool judge_by_simulation = false;
  LoopOptions simulation{};  ///< how
  /// With judge_by_simulation: candidates for the other objectives, too; and a row that is behind
  /// the better of unmasked and the first pool's homes, by the geometric mean of p95 or in
  /// throughput, comes after those that are not, whatever its value.
  bool keep_up = false;
};

/// A simple policy or pool that the plan was compared with.
struct Candidate {
  std::string name;
  /// Expected over the active sets, by the cost model. The plan's is not larger; with
  /// judge_by_simulation, the plan's simulated_value for all workers is not, but for keep_up.
  double value = 0;
  Row all_active;  ///< its row for all workers at once
};

/// What a plan leaves to the one that follows it.
struct PlanMemory;

/// Streams 0 .. pool.streams.size() - 1 are the pool's; stream `unmasked` has no CU mask and does
/// not count in the budget.
struct Plan {
  Pool pool;
  std::uint32_t unmasked = 0;
  std::vector<Groups> groups;    ///< of each worker
  std::vector<double> activity;  ///< share of the time in which each worker has a request
  std::vector<double> solo_us;   ///< each worker alone without a mask
  std::vector<Row> rows;         ///< rows[active - 1] for every set of active workers
  double value = 0;              ///< expected over the active sets
  double lower_bound = 0;        ///< no plan on this pool has a smaller expected value
  /// What was evaluated and rejected: first nobody masked, second everybody at home.
  std::vector<Candidate> candidates;
  std::vector<Violation> violations;         ///< of latency bounds; empty: all rows keep them
  bool complete = true;                      ///< false when the search ran out of time
  std::shared_ptr<const PlanMemory> memory;  ///< for PlannerOptions::previous

  [[nodiscard]] const Row& row(WorkerSet active) const { return rows[active - 1]; }
};

/// Share of the time in which any worker is active that exactly these are; by Plan::activity.
double share_of(std::span<const double> activity, WorkerSet active);

/// Sets what follows from the rows: value and violations.
void sum_up_rows(Plan& plan, std::span<const Worker> workers);

/// A worker that runs the profiled request, with the profile's constraints.
Worker profiled_worker(const model::Profile& profile, std::string name, double requests_per_s = 0);

/// What an unknown worker is planned as: a request is one kernel of unknown_request_us that fills
/// the whole GPU, and takes as much longer on fewer CUs. Other workers as they are.
Worker as_planned(const model::GpuDescription& gpu, const Worker& worker);

/// Errc::invalid_argument: no worker; a worker without kernels that is not unknown, or with too
/// many; a rate or bound that is not a finite number of at least 0, a weight that is not one above
/// 0; a given pool that cannot be (check_pool). Errc::budget_exceeded: more than most_workers
/// workers; more streams and workers than the GPU has queue slots; without a given pool, more
/// workers than halves of shader engines. Errc::unsupported: several XCCs and no given pool. The
/// message names the worker or stream and the remedy.
Result<Plan> make_plan(const model::GpuDescription& gpu, std::span<const Worker> workers,
                       const PlannerOptions& options);

}  // namespace eclip::planner
