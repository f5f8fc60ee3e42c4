// Workers with requests that arrive at random on the device model, in virtual time: each group of
// kernels goes to the stream that a table gives it for the workers that are active then.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "daemon/planner/search.h"

namespace eclip::planner {

/// The stream of a worker's group when these workers have a request in flight.
using StreamTable =
    std::function<std::uint32_t(std::size_t worker, std::size_t group, WorkerSet active)>;

struct OpenLoopOptions {
  std::uint32_t requests = 200;     ///< that the worker with the fewest completes; all count
  std::uint64_t most_requests = 0;  ///< of all workers together; then it ends in vain. 0: no limit
  std::uint64_t seed = 1;           ///< of the arrivals, which depend on nothing else but rates
  double request_overhead_us = 25.5;  ///< host time from a completion to a request that waits
  std::function<bool()> stop{};       ///< asked now and then; true ends the simulation
};

struct OpenLoopOutcome {
  std::vector<std::vector<double>> latency_us;  ///< [worker][request], arrival to completion
  double seconds = 0;                           ///< virtual time
};

/// Poisson arrivals at each worker's rate (above 0); a worker runs one request at a time and others
/// wait in its queue. It looks at who is active when a group is complete, for the group after the
/// next: one group is always under way in front of it. A switch is made as in run_closed_loop; each
/// worker has queues of its own. Errc::invalid_argument when a mask does not fit the GPU or a
/// worker's rate is below 1e-4; Errc::timed_out when it was stopped or has most_requests.
Result<OpenLoopOutcome> run_open_loop(const model::GpuDescription& gpu,
                                      std::span<const Worker> workers,
                                      std::span<const Groups> groups,
                                      std::span<const CuMask> streams, const StreamTable& table,
                                      const OpenLoopOptions& options);

}  // namespace eclip::planner
