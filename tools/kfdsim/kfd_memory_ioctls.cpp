#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <vector>

#include "tools/kfdsim/kfd_ioctls.h"
#include "tools/kfdsim/user_memory.h"

namespace eclip::kfdsim {
namespace {

// Handles name the GPU in their upper half, as the KFD's do.
std::uint64_t handle_of(std::uint32_t id) {
  return std::uint64_t{kfd_gpu_id} << 32 | id;
}

/// Whether two descriptors of the process are one open file; yes where the kernel does not tell.
bool is_same_file(pid_t pid, int one, int other) {
  constexpr int compare_files = 0;  // KCMP_FILE
  return one == other || ::syscall(SYS_kcmp, pid, pid, compare_files, one, other) <= 0;
}

/// What MAP_MEMORY and UNMAP_MEMORY have in common; `apply` is called for this GPU.
template <class Args, class Apply>
int for_each_device(KfdCall& call, Args& arguments, Apply apply) {
  constexpr std::uint32_t max_devices = max_kernel_array / sizeof(std::uint32_t);
  if (arguments.n_devices == 0 || arguments.n_success > arguments.n_devices) return -EINVAL;
  if (arguments.n_devices > max_devices) return -ENOMEM;
  std::vector<std::uint32_t> gpus(arguments.n_devices);
  if (!read_process(call.client.pid(), arguments.device_ids_array_ptr,
                    std::as_writable_bytes(std::span(gpus)))) {
    return -EFAULT;
  }
  const auto id = buffer_of(arguments.handle);
  if (!id) return -EINVAL;
  if (call.context.memory.find(*id) == nullptr) return -ENOMEM;
  for (std::uint32_t i = arguments.n_success; i < arguments.n_devices; ++i) {
    if (gpus[i] != kfd_gpu_id) return -EINVAL;
    if (const int error = apply(*id)) return -error;
    arguments.n_success = i + 1;
  }
  return 0;
}

}  // namespace

std::optional<std::uint32_t> buffer_of(std::uint64_t handle) {
  if (handle >> 32 != kfd_gpu_id) return std::nullopt;
  return static_cast<std::uint32_t>(handle);
}

int acquire_vm(KfdCall& call, kfd_ioctl_acquire_vm_args& arguments) {
  if (arguments.gpu_id != kfd_gpu_id) return -EINVAL;
  // An open that was inherited over fork belongs to the parent's address space.
  const auto fd = static_cast<int>(arguments.drm_fd);
  if (!call.client.has_open(fd, call.client.render_node())) return -EINVAL;
  std::optional<int>& acquired = call.context.vm_fd;
  if (acquired && !is_same_file(call.client.pid(), *acquired, fd)) return -EBUSY;
  if (!acquired) acquired = fd;
  return 0;
}

int alloc_memory(KfdCall& call, kfd_ioctl_alloc_memory_of_gpu_args& arguments) {
  if (arguments.size == 0 || arguments.gpu_id != kfd_gpu_id) return -EINVAL;
  if (!call.context.vm_acquired()) return -ENODEV;
  GpuMemory& memory = call.context.memory;
  const bool vram = (arguments.flags & KFD_IOC_ALLOC_MEM_FLAGS_VRAM) != 0;
  constexpr std::uint32_t system_memory =
      KFD_IOC_ALLOC_MEM_FLAGS_GTT | KFD_IOC_ALLOC_MEM_FLAGS_USERPTR;
  if ((vram || (arguments.flags & system_memory) != 0) &&
      call.injector.allocation_fails(call.client.faults, vram)) {
    return -ENOMEM;
  }
  std::uint32_t id = 0;
  if (const int error = memory.allocate(arguments.va_addr, arguments.size, arguments.flags,
                                        arguments.mmap_offset, id)) {
    if (error == ENOMEM) call.injector.memory_ended(vram);
    return -error;
  }
  const GpuMemory::Buffer& buffer = *memory.find(id);
  arguments.handle = handle_of(id);
  if (buffer.kind != MemoryKind::userptr) arguments.mmap_offset = buffer.offset;
  return 0;
}

int free_memory(KfdCall& call, kfd_ioctl_free_memory_of_gpu_args& arguments) {
  const auto id = buffer_of(arguments.handle);
  if (!id) return -EINVAL;
  if (id == call.context.event_page) return -EPERM;
  return -call.context.memory.free(*id);
}

int map_memory(KfdCall& call, kfd_ioctl_map_memory_to_gpu_args& arguments) {
  return for_each_device(call, arguments,
                         [&](std::uint32_t id) { return call.context.memory.map(id); });
}

int unmap_memory(KfdCall& call, kfd_ioctl_unmap_memory_from_gpu_args& arguments) {
  // Packets that were due before the memory goes are executed before it goes.
  call.gpu.poll();
  return for_each_device(call, arguments,
                         [&](std::uint32_t id) { return call.context.memory.unmap(id); });
}

int available_memory(KfdCall& call, kfd_ioctl_get_available_memory_args& arguments) {
  if (arguments.gpu_id != kfd_gpu_id) return -EINVAL;
  arguments.available = call.context.memory.vram_bytes_left();
  return 0;
}

}  // namespace eclip::kfdsim
