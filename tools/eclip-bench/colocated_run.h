// One run of co-located workers in virtual time: requests in a closed loop or at random, sent by
// one policy, and what became of them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "daemon/planner/cost_tables.h"
#include "tools/eclip-bench/senders.h"

namespace eclip::bench {

enum class Mechanism : std::uint8_t {
  scheduler,   ///< groups of kernels on streams of the pool, by tables
  kernelwise,  ///< a stream of the pool for each kernel
  mask_ioctl,  ///< a queue for each worker, and a mask for each kernel
};

/// How workers share the GPU in a run.
struct Sharing {
  Mechanism mechanism = Mechanism::scheduler;
  std::vector<CuMask> pool;
  std::vector<CuMask> homes;       ///< each worker's home leaf; may be empty: there are none
  std::vector<WorkerPlan> tables;  ///< scheduler: of each worker, whose seat is its number
  std::vector<std::vector<std::uint32_t>> stream_of_kernel;  ///< else: [worker][kernel]
};

struct RunOptions {
  bool open_loop = false;  ///< requests arrive at the workers' rates, else each after the last one
  std::uint32_t requests = 60;  ///< of the worker with the fewest
  std::uint32_t warm_up = 2;    ///< closed loop: of each worker, and nothing counts before
  std::uint64_t seed = 1;       ///< of arrivals, of first requests in a closed loop, and of stalls
  /// An experiment. A worker with so many requests takes the row of those that have as many, too,
  /// as if the others were idle; 0: never, all see the same set.
  std::uint32_t backlog = 0;
  double request_overhead_us = 25.5;  ///< host time from a completion to a request that waits
};

struct WorkerOutcome {
  /// Open loop: arrival to completion; closed: from one completion to the next. In order.
  std::vector<double> latency_us;
  double requests_per_s = 0;
  double counted = 0;           ///< requests in RunOutcome::seconds; closed loop: also parts of one
  std::uint64_t arrived = 0;    ///< requests, all
  std::uint64_t completed = 0;  ///< of them
  std::uint64_t kernels = 0;    ///< that have run
  SendCounts counts;
  /// From each time that the worker became active until no group of others, sent before and not
  /// of the plan's row since, was left on its home leaf.
  std::vector<double> intrusion_us;
  double intrusion_share = 0;  ///< of the time in which the worker was active
};

struct RunOutcome {
  std::vector<WorkerOutcome> workers;
  double seconds = 0;          ///< virtual time that counts
  double joules = 0;           ///< in that time
  std::uint64_t disorder = 0;  ///< SharedDevice::disorder
};

/// In an open loop requests arrive until every worker has `requests`, and all of them run; so all
/// policies serve the same ones. In a closed loop workers begin at random within a request's time
/// alone. `trace` may be null. Errc::invalid_argument when a mask or a number of kernels does not
/// fit, or a rate is missing.
Result<RunOutcome> run_colocated(const model::GpuDescription& gpu,
                                 std::span<const planner::Worker> workers, const Sharing& sharing,
                                 const RunOptions& options, Trace* trace = nullptr);

/// The same requests, but each worker has a GPU of its own, without masks: energy is that of all
/// GPUs, over the time of the one that takes longest.
Result<RunOutcome> run_apart(const model::GpuDescription& gpu,
                             std::span<const planner::Worker> workers, const Sharing& sharing,
                             const RunOptions& options);

}  // namespace eclip::bench
