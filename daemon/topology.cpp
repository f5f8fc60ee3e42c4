#include "daemon/topology.h"

#include <fcntl.h>
#include <hsakmt.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "daemon/planner/pool.h"

namespace eclip::daemon {
namespace {

constexpr const char* topology_nodes = "/sys/devices/virtual/kfd/kfd/topology/nodes/";

/// The name in sysfs; libhsakmt replaces it by one from its own table.
std::string node_name(std::uint32_t node) {
  std::ifstream file(topology_nodes + std::to_string(node) + "/name");
  std::string name;
  std::getline(file, name);
  return name.empty() ? "unnamed GPU" : name;
}

std::uint32_t driver_id(std::uint32_t node) {
  std::ifstream file(topology_nodes + std::to_string(node) + "/gpu_id");
  std::uint32_t id = 0;
  return file >> id ? id : 0;
}

/// Processes that the hardware holds at a time: the topology does not tell. The driver leaves the
/// KFD VMIDs 8 to 15, and from gfx908 on those from 3 (first_kfd_vmid of amdgpu's gmc_v9_0.c);
/// gfx10 and later have 8 again.
std::uint32_t vmids_of(const HSA_ENGINE_ID& engine) {
  const bool is_compute_part =
      engine.ui32.Major == 9 &&
      (engine.ui32.Minor >= 4 || engine.ui32.Stepping == 8 || engine.ui32.Stepping == 10);
  return is_compute_part ? 13 : 8;
}

}  // namespace

Result<GpuTopology> read_topology(std::optional<std::uint32_t> node) {
  HsaSystemProperties system{};
  if (const auto status = hsaKmtAcquireSystemProperties(&system); status != HSAKMT_STATUS_SUCCESS)
    return fail(Errc::device_failed,
                "read the KFD topology: libhsakmt status " + std::to_string(status));
  std::string gpu_nodes;
  for (std::uint32_t i = 0; i < system.NumNodes; ++i) {
    HsaNodeProperties properties{};
    if (hsaKmtGetNodeProperties(i, &properties) != HSAKMT_STATUS_SUCCESS) continue;
    if (properties.NumFComputeCores == 0) continue;
    gpu_nodes += (gpu_nodes.empty() ? "" : ", ") + std::to_string(i);
    if (node && *node != i) continue;
    if (properties.NumSIMDPerCU == 0 || properties.DrmRenderMinor < 0)
      return fail(Errc::device_failed, "the topology of node " + std::to_string(i) +
                                           " states no SIMDs per CU or no render node");
    const std::uint32_t arrays_per_engine = std::max(properties.NumArrays, 1U);
    return GpuTopology{
        .node = GpuId{i},
        .driver_id = driver_id(i),
        .name = node_name(i),
        .cu_count = properties.NumFComputeCores / properties.NumSIMDPerCU,
        .shader_engines = std::max(properties.NumShaderBanks / arrays_per_engine, 1U),
        .hardware_queue_slots = properties.NumCpQueues,
        .vmids = vmids_of(properties.EngineId),
        .local_memory_per_workgroup_bytes = properties.LDSSizeInKB * 1024,
        .render_minor = static_cast<std::uint32_t>(properties.DrmRenderMinor),
    };
  }
  if (gpu_nodes.empty())
    return fail(Errc::not_found, "the KFD topology has no GPU: is the amdgpu driver bound to one?");
  return fail(Errc::not_found, "topology node " + std::to_string(node.value_or(0)) +
                                   " is no GPU; set gpu.node to one of: " + gpu_nodes);
}

Result<UniqueFd> lock_gpu(const GpuTopology& gpu) {
  const std::string file = topology_nodes + std::to_string(gpu.node.value) + "/properties";
  UniqueFd lock(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!lock) return fail_errno(errno, "open " + file);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
    return fail(Errc::already_in_use, "another eclipd serves the GPU at node " +
                                          std::to_string(gpu.node.value) +
                                          "; stop it, or set gpu.node to another GPU");
  return lock;
}

Result<std::vector<CuMask>> binary_tree_masks(const GpuTopology& gpu) {
  std::vector<CuMask> masks = planner::tree_masks(gpu.cu_count, gpu.shader_engines);
  if (masks.empty())
    return fail(Errc::unsupported, "pool.layout = \"tree\" needs a multiple of 4 shader engines; " +
                                       gpu.name + " has " + std::to_string(gpu.shader_engines) +
                                       ": list the masks in pool.streams instead");
  return masks;
}

}  // namespace eclip::daemon
