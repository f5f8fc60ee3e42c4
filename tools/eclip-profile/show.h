// What eclip-profile prints of profiles.
#pragma once

#include <string>

#include "daemon/model/profile_document.h"
#include "daemon/model/request_pattern.h"

namespace eclip::profile {

/// A table of kernels: times at each count of CUs, speedup from the fewest to the most; totals.
std::string table_of(const model::ProfileDocument& profile);

/// How many requests were found in each trace, and what is outside.
std::string matching_text(const model::MatchReport& report);

struct Verification {
  std::string text;
  bool good = true;  ///< no rise above the tolerance, no gap
};
Verification verify(const model::ProfileDocument& profile, double tolerance);

/// The curves t(c) on logarithmic axes: the whole request, the kernels that take most time, and all
/// others in the background.
std::string svg_of(const model::ProfileDocument& profile);

}  // namespace eclip::profile
