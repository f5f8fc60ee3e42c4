// How much of its compute units a kernel holds while it runs.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "daemon/model/gpu_description.h"
#include "daemon/model/kernel.h"

namespace eclip::model {

/// A kernel on a mask, in two phases: all full waves of workgroups, then the last one. `slots` and
/// `last_slots` are the share of each CU's room for workgroups that it holds when it can.
struct Occupancy {
  double slots = 1;
  double last_slots = 1;
  double last_work = 1;  ///< share of the kernel's work done in the last wave, in (0, 1]
  double load = 1;       ///< share of each CU's throughput that it uses at full speed
  double memory = 0;     ///< share of the memory bandwidth that it uses at full speed
  double full_us = 1;    ///< its time on the whole mask, alone
  double rounding = 1;   ///< full_us relative to the smooth t(c)
};

/// Workgroups of the given shape that fit on one CU at a time, at least 1.
std::uint32_t workgroups_per_cu(const LaunchShape& shape, const GpuDescription::Geometry& geometry);

/// The equations are in docs/device-model.md. `mask_cus` > 0.
Occupancy occupancy_of(const Kernel& kernel, std::uint32_t mask_cus, const GpuDescription& gpu);

/// Remembers occupancies: requests repeat their kernels. Keeps at most as many kernels alive as it
/// has entries.
class OccupancyCache {
 public:
  explicit OccupancyCache(const GpuDescription& gpu)
      : gpu_(gpu), entries_(std::make_unique<std::array<Entry, size>>()) {}
  const Occupancy& find(const std::shared_ptr<const Kernel>& kernel, std::uint32_t mask_cus);

 private:
  static constexpr std::size_t size = 4096;
  struct Entry {
    std::shared_ptr<const Kernel> kernel;
    std::uint32_t mask_cus = 0;
    Occupancy occupancy;
  };
  const GpuDescription& gpu_;
  std::unique_ptr<std::array<Entry, size>> entries_;
};

}  // namespace eclip::model
