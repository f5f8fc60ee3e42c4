// How much of its compute units a kernel holds while it runs.
#pragma once

#include <cstdint>

#include "daemon/model/gpu_description.h"
#include "daemon/model/kernel.h"

namespace eclip::model {

/// A kernel on a mask, in two phases: all waves of workgroups but the last, then the last one.
/// `demand` and `last_demand` are the share of each CU of the mask that it takes when it can.
struct Occupancy {
  double demand = 1;
  double last_demand = 1;
  double last_work = 1;  ///< share of the kernel's work done in the last wave, in (0, 1]
  double memory = 0;     ///< memory activity at full speed, 0 .. 1, inferred from t(c)
};

/// Workgroups of the given shape that fit on one CU at a time, at least 1.
std::uint32_t workgroups_per_cu(const LaunchShape& shape, const GpuDescription::Geometry& geometry);

/// The equations are in docs/device-model.md. `mask_cus` > 0.
Occupancy occupancy_of(const Kernel& kernel, std::uint32_t mask_cus, const GpuDescription& gpu);

}  // namespace eclip::model
