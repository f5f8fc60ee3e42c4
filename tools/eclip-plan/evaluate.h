// The planner's cost models against measured co-location.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "daemon/planner/cost_model.h"
#include "ipc/result.h"
#include "tools/eclip-bench/validation.h"

namespace eclip::plan {

/// How a plan's cost is found: by one of the formulas (planner::CostForm) or in the device model.
enum class Judge : std::uint8_t { waiting, proportional, simulation };
std::string name_of(Judge judge);

/// What the judge says of every worker of every measured mix and scenario. Errors as
/// bench::validate.
Result<bench::Validation> evaluate(const model::GpuDescription& gpu,
                                   const std::filesystem::path& data, Judge judge);

/// The measured scenario that a judge ranks first in a mix, by the geometric mean of the workers'
/// mean latencies.
struct Choice {
  std::string mix;
  bool fitted = false;  ///< the timing parameters were fitted on this mix
  std::string measured_best;
  std::string chosen;
  double regret = 0;  ///< measured mean of the chosen one relative to the best, minus 1
};
std::vector<Choice> choices(const bench::Validation& validation);

struct Evaluation {
  Judge judge = Judge::waiting;
  bench::Validation validation;
};

/// Tables for people: errors and ranks of each judge, choices of each mix, and with `detail` every
/// worker of every scenario.
std::string evaluation_report(const std::vector<Evaluation>& evaluations, bool detail);
std::string evaluation_json(const std::vector<Evaluation>& evaluations);

}  // namespace eclip::plan
