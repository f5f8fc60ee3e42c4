// What a profile that can be read may still lack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "daemon/model/profile_document.h"

namespace eclip::model {

/// A kernel that takes longer on more CUs than on fewer.
struct Rise {
  std::size_t kernel;
  std::uint32_t from_cus;  ///< where it was fastest before
  std::uint32_t to_cus;
  double from_us;
  double to_us;
  /// 0.1: ten percent longer.
  [[nodiscard]] double share() const { return to_us / from_us - 1; }
};

/// The largest rise of each kernel that has one above `tolerance`, largest first.
std::vector<Rise> rises(const ProfileDocument& document, double tolerance);

/// In words, what was not measured: kernels' times, requests' times, the whole device.
std::vector<std::string> gaps(const ProfileDocument& document);

}  // namespace eclip::model
