// How good a validation is: errors of its parts, and whether they meet the targets.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tools/eclip-bench/validation.h"

namespace eclip::bench {

using Filter = std::function<bool(const ScenarioOutcome&)>;

/// Absolute relative errors in the outcomes that pass a filter.
struct Summary {
  std::size_t points = 0;  ///< workers
  double median = 0;       ///< of a worker's mean latency
  double p90 = 0;
  double p95_median = 0;         ///< of a worker's 95th percentile
  double throughput_median = 0;  ///< of a scenario's throughput
  double watts_median = 0;       ///< of a scenario's mean power
};
Summary summarise(const Validation& validation, const Filter& filter);

/// Rank correlation of a mix's scenarios by mean latency.
double rank_of_scenarios(const Validation& validation, const std::string& mix);
/// Its median over the mixes of a half.
double median_rank(const Validation& validation, Half half);

/// Names of mixes (true: fitted on), in order.
std::map<std::string, bool> mixes_of(const Validation& validation);
bool is_in(const ScenarioOutcome& outcome, Half half);

/// One line of what the model is held to.
struct Target {
  std::string name;
  double limit = 0;
  bool at_least = false;  ///< the value has to be at least, not at most, the limit
  double all = 0;
  double fitted = 0;
  double held_out = 0;
  [[nodiscard]] bool met(double value) const { return at_least ? value >= limit : value <= limit; }
};
std::vector<Target> judge(const Validation& validation);

}  // namespace eclip::bench
