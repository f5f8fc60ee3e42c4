#include "tools/kfdsim/drm_ioctls.h"

#include <libdrm/amdgpu_drm.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "tools/kfdsim/user_memory.h"

namespace eclip::kfdsim {
namespace {

constexpr int drm_major = 3;
constexpr int drm_minor = 49;
constexpr std::uint64_t khz_per_mhz = 1000;
constexpr std::uint32_t memory_clock_mhz = 1000;
constexpr std::uint32_t memory_bus_bits = 4096;
constexpr std::uint32_t max_registers = 128;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

template <class T>
std::span<const std::byte> bytes_of_object(const T& value) {
  return std::as_bytes(std::span<const T, 1>(&value, 1));
}

/// Writes as much of a string as the client has room for, and tells its whole length.
bool put_string(pid_t pid, std::string_view text, char* to, __kernel_size_t& length) {
  const std::size_t size = std::min<std::size_t>(length, text.size());
  length = text.size();
  return to == nullptr || size == 0 ||
         write_process(pid, reinterpret_cast<std::uint64_t>(to), bytes_of(text.substr(0, size)));
}

int get_version(const DrmCall& call, drm_version& version) {
  version.version_major = drm_major;
  version.version_minor = drm_minor;
  version.version_patchlevel = 0;
  const bool written = put_string(call.pid, "amdgpu", version.name, version.name_len) &&
                       put_string(call.pid, "20150101", version.date, version.date_len) &&
                       put_string(call.pid, "AMD GPU", version.desc, version.desc_len);
  return written ? 0 : -EFAULT;
}

int get_client(const DrmCall& call, drm_client& client) {
  if (client.idx != 0) return -EINVAL;
  client.auth = 1;
  client.pid = static_cast<unsigned long>(call.pid);
  return 0;
}

drm_amdgpu_info_device device_info(const model::GpuDescription& gpu) {
  drm_amdgpu_info_device info{};
  info.device_id = gpu.topology.device_id;
  info.chip_rev = gpu.topology.revision_id;
  info.external_rev = gpu.topology.revision_id;
  info.pci_rev = gpu.topology.revision_id;
  info.family = AMDGPU_FAMILY_AI;
  info.num_shader_engines = gpu.geometry.shader_engines;
  info.num_shader_arrays_per_engine = 1;
  info.gpu_counter_freq = gpu.topology.gpu_counter_khz;
  info.max_engine_clock = gpu.topology.max_clock_mhz * khz_per_mhz;
  info.max_memory_clock = memory_clock_mhz * khz_per_mhz;
  info.cu_active_number = gpu.geometry.cu_count();
  for (std::uint32_t engine = 0; engine < gpu.geometry.shader_engines && engine < 16; ++engine) {
    // Engines past the fourth use the columns of further shader arrays, as on gfx908.
    const auto all_cus =
        static_cast<std::uint32_t>((1ULL << gpu.geometry.cus_per_shader_engine) - 1);
    info.cu_bitmap[engine % 4][engine / 4] = all_cus;
    info.cu_ao_bitmap[engine % 4][engine / 4] = all_cus;
  }
  info.virtual_address_offset = 0x200000;
  info.virtual_address_max = 0x800000000000;
  info.virtual_address_alignment = 4096;
  info.pte_fragment_size = 4096;
  info.gart_page_size = 4096;
  info.vram_type = AMDGPU_VRAM_TYPE_HBM;
  info.vram_bit_width = memory_bus_bits;
  info.wave_front_size = 64;
  info.num_shader_visible_vgprs = 256;
  info.num_cu_per_sh = gpu.geometry.cus_per_shader_engine;
  info.high_va_offset = 0xffff800000000000;
  info.high_va_max = 0xffffffffffe00000;
  return info;
}

int reply_query(const DrmCall& call, const drm_amdgpu_info& query,
                std::span<const std::byte> answer) {
  const std::size_t size = std::min<std::size_t>(query.return_size, answer.size());
  return write_process(call.pid, query.return_pointer, answer.first(size)) ? 0 : -EFAULT;
}

int amdgpu_info(const DrmCall& call, const drm_amdgpu_info& query) {
  const model::GpuDescription& gpu = call.gpu.description();
  switch (query.query) {
    case AMDGPU_INFO_ACCEL_WORKING:
      return reply_query(call, query, bytes_of_object(std::uint32_t{1}));
    case AMDGPU_INFO_DEV_INFO:
      return reply_query(call, query, bytes_of_object(device_info(gpu)));
    case AMDGPU_INFO_READ_MMR_REG: {
      if (query.read_mmr_reg.count > max_registers) return -EINVAL;
      const std::vector<std::uint32_t> zeros(query.read_mmr_reg.count);
      return reply_query(call, query, std::as_bytes(std::span(zeros)));
    }
    case AMDGPU_INFO_FW_VERSION:
      return reply_query(call, query, bytes_of_object(drm_amdgpu_info_firmware{}));
    case AMDGPU_INFO_TIMESTAMP:
      return reply_query(call, query,
                         bytes_of_object(call.gpu.clock().ticks(call.gpu.clock().now())));
    case AMDGPU_INFO_VRAM_GTT: {
      drm_amdgpu_info_vram_gtt sizes{};
      sizes.vram_size = gpu.topology.vram_bytes;
      sizes.vram_cpu_accessible_size = gpu.topology.vram_bytes;
      sizes.gtt_size = call.budget.system_bytes;
      return reply_query(call, query, bytes_of_object(sizes));
    }
    case AMDGPU_INFO_VRAM_USAGE:
      return reply_query(call, query,
                         bytes_of_object(gpu.topology.vram_bytes - call.budget.vram_bytes));
    default:
      return -EINVAL;
  }
}

template <class Args, class Run>
int with(std::span<std::byte> argument, Run run) {
  Args arguments;
  std::memcpy(&arguments, argument.data(), sizeof arguments);
  const int result = run(arguments);
  std::memcpy(argument.data(), &arguments, sizeof arguments);
  return result;
}

}  // namespace

int drm_ioctl(const DrmCall& call, std::uint8_t number, std::span<std::byte> argument) {
  constexpr std::uint8_t version_number = 0x00;
  constexpr std::uint8_t client_number = 0x05;
  constexpr std::uint8_t info_number = DRM_COMMAND_BASE + DRM_AMDGPU_INFO;
  switch (number) {
    case version_number:
      return with<drm_version>(argument,
                               [&](drm_version& args) { return get_version(call, args); });
    case client_number:
      return with<drm_client>(argument, [&](drm_client& args) { return get_client(call, args); });
    case info_number:
      return with<drm_amdgpu_info>(argument,
                                   [&](drm_amdgpu_info& args) { return amdgpu_info(call, args); });
    default:
      return -EINVAL;
  }
}

}  // namespace eclip::kfdsim
