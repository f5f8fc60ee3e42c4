#include "tools/kfdsim/kfd_ioctls.h"

#include <linux/kfd_ioctl.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "tools/kfdsim/user_memory.h"

namespace eclip::kfdsim {
namespace {

// The version of the driver that is simulated: the one whose ioctls are all here.
constexpr std::uint32_t kfd_major = 1;
constexpr std::uint32_t kfd_minor = 9;

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

int set_memory_policy(KfdCall&, kfd_ioctl_set_memory_policy_args& arguments) {
  const bool known = arguments.default_policy <= KFD_IOC_CACHE_POLICY_NONCOHERENT &&
                     arguments.alternate_policy <= KFD_IOC_CACHE_POLICY_NONCOHERENT;
  return known && arguments.gpu_id == kfd_gpu_id ? 0 : -EINVAL;
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

int set_scratch_backing(KfdCall&, kfd_ioctl_set_scratch_backing_va_args& arguments) {
  return arguments.gpu_id == kfd_gpu_id ? 0 : -EINVAL;
}

int get_tile_config(KfdCall&, kfd_ioctl_get_tile_config_args& arguments) {
  if (arguments.gpu_id != kfd_gpu_id) return -EINVAL;
  arguments.num_tile_configs = 0;
  arguments.num_macro_tile_configs = 0;
  return 0;
}

int set_trap_handler(KfdCall&, kfd_ioctl_set_trap_handler_args& arguments) {
  return arguments.gpu_id == kfd_gpu_id ? 0 : -EINVAL;
}

/// Shared virtual memory needs a kernel option that is off here, as on many kernels.
int refuse_svm(KfdCall&, kfd_ioctl_set_xnack_mode_args&) {
  return -EPERM;
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
  table[0x1e] = command<kfd_ioctl_alloc_queue_gws_args, alloc_queue_gws>();
  table[0x20] = command<kfd_ioctl_set_xnack_mode_args, refuse_svm>();
  table[0x21] = command<kfd_ioctl_set_xnack_mode_args, refuse_svm>();
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
