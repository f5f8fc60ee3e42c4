#include "ipc/kfd_command.h"

#include <array>
#include <cstdio>

namespace eclip {
namespace {

constexpr std::array names{
    "",
    "GET_VERSION",
    "CREATE_QUEUE",
    "DESTROY_QUEUE",
    "SET_MEMORY_POLICY",
    "GET_CLOCK_COUNTERS",
    "GET_PROCESS_APERTURES",
    "UPDATE_QUEUE",
    "CREATE_EVENT",
    "DESTROY_EVENT",
    "SET_EVENT",
    "RESET_EVENT",
    "WAIT_EVENTS",
    "DBG_REGISTER",
    "DBG_UNREGISTER",
    "DBG_ADDRESS_WATCH",
    "DBG_WAVE_CONTROL",
    "SET_SCRATCH_BACKING_VA",
    "GET_TILE_CONFIG",
    "SET_TRAP_HANDLER",
    "GET_PROCESS_APERTURES_NEW",
    "ACQUIRE_VM",
    "ALLOC_MEMORY_OF_GPU",
    "FREE_MEMORY_OF_GPU",
    "MAP_MEMORY_TO_GPU",
    "UNMAP_MEMORY_FROM_GPU",
    "SET_CU_MASK",
    "GET_QUEUE_WAVE_STATE",
    "GET_DMABUF_INFO",
    "IMPORT_DMABUF",
    "ALLOC_QUEUE_GWS",
    "SMI_EVENTS",
    "SVM",
    "SET_XNACK_MODE",
    "CRIU_OP",
    "AVAILABLE_MEMORY",
    "EXPORT_DMABUF",
    "RUNTIME_ENABLE",
    "DBG_TRAP",
};

}  // namespace

std::string name_of_kfd_command(std::uint32_t number) {
  if (number > 0 && number < names.size()) return names.at(number);
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "%#x", number);
  return text.data();
}

}  // namespace eclip
