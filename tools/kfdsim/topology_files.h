// What the KFD says of itself in /sys: the static files of a system with one CPU and one GPU node.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/model/gpu_description.h"

namespace eclip::kfdsim {

/// The machine around the GPU.
struct HostProperties {
  std::uint32_t cpu_count = 1;
  std::uint64_t memory_bytes = 0;
};
HostProperties host_properties();

struct StaticSysFile {
  std::string path;  ///< relative to the directory that the files belong into
  std::string content;
};

/// Below /sys/devices/virtual/kfd/kfd.
std::vector<StaticSysFile> kfd_files(const model::GpuDescription& gpu, const HostProperties& host);
/// The GPU's place on the PCI bus, as its topology node's location_id says.
inline constexpr const char* pci_address = "0000:03:00.0";

/// Below the GPU's PCI device.
std::vector<StaticSysFile> pci_device_files(const model::GpuDescription& gpu);
/// Below a CPU's cache/index0: its first-level data cache, its own.
std::vector<StaticSysFile> cpu_cache_files(std::uint32_t cpu);
/// A table for libdrm in which the GPU's name ends in "(simulated)"; tools that print a GPU's name
/// have it from there.
std::string amdgpu_ids(const model::GpuDescription& gpu);

}  // namespace eclip::kfdsim
