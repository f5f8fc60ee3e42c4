// What `eclip-bench validate` prints.
#pragma once

#include <string>

#include "tools/eclip-bench/validation.h"

namespace eclip::bench {

/// Tables for people: the targets, met or not, for all mixes and for each half; errors for each
/// scenario; rank correlation for each mix.
std::string text_report(const Validation& validation, const model::GpuDescription& gpu);
/// Every worker of every mix and scenario, predicted and measured.
std::string detail_report(const Validation& validation);
/// Every point and the same summaries, for programs.
std::string json_report(const Validation& validation, const model::GpuDescription& gpu);

}  // namespace eclip::bench
