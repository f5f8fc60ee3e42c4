#include "daemon/model/queue_change.h"

#include <cmath>
#include <numbers>

namespace eclip::model {
namespace {

/// The standard normal distribution's 99th percentile.
constexpr double normal_p99 = 2.3263478740408408;

/// In (0, 1), the same on every machine.
double uniform(std::mt19937_64& random) {
  return (static_cast<double>(random() >> 11U) + 0.5) * 0x1p-53;
}

}  // namespace

QueueChangeStalls::QueueChangeStalls(const GpuDescription& gpu, std::uint64_t seed)
    : log_median_(std::log(gpu.timing.queue_change_p50_us)),
      deviation_((std::log(gpu.timing.queue_change_p99_us) - log_median_) / normal_p99),
      none_(gpu.timing.queue_change_p50_us <= 0),
      random_(seed) {}

DeviceTime QueueChangeStalls::next() {
  if (none_) return DeviceTime{};
  const double radius = std::sqrt(-2 * std::log(uniform(random_)));
  const double normal = radius * std::cos(2 * std::numbers::pi * uniform(random_));
  return DeviceTime(std::llround(std::exp(log_median_ + deviation_ * normal) * 1000));
}

}  // namespace eclip::model
