#include "daemon/model/occupancy.h"

#include <algorithm>
#include <cmath>

namespace eclip::model {
namespace {

/// Less than this of a CU cannot be held; keeps effective CUs (share got / demand) well defined.
constexpr double smallest_demand = 1e-3;

/// 0 when twice the CUs give twice the speed, 1 when they give none, and less for a kernel that
/// has too few workgroups to use them: what is then missing is parallelism, not bandwidth.
double memory_activity(const Kernel& kernel, double mask_cus, double waves) {
  const double speedup = std::log2(kernel.time_us(mask_cus / 2) / kernel.time_us(mask_cus));
  return std::min(1.0, waves) * std::clamp(1 - speedup, 0.0, 1.0);
}

}  // namespace

std::uint32_t workgroups_per_cu(const LaunchShape& shape,
                                const GpuDescription::Geometry& geometry) {
  const std::uint64_t size = std::max(shape.workgroup_size, 1U);
  std::uint64_t fit = std::min<std::uint64_t>(geometry.workgroups_per_cu,  //
                                              geometry.threads_per_cu / size);
  if (shape.registers_per_thread > 0)
    fit = std::min(fit, geometry.registers_per_cu / (shape.registers_per_thread * size));
  if (shape.local_memory_bytes > 0)
    fit = std::min<std::uint64_t>(fit, geometry.local_memory_per_cu / shape.local_memory_bytes);
  // A profile of another GPU may hold workgroups larger than a CU of this one.
  return static_cast<std::uint32_t>(std::max<std::uint64_t>(fit, 1));
}

Occupancy occupancy_of(const Kernel& kernel, std::uint32_t mask_cus, const GpuDescription& gpu) {
  const double cus = mask_cus;
  const double slots = workgroups_per_cu(kernel.shape(), gpu.geometry) * cus;
  const double waves = kernel.shape().workgroups / slots;
  const double needed = kernel.cus_for_slowdown(cus, 1 + gpu.timing.full_speed_slack) / cus;

  Occupancy occupancy;
  occupancy.demand = std::clamp(std::max(2 * waves, needed), smallest_demand, 1.0);
  occupancy.last_demand = occupancy.demand;
  if (waves > 1) {
    occupancy.last_demand *= gpu.timing.last_wave_share;
    occupancy.last_work = 1 / waves;
  }
  occupancy.memory = memory_activity(kernel, cus, waves);
  return occupancy;
}

}  // namespace eclip::model
