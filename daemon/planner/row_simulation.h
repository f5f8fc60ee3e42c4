// One row of a plan in the device model.
#pragma once

#include <span>
#include <vector>

#include "daemon/planner/closed_loop.h"
#include "daemon/planner/search.h"

namespace eclip::planner {

/// The latency bounds that a row for these active workers does not keep: its request times are the
/// simulated ones where there are any, else the predicted ones.
std::vector<Violation> violations_of(std::span<const Worker> workers, WorkerSet active,
                                     const Row& row);

/// Runs the row's workers in a closed loop, each with queues of its own, and sets the row's
/// simulated_us and simulated_value (by `search`). `masks` are those of its streams. Nothing has
/// changed after an error, which is run_closed_loop's.
Result<LoopOutcome> simulate_row(const model::GpuDescription& gpu, std::span<const Worker> workers,
                                 const std::vector<Groups>& groups, std::span<const CuMask> masks,
                                 const RowSearch& search, const LoopOptions& options, Row& row);

}  // namespace eclip::planner
