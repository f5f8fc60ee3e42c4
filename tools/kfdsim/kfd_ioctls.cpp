#include "tools/kfdsim/kfd_ioctls.h"

#include <linux/kfd_ioctl.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "tools/kfdsim/user_memory.h"

namespace eclip::kfdsim {
namespace {

// The version of the driver that is simulated: Linux 6.1's, built without CONFIG_HSA_AMD_SVM.
constexpr std::uint32_t kfd_major = 1;
constexpr std::uint32_t kfd_minor = 11;
// Sizes of the tables that GET_TILE_CONFIG copies; on gfx9 they hold zeros.
constexpr std::uint32_t tile_modes = 32;
constexpr std::uint32_t macro_tile_modes = 16;

// Apertures of a gfx9 GPU: LDS and scratch outside the canonical addresses, buffers anywhere.
constexpr std::uint64_t aperture_bytes = 0xffffffff;
constexpr std::uint64_t lds_base = 1ULL << 48;
constexpr std::uint64_t scratch_base = 2ULL << 48;
constexpr std::uint64_t gpuvm_base = 0x1000000;
constexpr std::uint64_t gpuvm_limit = (1ULL << 47) - 1;

kfd_process_device_apertures apertures() {
  kfd_process_device_apertures value{};
  value.lds_base = lds_base;
  value.lds_limit = lds_base | aperture_bytes;
  value.scratch_base = scratch_base;
  value.scratch_limit = scratch_base | aperture_bytes;
  value.gpuvm_base = gpuvm_base;
  value.gpuvm_limit = gpuvm_limit;
  value.gpu_id = kfd_gpu_id;
  return value;
}

std::uint64_t nanoseconds(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(time.tv_nsec);
}

int get_version(KfdCall&, kfd_ioctl_get_version_args& arguments) {
  arguments.major_version = kfd_major;
  arguments.minor_version = kfd_minor;
  return 0;
}

int set_memory_policy(KfdCall& call, kfd_ioctl_set_memory_policy_args& arguments) {
  const bool known = arguments.default_policy <= KFD_IOC_CACHE_POLICY_NONCOHERENT &&
                     arguments.alternate_policy <= KFD_IOC_CACHE_POLICY_NONCOHERENT;
  if (!known || arguments.gpu_id != kfd_gpu_id) return -EINVAL;
  return call.context.vm_acquired() ? 0 : -ESRCH;
}

int get_clock_counters(KfdCall& call, kfd_ioctl_get_clock_counters_args& arguments) {
  // The runtime derives one clock from the other: the readings must belong together, even when this
  // thread is interrupted between them now and then.
  constexpr model::DeviceTime::rep together_ns = 1000;
  constexpr int attempts = 10;
  for (int i = 0; i < attempts; ++i) {
    const auto before = DeviceClock::Wall::now();
    const model::DeviceTime gpu = call.gpu.clock().now();
    arguments.cpu_clock_counter = nanoseconds(CLOCK_MONOTONIC_RAW);
    arguments.system_clock_counter = nanoseconds(CLOCK_BOOTTIME);
    // A GPU that is not there has counter 0; the KFD says so too.
    arguments.gpu_clock_counter = arguments.gpu_id == kfd_gpu_id ? call.gpu.clock().ticks(gpu) : 0;
    if ((DeviceClock::Wall::now() - before).count() < together_ns) break;
  }
  arguments.system_clock_freq = 1'000'000'000;
  return 0;
}

int get_apertures(KfdCall&, kfd_ioctl_get_process_apertures_args& arguments) {
  arguments.process_apertures[0] = apertures();
  arguments.num_of_nodes = 1;
  return 0;
}

int get_apertures_new(KfdCall& call, kfd_ioctl_get_process_apertures_new_args& arguments) {
  if (arguments.num_of_nodes > max_kernel_array / sizeof(kfd_process_device_apertures)) {
    return -ENOMEM;
  }
  if (arguments.num_of_nodes != 0) {
    const kfd_process_device_apertures value = apertures();
    if (!write_process(call.client.pid(), arguments.kfd_process_device_apertures_ptr,
                       std::as_bytes(std::span(&value, 1)))) {
      return -EFAULT;
    }
  }
  arguments.num_of_nodes = 1;
  return 0;
}

int set_scratch_backing(KfdCall& call, kfd_ioctl_set_scratch_backing_va_args& arguments) {
  if (arguments.gpu_id != kfd_gpu_id) return -EINVAL;
  return call.context.vm_acquired() ? 0 : -ENODEV;
}

/// Clamps `count` to `most` and writes so many zeros to the client's array.
bool write_zeros(pid_t pid, std::uint64_t address, std::uint32_t most, std::uint32_t& count) {
  count = std::min(count, most);
  const std::vector<std::uint32_t> zeros(count);
  if (write_process(pid, address, std::as_bytes(std::span(zeros)))) return true;
  count = 0;
  return false;
}

int get_tile_config(KfdCall& call, kfd_ioctl_get_tile_config_args& arguments) {
  if (arguments.gpu_id != kfd_gpu_id) return -EINVAL;
  const pid_t pid = call.client.pid();
  const bool written =
      write_zeros(pid, arguments.tile_config_ptr, tile_modes, arguments.num_tile_configs) &&
      write_zeros(pid, arguments.macro_tile_config_ptr, macro_tile_modes,
                  arguments.num_macro_tile_configs);
  return written ? 0 : -EFAULT;
}

int set_trap_handler(KfdCall& call, kfd_ioctl_set_trap_handler_args& arguments) {
  if (arguments.gpu_id != kfd_gpu_id) return -EINVAL;
  return call.context.vm_acquired() ? 0 : -ESRCH;
}

struct Command {
  int (*run)(KfdCall&, std::span<std::byte, max_ioctl_argument>) = nullptr;
};

template <class Args, int (*function)(KfdCall&, Args&)>
Command command() {
  static_assert(sizeof(Args) <= max_ioctl_argument);
  return {[](KfdCall& call, std::span<std::byte, max_ioctl_argument> argument) {
    Args arguments;
    std::memcpy(&arguments, argument.data(), sizeof arguments);
    const int result = function(call, arguments);
    std::memcpy(argument.data(), &arguments, sizeof arguments);
    return result;
  }};
}

std::array<Command, 256> make_commands() {
  std::array<Command, 256> table{};
  table[0x01] = command<kfd_ioctl_get_version_args, get_version>();
  table[0x02] = command<kfd_ioctl_create_queue_args, create_queue>();
  table[0x03] = command<kfd_ioctl_destroy_queue_args, destroy_queue>();
  table[0x04] = command<kfd_ioctl_set_memory_policy_args, set_memory_policy>();
  table[0x05] = command<kfd_ioctl_get_clock_counters_args, get_clock_counters>();
  table[0x06] = command<kfd_ioctl_get_process_apertures_args, get_apertures>();
  table[0x07] = command<kfd_ioctl_update_queue_args, update_queue>();
  table[0x08] = command<kfd_ioctl_create_event_args, create_event>();
  table[0x09] = command<kfd_ioctl_destroy_event_args, destroy_event>();
  table[0x0a] = command<kfd_ioctl_set_event_args, set_event>();
  table[0x0b] = command<kfd_ioctl_reset_event_args, reset_event>();
  table[0x0c] = command<kfd_ioctl_wait_events_args, wait_events>();
  for (std::uint8_t debug = 0x0d; debug <= 0x10; ++debug) {
    table.at(debug) = command<kfd_ioctl_dbg_register_args, refuse_debugger>();
  }
  table[0x11] = command<kfd_ioctl_set_scratch_backing_va_args, set_scratch_backing>();
  table[0x12] = command<kfd_ioctl_get_tile_config_args, get_tile_config>();
  table[0x13] = command<kfd_ioctl_set_trap_handler_args, set_trap_handler>();
  table[0x14] = command<kfd_ioctl_get_process_apertures_new_args, get_apertures_new>();
  table[0x15] = command<kfd_ioctl_acquire_vm_args, acquire_vm>();
  table[0x16] = command<kfd_ioctl_alloc_memory_of_gpu_args, alloc_memory>();
  table[0x17] = command<kfd_ioctl_free_memory_of_gpu_args, free_memory>();
  table[0x18] = command<kfd_ioctl_map_memory_to_gpu_args, map_memory>();
  table[0x19] = command<kfd_ioctl_unmap_memory_from_gpu_args, unmap_memory>();
  table[0x1a] = command<kfd_ioctl_set_cu_mask_args, set_cu_mask>();
  table[0x1b] = command<kfd_ioctl_get_queue_wave_state_args, get_queue_wave_state>();
  table[0x1c] = command<kfd_ioctl_get_dmabuf_info_args, get_dmabuf_info>();
  table[0x1d] = command<kfd_ioctl_import_dmabuf_args, import_dmabuf>();
  table[0x1e] = command<kfd_ioctl_alloc_queue_gws_args, alloc_queue_gws>();
  table[0x1f] = command<kfd_ioctl_smi_events_args, watch_smi_events>();
  table[0x20] = command<kfd_ioctl_set_xnack_mode_args, refuse_svm>();
  table[0x21] = command<kfd_ioctl_set_xnack_mode_args, refuse_svm>();
  table[0x22] = command<kfd_ioctl_criu_args, checkpoint>();
  table[0x23] = command<kfd_ioctl_get_available_memory_args, available_memory>();
  return table;
}

}  // namespace

int kfd_ioctl(KfdCall& call, std::uint8_t number,
              std::span<std::byte, max_ioctl_argument> argument) {
  static const std::array<Command, 256> commands = make_commands();
  ++call.client.ioctls.by_number.at(number);
  const Command& command = commands.at(number);
  if (command.run == nullptr) return -EINVAL;
  return command.run(call, argument);
}

}  // namespace eclip::kfdsim
