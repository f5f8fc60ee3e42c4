// Names of the KFD's ioctls.
#pragma once

#include <cstdint>
#include <string>

namespace eclip {

/// By _IOC_NR, by which alone the driver dispatches.
enum class KfdCommand : std::uint32_t {
  create_queue = 0x02,
  destroy_queue = 0x03,
  wait_events = 0x0c,
  set_cu_mask = 0x1a
};

/// "SET_CU_MASK" as in linux/kfd_ioctl.h without its prefix; "0x7f" for a number that has no name.
std::string name_of_kfd_command(std::uint32_t number);

}  // namespace eclip
