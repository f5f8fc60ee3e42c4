// The analytic cost of a plan: what co-located requests take, by formula instead of simulation.
// Equations and how well they agree with measurements: docs/planner.md.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "daemon/planner/cost_tables.h"

namespace eclip::planner {

/// The stream of each kernel of each worker: an index into the streams of the CostTables. A worker
/// without entries is not active.
struct Assignment {
  std::vector<std::vector<std::uint32_t>> stream_of_kernel;  ///< [worker][kernel]
};

enum class CostForm : std::uint8_t {
  waiting,       ///< beta (1 + memory) (1 + overload) + waiting behind co-runners' kernels
  proportional,  ///< the paper's: beta (1 + alpha), alpha of memory and summed occupancy
};

struct CostOptions {
  CostForm form = CostForm::waiting;
  double request_overhead_us = 25.5;  ///< host time from a completion to the next request
  std::uint32_t queues = 0;    ///< hardware queues that the plan needs; 0: one for each stream used
  bool one_at_a_time = false;  ///< a request at a time over all workers in turn
};

struct Prediction {
  std::vector<double> request_us;  ///< of each worker from one completion to the next; 0: inactive
  std::vector<double> alone_us;    ///< the same with the same streams and nobody else
  double watts = 0;                ///< mean power
  std::vector<double> joules;      ///< dynamic energy of one request of each worker
};

/// Predicts workers in a closed loop. Pure; O(rounds x kernels x streams used by co-runners).
Prediction predict(const model::GpuDescription& gpu, const CostTables& tables,
                   const Assignment& assignment, const CostOptions& options);

}  // namespace eclip::planner
