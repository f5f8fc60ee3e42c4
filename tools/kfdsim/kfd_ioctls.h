// The ioctls of /dev/kfd.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "tools/kfdsim/client_process.h"
#include "tools/kfdsim/gpu.h"

namespace eclip::kfdsim {

/// Everything an ioctl may touch.
struct KfdCall {
  ClientProcess& client;
  GpuContext& context;
  Gpu& gpu;
  MemoryBudget& budget;
  FaultInjector& injector;
  std::uint64_t request;  ///< the FUSE request, for those that are answered later
};

/// Returned by an ioctl that is answered later, through EventTable::take_finished.
inline constexpr int ioctl_pending = 1;
/// What the kernel allocates at most in one piece, for arrays whose length clients give; the driver
/// answers ENOMEM past it.
inline constexpr std::size_t max_kernel_array = 4U << 20;
/// The largest argument of any KFD ioctl that is simulated.
inline constexpr std::size_t max_ioctl_argument = 512;

/// Executes command number `number` (as the KFD, only the lowest 8 bits of the command count) on
/// its argument, which is as large as the largest and zero past what the client gave. 0, -errno
/// or ioctl_pending.
int kfd_ioctl(KfdCall& call, std::uint8_t number,
              std::span<std::byte, max_ioctl_argument> argument);

/// The buffer that a memory handle names; nullopt when the handle is none of this GPU's.
std::optional<std::uint32_t> buffer_of(std::uint64_t handle);

// Groups of commands, each in its own file.
int create_queue(KfdCall& call, kfd_ioctl_create_queue_args& arguments);
int destroy_queue(KfdCall& call, kfd_ioctl_destroy_queue_args& arguments);
int update_queue(KfdCall& call, kfd_ioctl_update_queue_args& arguments);
int set_cu_mask(KfdCall& call, kfd_ioctl_set_cu_mask_args& arguments);
int get_queue_wave_state(KfdCall& call, kfd_ioctl_get_queue_wave_state_args& arguments);
int alloc_queue_gws(KfdCall& call, kfd_ioctl_alloc_queue_gws_args& arguments);

/// The buffer that a handle names; nullopt when it names none of this GPU.
std::optional<std::uint32_t> buffer_of(std::uint64_t handle);

int acquire_vm(KfdCall& call, kfd_ioctl_acquire_vm_args& arguments);
int alloc_memory(KfdCall& call, kfd_ioctl_alloc_memory_of_gpu_args& arguments);
int free_memory(KfdCall& call, kfd_ioctl_free_memory_of_gpu_args& arguments);
int map_memory(KfdCall& call, kfd_ioctl_map_memory_to_gpu_args& arguments);
int unmap_memory(KfdCall& call, kfd_ioctl_unmap_memory_from_gpu_args& arguments);
int available_memory(KfdCall& call, kfd_ioctl_get_available_memory_args& arguments);

int create_event(KfdCall& call, kfd_ioctl_create_event_args& arguments);
int destroy_event(KfdCall& call, kfd_ioctl_destroy_event_args& arguments);
int set_event(KfdCall& call, kfd_ioctl_set_event_args& arguments);
int reset_event(KfdCall& call, kfd_ioctl_reset_event_args& arguments);
int wait_events(KfdCall& call, kfd_ioctl_wait_events_args& arguments);

// Commands of parts that are not simulated; docs/kfdsim.md gives the reason for each error.
int refuse_debugger(KfdCall& call, kfd_ioctl_dbg_register_args& arguments);
int refuse_svm(KfdCall& call, kfd_ioctl_set_xnack_mode_args& arguments);
int get_dmabuf_info(KfdCall& call, kfd_ioctl_get_dmabuf_info_args& arguments);
int import_dmabuf(KfdCall& call, kfd_ioctl_import_dmabuf_args& arguments);
int watch_smi_events(KfdCall& call, kfd_ioctl_smi_events_args& arguments);
int checkpoint(KfdCall& call, kfd_ioctl_criu_args& arguments);

}  // namespace eclip::kfdsim
