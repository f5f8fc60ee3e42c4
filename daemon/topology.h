// The GPU as libhsakmt's topology describes it, and CU masks that follow its shader engines.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ipc/cu_mask.h"
#include "ipc/result.h"
#include "ipc/strong_id.h"
#include "ipc/unique_fd.h"

namespace eclip::daemon {

/// What eclipd needs to know of a GPU.
struct GpuTopology {
  GpuId node;                   ///< topology node
  std::uint32_t driver_id = 0;  ///< gpu_id, as ioctls name it; 0: not reported
  std::string name;             ///< the driver's name for it
  std::uint32_t cu_count = 0;
  std::uint32_t shader_engines = 0;
  std::uint32_t hardware_queue_slots = 0;  ///< 0: not reported
  std::uint32_t vmids = 0;                 ///< processes that it holds at a time; 0: not known
  std::uint32_t local_memory_per_workgroup_bytes = 0;
  std::uint32_t render_minor = 0;  ///< of /dev/dri/renderD*
};

/// Reads the topology of an opened KFD: the GPU at `node`, or the first one. Errc::not_found names
/// the nodes that there are, Errc::device_failed.
Result<GpuTopology> read_topology(std::optional<std::uint32_t> node);

/// Takes the GPU for this process: the budget of streams is for each GPU, so one eclipd serves it.
/// Errc::already_in_use.
Result<UniqueFd> lock_gpu(const GpuTopology& gpu);

/// planner::tree_masks of the GPU, in the KFD's bit order on gfx9: CU index i is on shader engine
/// i mod shader_engines. Errc::unsupported when the engines cannot be quartered.
Result<std::vector<CuMask>> binary_tree_masks(const GpuTopology& gpu);

}  // namespace eclip::daemon
