// The names of the KFD's ioctls, as kfd_ioctl.h has them, in lower case.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace eclip::kfdsim {

/// By command number; number 0 is none.
inline constexpr std::array<std::string_view, 0x24> kfd_command_names{
    "",
    "get_version",
    "create_queue",
    "destroy_queue",
    "set_memory_policy",
    "get_clock_counters",
    "get_process_apertures",
    "update_queue",
    "create_event",
    "destroy_event",
    "set_event",
    "reset_event",
    "wait_events",
    "dbg_register",
    "dbg_unregister",
    "dbg_address_watch",
    "dbg_wave_control",
    "set_scratch_backing_va",
    "get_tile_config",
    "set_trap_handler",
    "get_process_apertures_new",
    "acquire_vm",
    "alloc_memory_of_gpu",
    "free_memory_of_gpu",
    "map_memory_to_gpu",
    "unmap_memory_from_gpu",
    "set_cu_mask",
    "get_queue_wave_state",
    "get_dmabuf_info",
    "import_dmabuf",
    "alloc_queue_gws",
    "smi_events",
    "svm",
    "set_xnack_mode",
    "criu_op",
    "available_memory",
};

/// The number of the command with this name; nullopt when there is none.
[[nodiscard]] constexpr std::optional<std::uint8_t> kfd_command_number(std::string_view name) {
  for (std::size_t i = 1; i < kfd_command_names.size(); ++i) {
    if (kfd_command_names[i] == name) return static_cast<std::uint8_t>(i);
  }
  return std::nullopt;
}

}  // namespace eclip::kfdsim
