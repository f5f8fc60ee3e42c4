// Workers in a closed loop on the device model, in virtual time: each sends its next request when
// the last one is complete.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "daemon/model/device.h"
#include "daemon/model/profile.h"

namespace eclip::planner {

/// A worker: its kernels, its streams, and the stream of each kernel.
struct LoopWorker {
  std::vector<std::shared_ptr<const model::Kernel>> kernels;
  std::vector<CuMask> streams;
  std::vector<std::uint32_t> stream_of_kernel;  ///< index in `streams`, for each kernel
};

struct LoopOptions {
  std::uint32_t requests = 8;         ///< of the slowest worker, after `warm_up`
  std::uint32_t warm_up = 2;          ///< requests of each worker that are not counted
  double request_overhead_us = 25.5;  ///< host time from a completion to the next request (fitted)
  bool serial = false;                ///< one request at a time, over all workers in turn
  std::function<bool()> stop{};       ///< asked now and then; true ends the simulation
};

struct LoopOutcome {
  std::vector<double> mean_us;                  ///< of each worker, from one completion to the next
  std::vector<std::vector<double>> request_us;  ///< of each worker, each of these times
  double watts = 0;                             ///< mean over the counted time
};

/// Shared kernels of a profile, ready for packets. A planner::Worker needs its constraints, too
/// (profiled_worker).
std::vector<std::shared_ptr<const model::Kernel>> kernels_of(const model::Profile& profile);

/// Switches between streams are made as real workers make them: the last kernel on the old stream
/// has a completion signal, and a barrier-AND packet that waits for it goes first on the new one.
/// Errc::invalid_argument when a mask does not fit the GPU; Errc::timed_out when it was stopped.
Result<LoopOutcome> run_closed_loop(const model::GpuDescription& gpu,
                                    const std::vector<LoopWorker>& workers,
                                    const LoopOptions& options);

}  // namespace eclip::planner
