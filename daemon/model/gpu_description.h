// A GPU as a data file (data/gpus/*.toml) describes it: geometry, limits, timing and power.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "ipc/cu_mask.h"
#include "ipc/result.h"

namespace eclip::model {

/// Everything that the device model and kfdsim need to know of a GPU. Each field is a key of the
/// data file, in the table of the same name, where its source is stated.
struct GpuDescription {
  std::string name;            ///< short name, the file's stem: "mi50"
  std::string marketing_name;  ///< for people

  struct Geometry {
    std::uint32_t shader_engines = 0;
    std::uint32_t cus_per_shader_engine = 0;
    std::uint32_t xccs = 1;  ///< dies with packet processors of their own; CU i is on i mod xccs
    std::uint32_t threads_per_cu = 0;       ///< resident work items
    std::uint32_t workgroups_per_cu = 0;    ///< resident workgroups
    std::uint32_t registers_per_cu = 0;     ///< 32-bit registers
    std::uint32_t local_memory_per_cu = 0;  ///< bytes
    [[nodiscard]] std::uint32_t cu_count() const { return shader_engines * cus_per_shader_engine; }
  } geometry;

  struct Timing {
    double launch_gap_us = 0;      ///< between dependent kernels of one queue
    double barrier_us = 0;         ///< processing of a barrier packet once its dependencies hold
    double memory_contention = 0;  ///< slowdown - 1 when others use the whole memory bandwidth
    double full_speed_slack = 0;   ///< a kernel loads the CUs it needs for 1/(1+slack) of its speed
    double load_exponent = 1;     ///< of that share; below 1: a few loaded CUs delay a whole kernel
    double overlap_gain = 0;      ///< share of an overload that kernels on one CU hide from another
    double full_slots_share = 1;  ///< share of a CU's slots at which it takes no more workgroups
    std::uint32_t connections = 0;   ///< hardware connections; more queues with packets share them
    double connection_slice_us = 0;  ///< a wait holds back a shared connection for so long
    double queue_change_p50_us = 0;  ///< stall of all queues by a change of queues: its median
    double queue_change_p99_us = 0;  ///< and its 99th percentile
  } timing;

  struct Power {
    double idle_watts = 0;
    double cu_active_watts = 0;  ///< for each busy CU
    double memory_watts = 0;     ///< at full memory activity
  } power;

  /// How fast bytes move; used by kfdsim only, for copies. GB are 10^9 bytes.
  struct Memory {
    double vram_gb_per_s = 0;       ///< bytes read and written in the GPU's memory
    double host_link_gb_per_s = 0;  ///< between host and GPU by a kernel, one direction
    double sdma_gb_per_s = 0;       ///< by one SDMA engine
  } memory;

  /// What the KFD topology reports of it; used by kfdsim, and `num_cp_queues` by the planner.
  struct Topology {
    std::uint32_t gfx_target_version = 0;  ///< 90006 is gfx906
    std::uint32_t device_id = 0;           ///< PCI device id
    std::uint32_t revision_id = 0;
    std::uint64_t vram_bytes = 0;
    std::uint32_t max_clock_mhz = 0;
    std::uint32_t gpu_counter_khz = 0;  ///< frequency of the GPU's clock counter
    std::uint32_t num_cp_queues = 0;    ///< hardware compute queue slots
  } topology;

  /// Shader engine of a CU index, as the KFD maps mask bits on gfx9: index mod shader_engines.
  [[nodiscard]] std::uint32_t shader_engine_of(std::uint32_t cu) const {
    return cu % geometry.shader_engines;
  }
};

/// Reads and checks a description; errors name the file, the key and what is expected. Unknown keys
/// are errors.
Result<GpuDescription> load_gpu_description(const std::filesystem::path& file);

}  // namespace eclip::model
