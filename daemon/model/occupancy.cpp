#include "daemon/model/occupancy.h"

#include <algorithm>
#include <cmath>

namespace eclip::model {
namespace {

/// Less than this of a CU cannot be held; keeps effective CUs (slots got / slots) well defined.
constexpr double smallest_share = 1e-3;

/// 0 when twice the CUs give twice the speed, 1 when they give none, and less for a kernel that
/// has too few workgroups to use them: what is then missing is parallelism, not bandwidth.
double memory_share(const Kernel& kernel, double mask_cus, double waves) {
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
  const double room = workgroups_per_cu(kernel.shape(), gpu.geometry) * cus;
  const double waves = kernel.shape().workgroups / room;
  // A CU is full by registers and threads in use long before its last slot is taken.
  const double held = waves / gpu.timing.full_slots_share;

  Occupancy occupancy;
  occupancy.slots = std::clamp(held, smallest_share, 1.0);
  occupancy.last_slots = occupancy.slots;
  if (waves > 1) {
    const double full_waves = std::ceil(waves) - 1;
    occupancy.last_slots = std::max(waves - full_waves, smallest_share);
    occupancy.last_work = 1 / (full_waves + 1);
  }
  const double needed = kernel.cus_for_slowdown(cus, 1 + gpu.timing.full_speed_slack) / cus;
  occupancy.load = std::pow(std::max(needed, smallest_share), gpu.timing.load_exponent);
  occupancy.memory = memory_share(kernel, cus, waves);
  occupancy.full_us = kernel.time_on_mask_us(mask_cus);
  occupancy.rounding = occupancy.full_us / kernel.time_us(cus);
  return occupancy;
}

const Occupancy& OccupancyCache::find(const std::shared_ptr<const Kernel>& kernel,
                                      std::uint32_t mask_cus) {
  const auto address = reinterpret_cast<std::uintptr_t>(kernel.get());
  Entry& entry = (*entries_)[(address / 16 * 31 + mask_cus * 1009) % size];
  if (entry.kernel != kernel || entry.mask_cus != mask_cus)
    entry = {kernel, mask_cus, occupancy_of(*kernel, mask_cus, gpu_)};
  return entry.occupancy;
}

}  // namespace eclip::model
