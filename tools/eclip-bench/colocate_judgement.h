// Whether ECLIP keeps what is asked of it beside others' policies.
#pragma once

#include <string>
#include <vector>

#include "tools/eclip-bench/colocate.h"

namespace eclip::bench {

/// Geometric means over mixes, relative to unmasked.
struct PolicySummary {
  std::string gpu;
  LoadShare load = closed_loop;
  Policy policy = Policy::unmasked;
  std::size_t mixes = 0;
  double throughput = 0;
  double p95 = 0;
  double requests_per_joule = 0;
  double worst_p95 = 0;       ///< of all workers of all mixes
  double worst_p95_mean = 0;  ///< geometric mean over mixes of the worst worker's
  double fairness = 0;        ///< mean of Jain's indices, not relative
};
/// Where unmasked was run, too.
std::vector<PolicySummary> summaries(const Colocation& colocation);

/// ECLIP in one cell, relative to the better of unmasked and model-wise.
struct Rivalry {
  const Cell* cell = nullptr;
  double throughput = 0;
  double p95 = 0;
  double worst_p95 = 0;  ///< of the worker that is worst off beside unmasked
  std::string worst_worker;
  Policy rival = Policy::unmasked;  ///< the better by p95
  double intrusion_share = 0;       ///< the largest of a worker
  [[nodiscard]] bool keeps_throughput() const;
  [[nodiscard]] bool keeps_p95() const;
};
std::vector<Rivalry> rivalries(const Colocation& colocation);

struct ColocateTarget {
  std::string gpu;
  std::string name;
  double limit = 0;
  bool at_least = false;
  double value = 0;
  [[nodiscard]] bool met() const { return at_least ? value >= limit : value <= limit; }
};
std::vector<ColocateTarget> targets_of(const Colocation& colocation);

}  // namespace eclip::bench
