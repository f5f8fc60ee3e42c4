// Kernels and GPUs of round numbers for the planner's tests.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

#include "daemon/planner/cost_tables.h"

namespace eclip::planner {

/// 16 CUs of 1024 threads, gaps of 1 us, switches of 2 us, no memory contention.
inline model::GpuDescription small_gpu() {
  model::GpuDescription gpu;
  gpu.name = "test";
  gpu.geometry = {.shader_engines = 4,
                  .cus_per_shader_engine = 4,
                  .threads_per_cu = 1024,
                  .workgroups_per_cu = 16,
                  .registers_per_cu = 65536,
                  .local_memory_per_cu = 65536};
  gpu.timing = {.launch_gap_us = 1,
                .barrier_us = 2,
                .memory_contention = 0,
                .full_speed_slack = 0.05,
                .load_exponent = 1,
                .overlap_gain = 0,
                .full_slots_share = 1,
                .connections = 8,
                .connection_slice_us = 1e6};
  gpu.power = {.idle_watts = 50, .cu_active_watts = 10, .memory_watts = 0};
  return gpu;
}

/// A kernel that holds every slot of `cus` CUs for one wave and is as fast on more.
inline std::shared_ptr<const model::Kernel> filling_kernel(std::uint32_t cus, double time_us) {
  const model::LaunchShape shape{.workgroups = cus, .workgroup_size = 1024};
  const std::vector<model::TimePoint> points{{cus, time_us}};
  return std::make_shared<const model::Kernel>(*model::Kernel::create(shape, points));
}

inline Worker worker_of(std::string name, std::size_t count,
                        const std::shared_ptr<const model::Kernel>& kernel) {
  return {.name = std::move(name),
          .kernels = std::vector<std::shared_ptr<const model::Kernel>>(count, kernel)};
}

/// Any mixture of small and large kernels; the same for the same seed.
inline Worker random_worker(std::mt19937& random, std::size_t kernels) {
  Worker worker{.name = "random", .kernels = {}};
  std::uniform_real_distribution<double> log_us(0, 5);
  std::uniform_int_distribution<std::uint32_t> workgroups(1, 64);
  std::uniform_real_distribution<double> serial(0, 1);
  for (std::size_t i = 0; i < kernels; ++i) {
    const double work_us = std::exp(log_us(random));
    const double part = serial(random);
    std::vector<model::TimePoint> points;
    for (const std::uint32_t cus : {1U, 2U, 4U, 8U, 16U})
      points.push_back({cus, work_us * (part + (1 - part) / cus)});
    const model::LaunchShape shape{.workgroups = workgroups(random), .workgroup_size = 512};
    worker.kernels.push_back(
        std::make_shared<const model::Kernel>(*model::Kernel::create(shape, points)));
  }
  return worker;
}

/// CUs first .. first + count - 1 of 16.
inline CuMask cus(std::uint32_t first, std::uint32_t count) {
  CuMask mask(16);
  for (std::uint32_t cu = first; cu < first + count; ++cu) mask.insert(cu);
  return mask;
}

}  // namespace eclip::planner
