// What `eclip-bench validate` prints.
#pragma once

#include <string>

#include "tools/eclip-bench/validation.h"

namespace eclip::bench {

/// Tables for people: errors for each scenario, rank correlation for each mix, and for the fitted
/// and the other half of the mixes.
std::string text_report(const Validation& validation, const model::GpuDescription& gpu);
/// Every point and the same summaries, for programs.
std::string json_report(const Validation& validation, const model::GpuDescription& gpu);

}  // namespace eclip::bench
