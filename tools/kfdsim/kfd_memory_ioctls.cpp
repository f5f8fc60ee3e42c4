#include <algorithm>
#include <cerrno>
#include <vector>

#include "tools/kfdsim/kfd_ioctls.h"
#include "tools/kfdsim/user_memory.h"

namespace eclip::kfdsim {
namespace {

// Handles name the GPU in their upper half, as the KFD's do.
std::uint64_t handle_of(std::uint32_t id) {
  return std::uint64_t{kfd_gpu_id} << 32 | id;
}

/// What MAP_MEMORY and UNMAP_MEMORY have in common; `apply` is called for this GPU.
template <class Args, class Apply>
int for_each_device(KfdCall& call, Args& arguments, Apply apply) {
  constexpr std::uint32_t max_devices = 128;
  if (arguments.n_devices == 0 || arguments.n_devices > max_devices ||
      arguments.n_success > arguments.n_devices) {
    return -EINVAL;
  }
  std::vector<std::uint32_t> gpus(arguments.n_devices);
  if (!read_process(call.client.pid(), arguments.device_ids_array_ptr,
                    std::as_writable_bytes(std::span(gpus)))) {
    return -EFAULT;
  }
  const auto id = buffer_of(arguments.handle);
  if (!id || call.context.memory.find(*id) == nullptr) return -EINVAL;
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
  if (!call.client.has_open(static_cast<int>(arguments.drm_fd), call.client.render_node())) {
    return -EINVAL;
  }
  call.context.vm_acquired = true;
  return 0;
}

int alloc_memory(KfdCall& call, kfd_ioctl_alloc_memory_of_gpu_args& arguments) {
  if (arguments.gpu_id != kfd_gpu_id) return -EINVAL;
  if (!call.context.vm_acquired) return -ESRCH;
  GpuMemory& memory = call.context.memory;
  std::uint32_t id = 0;
  if (const int error = memory.allocate(arguments.va_addr, arguments.size, arguments.flags,
                                        arguments.mmap_offset, id)) {
    return -error;
  }
  const GpuMemory::Buffer& buffer = *memory.find(id);
  arguments.handle = handle_of(id);
  if (buffer.kind != MemoryKind::userptr) arguments.mmap_offset = buffer.offset;
  return 0;
}

int free_memory(KfdCall& call, kfd_ioctl_free_memory_of_gpu_args& arguments) {
  const auto id = buffer_of(arguments.handle);
  return id ? -call.context.memory.free(*id) : -EINVAL;
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
  arguments.available = call.budget.vram_bytes;
  return 0;
}

}  // namespace eclip::kfdsim
