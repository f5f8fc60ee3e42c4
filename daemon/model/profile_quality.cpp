#include "daemon/model/profile_quality.h"

#include <algorithm>
#include <optional>

namespace eclip::model {
namespace {

std::optional<Rise> largest_rise(const ProfileDocument& document, std::size_t kernel) {
  const std::vector<double>& times = document.kernels[kernel].time_us;
  std::optional<Rise> largest;
  std::optional<std::size_t> fastest;
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (times[i] <= 0) continue;
    if (!fastest || times[i] < times[*fastest]) {
      fastest = i;
      continue;
    }
    const Rise rise{kernel, document.cu_counts[*fastest], document.cu_counts[i], times[*fastest],
                    times[i]};
    if (!largest || rise.share() > largest->share()) largest = rise;
  }
  return largest;
}

}  // namespace

std::vector<Rise> rises(const ProfileDocument& document, double tolerance) {
  std::vector<Rise> found;
  for (std::size_t k = 0; k < document.kernels.size(); ++k) {
    const auto rise = largest_rise(document, k);
    if (rise && rise->share() > tolerance) found.push_back(*rise);
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const Rise& a, const Rise& b) { return a.share() > b.share(); });
  return found;
}

std::vector<std::string> gaps(const ProfileDocument& document) {
  std::vector<std::string> found;
  for (std::size_t k = 0; k < document.kernels.size(); ++k)
    for (std::size_t i = 0; i < document.cu_counts.size(); ++i)
      if (document.kernels[k].time_us[i] <= 0)
        found.push_back("kernel " + std::to_string(k) + " (" + document.kernels[k].name +
                        ") has no time at " + std::to_string(document.cu_counts[i]) + " CUs");
  for (const std::uint32_t cus : document.cu_counts)
    if (!document.request_us_at_cu_counts.contains(cus))
      found.push_back("no time of a whole request at " + std::to_string(cus) + " CUs");
  if (document.cu_counts.back() < document.device_compute_units)
    found.push_back("the largest count is " + std::to_string(document.cu_counts.back()) +
                    " of the device's " + std::to_string(document.device_compute_units) + " CUs");
  if (document.cu_counts.size() == 1)
    found.emplace_back("one count of CUs only: nothing says what fewer would cost");
  return found;
}

}  // namespace eclip::model
