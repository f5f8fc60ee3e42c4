// Several profiles of one model as one.
#pragma once

#include <span>
#include <string>

#include "daemon/model/profile_document.h"

namespace eclip::model {

struct NamedProfile {
  std::string source;  ///< what errors call it
  ProfileDocument document;
};

/// All counts of CUs of all profiles. Where several have one, or one has no time, times and spreads
/// are the means of those that are there, weighted by their requests (1 where a file does not say).
/// Errc::invalid_argument when they are not of the same model, batch, precision and device, or
/// their kernels differ in name or launch shape: names both files, the place and both values.
Result<ProfileDocument> merge_profiles(std::span<const NamedProfile> profiles);

}  // namespace eclip::model
