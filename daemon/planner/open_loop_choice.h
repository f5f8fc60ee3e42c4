// Which row each set of active workers is to have when requests arrive at random: judged by
// simulating that, since a row that is best while its set lasts need not be best for queues.
#pragma once

#include <functional>
#include <span>

#include "daemon/planner/open_loop.h"
#include "daemon/planner/planner.h"

namespace eclip::planner {

struct OpenLoopChoiceOptions {
  /// Of each candidate. Another seed than what is measured afterwards.
  OpenLoopOptions loop{.requests = 40, .seed = 1'000'003};
  /// A simulation ends in vain when all workers have so many times their `requests`: rates are too
  /// different to judge the plan by it.
  std::uint64_t most_rounds = 100;
  /// Sets with less of the time keep their rows.
  double least_share = 0.01;
  /// Sets with at least so much are looked at worker by worker, too.
  double likely_share = 0.1;
  Objective objective = Objective::latency;  ///< of the plan
  std::function<bool()> out_of_time{};       ///< ends the choice with the best so far; empty: never
  std::function<bool()> stop{};              ///< ends all of it; empty: never
};

/// What is minimised: the geometric mean over workers, by their weights, of sqrt(mean latency x
/// p95), us. Errors as of run_open_loop.
Result<double> open_loop_value(const model::GpuDescription& gpu, std::span<const Worker> workers,
                               const Plan& plan, const OpenLoopOptions& options);

/// The plan with other rows where they are better by open_loop_value: nobody masked, everybody at
/// home, the row of all workers, always or for single sets; one worker without a mask or at home;
/// a worker's home that nobody else gets while it is idle. Never worse than `plan` in what it
/// simulates; no worker is late where it is not in `plan`, or later. Rows are whole: predicted,
/// and simulated in a closed loop. As it is for Objective::energy, which queues do not change, and
/// where rates are too different (most_rounds). The plan is make_plan's for these workers; a rate
/// below 0.1 counts as that, and one above twice what the GPU can do alone as this.
/// Errc::invalid_argument when a worker has no rate, Errc::timed_out when it was stopped.
Result<Plan> choose_rows(const model::GpuDescription& gpu, std::span<const Worker> workers,
                         Plan plan, const OpenLoopChoiceOptions& options);

}  // namespace eclip::planner
