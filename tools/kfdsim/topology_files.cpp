#include "tools/kfdsim/topology_files.h"

#include <fmt/format.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <string_view>
#include <utility>

#include "tools/kfdsim/gpu.h"

namespace eclip::kfdsim {
namespace {

using Properties = std::vector<std::pair<std::string_view, std::uint64_t>>;

constexpr std::uint32_t simds_per_cu = 4;
constexpr std::uint32_t vendor_amd = 0x1002;
constexpr std::uint64_t render_minor = 128;
constexpr std::uint64_t heap_system = 0;
constexpr std::uint64_t heap_frame_buffer_public = 1;
constexpr std::uint64_t link_pcie = 2;

// Capability bits of the KFD's topology: 2 is the doorbell type of gfx9 (64-bit packet indices);
// watch points and their number; SRAM ECC; ASIC revision bit. Debug properties of gfx906.
constexpr std::uint64_t capability = (2U << 12) | (1U << 7) | (2U << 8) | (1U << 22) | (1U << 26);
constexpr std::uint64_t debug_properties = 1495;

std::string text_of(const Properties& properties) {
  std::string text;
  for (const auto& [name, value] : properties) text += fmt::format("{} {}\n", name, value);
  return text;
}

/// The topology tells how many CUs a shader array has room for, harvested ones included. All gfx9
/// parts have room for a multiple of eight.
std::uint64_t room_for(std::uint32_t cus) {
  return (cus + 7) / 8 * 8;
}

Properties cpu_properties(const HostProperties& host) {
  return {{"cpu_cores_count", host.cpu_count},
          {"simd_count", 0},
          {"mem_banks_count", 1},
          {"caches_count", 0},
          {"io_links_count", 1},
          {"cpu_core_id_base", 0},
          {"simd_id_base", 0},
          {"max_waves_per_simd", 0}};
}

Properties gpu_properties(const model::GpuDescription& gpu) {
  const auto& geometry = gpu.geometry;
  const auto& topology = gpu.topology;
  return {{"cpu_cores_count", 0},
          {"simd_count", std::uint64_t{geometry.cu_count()} * simds_per_cu},
          {"mem_banks_count", 1},
          {"caches_count", 2},
          {"io_links_count", 1},
          {"cpu_core_id_base", 0},
          {"simd_id_base", 2147487744},
          {"max_waves_per_simd", 10},
          {"lds_size_in_kb", geometry.local_memory_per_cu / 1024},
          {"gds_size_in_kb", 0},
          {"num_gws", 64},
          {"wave_front_size", 64},
          {"array_count", geometry.shader_engines},
          {"simd_arrays_per_engine", 1},
          {"cu_per_simd_array", room_for(geometry.cus_per_shader_engine)},
          {"simd_per_cu", simds_per_cu},
          {"max_slots_scratch_cu", 32},
          {"gfx_target_version", topology.gfx_target_version},
          {"vendor_id", vendor_amd},
          {"device_id", topology.device_id},
          {"location_id", 768},
          {"domain", 0},
          {"drm_render_minor", render_minor},
          {"hive_id", 0},
          {"num_sdma_engines", 2},
          {"num_sdma_xgmi_engines", 0},
          {"num_sdma_queues_per_engine", Gpu::queues_per_copy_engine},
          {"num_cp_queues", topology.num_cp_queues},
          {"max_engine_clk_fcompute", topology.max_clock_mhz},
          {"local_mem_size", 0},
          {"fw_version", 440},
          {"capability", capability},
          {"debug_prop", debug_properties},
          {"sdma_fw_version", 145},
          {"unique_id", 0}};
}

/// Type 9: a data cache that belongs to SIMDs. ROCr asserts that a GPU has levels 1 and 2.
std::string cache(std::uint64_t level, std::uint64_t size_kb) {
  return text_of({{"processor_id_low", 0},
                  {"level", level},
                  {"size", size_kb},
                  {"cache_line_size", 64},
                  {"cache_lines_per_tag", 1},
                  {"association", 16},
                  {"latency", 0},
                  {"type", 9}}) +
         "sibling_map 1\n";
}

std::string link(std::uint64_t from, std::uint64_t to) {
  return text_of({{"type", link_pcie},
                  {"version_major", 0},
                  {"version_minor", 0},
                  {"node_from", from},
                  {"node_to", to},
                  {"weight", 20},
                  {"min_latency", 0},
                  {"max_latency", 0},
                  {"min_bandwidth", 0},
                  {"max_bandwidth", 0},
                  {"recommended_transfer_size", 0},
                  {"flags", 1}});
}

std::string memory(std::uint64_t heap, std::uint64_t bytes, std::uint64_t width,
                   std::uint64_t clock_mhz) {
  return text_of({{"heap_type", heap},
                  {"size_in_bytes", bytes},
                  {"flags", 0},
                  {"width", width},
                  {"mem_clk_max", clock_mhz}});
}

}  // namespace

HostProperties host_properties() {
  struct sysinfo info {};
  ::sysinfo(&info);
  return {static_cast<std::uint32_t>(::get_nprocs()), std::uint64_t{info.totalram} * info.mem_unit};
}

std::vector<StaticSysFile> kfd_files(const model::GpuDescription& gpu, const HostProperties& host) {
  return {
      {"topology/generation_id", "2\n"},
      {"topology/system_properties",
       text_of({{"platform_oem", 0}, {"platform_id", 0}, {"platform_rev", 0}})},
      {"topology/nodes/0/gpu_id", "0\n"},
      {"topology/nodes/0/name", "\n"},
      {"topology/nodes/0/properties", text_of(cpu_properties(host))},
      {"topology/nodes/0/mem_banks/0/properties", memory(heap_system, host.memory_bytes, 64, 2400)},
      {"topology/nodes/0/io_links/0/properties", link(0, 1)},
      {"topology/nodes/1/gpu_id", fmt::format("{}\n", kfd_gpu_id)},
      {"topology/nodes/1/name", fmt::format("{} simulated\n", gpu.name)},
      {"topology/nodes/1/properties", text_of(gpu_properties(gpu))},
      {"topology/nodes/1/mem_banks/0/properties",
       memory(heap_frame_buffer_public, gpu.topology.vram_bytes, 4096, 1000)},
      {"topology/nodes/1/caches/0/properties", cache(1, 16)},
      {"topology/nodes/1/caches/1/properties", cache(2, 4096)},
      {"topology/nodes/1/io_links/0/properties", link(1, 0)},
  };
}

std::vector<StaticSysFile> pci_device_files(const model::GpuDescription& gpu) {
  const std::string vram = fmt::format("{}\n", gpu.topology.vram_bytes);
  return {{"vendor", fmt::format("{:#06x}\n", vendor_amd)},
          {"device", fmt::format("{:#06x}\n", gpu.topology.device_id)},
          {"revision", fmt::format("{:#04x}\n", gpu.topology.revision_id)},
          {"subsystem_vendor", fmt::format("{:#06x}\n", vendor_amd)},
          {"subsystem_device", fmt::format("{:#06x}\n", gpu.topology.device_id)},
          {"product_name", fmt::format("{} (simulated)\n", gpu.marketing_name)},
          {"vbios_version", "113-SIMULATED-0\n"},
          {"power_dpm_force_performance_level", "auto\n"},
          {"mem_info_vram_total", vram},
          {"mem_info_vis_vram_total", vram},
          {"hwmon/hwmon0/name", "amdgpu\n"},
          // No voltage is simulated, but rocm-smi does not start without its label.
          {"hwmon/hwmon0/in0_label", "vddgfx\n"}};
}

std::vector<StaticSysFile> cpu_cache_files(std::uint32_t cpu) {
  // What the processor itself says; where it does not, what most have.
  const auto asked = [](int name, std::uint64_t otherwise) {
    const long value = ::sysconf(name);
    return value > 0 ? static_cast<std::uint64_t>(value) : otherwise;
  };
  std::string map = fmt::format("{:08x}", 1U << cpu % 32);
  for (std::uint32_t word = 0; word < cpu / 32; ++word) map += ",00000000";
  return {
      {"level", "1\n"},
      {"type", "Data\n"},
      {"size", fmt::format("{}K\n", asked(_SC_LEVEL1_DCACHE_SIZE, 32768) / 1024)},
      {"coherency_line_size", fmt::format("{}\n", asked(_SC_LEVEL1_DCACHE_LINESIZE, 64))},
      {"ways_of_associativity", fmt::format("{}\n", asked(_SC_LEVEL1_DCACHE_ASSOC, 8))},
      {"physical_line_partition", "1\n"},
      {"shared_cpu_map", map + "\n"},
      {"shared_cpu_list", fmt::format("{}\n", cpu)},
  };
}

std::string amdgpu_ids(const model::GpuDescription& gpu) {
  return fmt::format(
      "# device id, revision id, product name\n1.0.0\n{:04X},\t{:02X},\t{} (simulated)\n",
      gpu.topology.device_id, gpu.topology.revision_id, gpu.marketing_name);
}

}  // namespace eclip::kfdsim
