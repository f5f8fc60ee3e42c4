// The best plan of a small case, by a mixed-integer program that COIN-OR CBC solves.
#pragma once

#include <span>
#include <vector>

#include "daemon/planner/search.h"

namespace eclip::planner {

struct ExactPlan {
  bool proven = false;   ///< the solver says that it is the optimum
  GroupStreams streams;  ///< of all workers
  double value = 0;      ///< mean slowdown in the additive form, as the program has it
};

/// All workers active, on any streams of the tables (Resolution::kernels). `solo_us` as
/// RowSearch::solo_us; `cost` has the form additive.
ExactPlan exact_plan(const model::GpuDescription& gpu, const CostTables& tables,
                     const std::vector<Groups>& groups, std::span<const double> solo_us,
                     const CostOptions& cost);

}  // namespace eclip::planner
