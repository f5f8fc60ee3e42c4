#include <algorithm>
#include <cerrno>
#include <optional>
#include <vector>

#include "tools/kfdsim/kfd_ioctls.h"
#include "tools/kfdsim/user_memory.h"

namespace eclip::kfdsim {
namespace {

constexpr int not_supported = 524;  // the kernel's own ENOTSUPP, which clients do get to see
constexpr std::uint32_t max_mask_bits = 1024;

bool share_is_valid(std::uint32_t percentage, std::uint32_t priority) {
  return percentage <= KFD_MAX_QUEUE_PERCENTAGE && priority <= KFD_MAX_QUEUE_PRIORITY;
}

QueueType type_of(const kfd_ioctl_create_queue_args& arguments) {
  switch (arguments.queue_type) {
    case KFD_IOC_QUEUE_TYPE_COMPUTE_AQL:
      return QueueType::aql;
    case KFD_IOC_QUEUE_TYPE_SDMA:
      return QueueType::sdma;
    default:
      return QueueType::pm4;
  }
}

/// What the driver calls accessible: below the end of user addresses, mapped or not.
bool may_be_accessible(std::uint64_t address) {
  constexpr std::uint64_t end_of_user_addresses = 0x7ffffffff000;
  return address <= end_of_user_addresses - sizeof(std::uint64_t);
}

/// The size that the driver gives a ring; nullopt when it takes none of that size.
std::optional<std::uint32_t> ring_bytes(std::uint32_t asked) {
  if ((asked & (asked - 1)) != 0) return std::nullopt;
  return std::max<std::uint32_t>(asked, KFD_MIN_QUEUE_RING_SIZE);
}

}  // namespace

int create_queue(KfdCall& call, kfd_ioctl_create_queue_args& arguments) {
  if (!share_is_valid(arguments.queue_percentage, arguments.queue_priority)) return -EINVAL;
  if (!may_be_accessible(arguments.ring_base_address)) return -EFAULT;
  const auto bytes = ring_bytes(arguments.ring_size);
  if (!bytes) return -EINVAL;
  for (const std::uint64_t address :
       {arguments.read_pointer_address, arguments.write_pointer_address,
        arguments.eop_buffer_address, arguments.ctx_save_restore_address}) {
    if (!may_be_accessible(address)) return -EFAULT;
  }
  if (arguments.queue_type > KFD_IOC_QUEUE_TYPE_SDMA_XGMI) return -not_supported;
  if (arguments.gpu_id != kfd_gpu_id) return -EINVAL;
  if (!call.context.vm_acquired()) return -ESRCH;
  // There are no links to other GPUs, hence no SDMA engines for them.
  if (arguments.queue_type == KFD_IOC_QUEUE_TYPE_SDMA_XGMI) return -ENOMEM;
  arguments.ring_size = *bytes;
  RingSettings ring;
  ring.base = arguments.ring_base_address;
  ring.bytes = arguments.ring_size;
  ring.read_pointer = arguments.read_pointer_address;
  ring.write_pointer = arguments.write_pointer_address;
  ring.active = arguments.queue_percentage > 0 && ring.base != 0;
  const QueueType type = type_of(arguments);
  std::uint32_t id = 0;
  if (const int error = call.gpu.create_queue(call.context, type, ring, id)) return -error;
  GpuQueue& queue = *call.context.queues.at(id);
  if (type == QueueType::aql) queue.hang = call.injector.queue_created(call.client.faults);
  arguments.queue_id = id;
  arguments.doorbell_offset = BackingMemory::doorbell_offset + queue.doorbell * 8ULL;
  return 0;
}

int destroy_queue(KfdCall& call, kfd_ioctl_destroy_queue_args& arguments) {
  const int error = call.gpu.destroy_queue(call.context, arguments.queue_id);
  if (error == 0 && call.context.gws_queue == arguments.queue_id) call.context.gws_queue.reset();
  return -error;
}

int update_queue(KfdCall& call, kfd_ioctl_update_queue_args& arguments) {
  if (!share_is_valid(arguments.queue_percentage, arguments.queue_priority)) return -EINVAL;
  if (!may_be_accessible(arguments.ring_base_address)) return -EFAULT;
  const auto bytes = ring_bytes(arguments.ring_size);
  if (!bytes) return -EINVAL;
  const bool active = arguments.queue_percentage > 0 && arguments.ring_base_address != 0;
  return -call.gpu.update_queue(call.context, arguments.queue_id, arguments.ring_base_address,
                                *bytes, active);
}

int set_cu_mask(KfdCall& call, kfd_ioctl_set_cu_mask_args& arguments) {
  if (arguments.num_cu_mask == 0 || arguments.num_cu_mask % 32 != 0) return -EINVAL;
  std::vector<std::uint32_t> words(std::min(arguments.num_cu_mask, max_mask_bits) / 32);
  if (!read_process(call.client.pid(), arguments.cu_mask_ptr,
                    std::as_writable_bytes(std::span(words)))) {
    return -EFAULT;
  }
  return -call.gpu.set_cu_mask(call.context, arguments.queue_id, words);
}

int get_queue_wave_state(KfdCall& call, kfd_ioctl_get_queue_wave_state_args& arguments) {
  const auto found = call.context.queues.find(arguments.queue_id);
  if (found == call.context.queues.end()) return -EFAULT;
  const GpuQueue& queue = *found->second;
  if (queue.type != QueueType::aql || queue.ring.active) return -EINVAL;
  // No wave has a state that could have been saved.
  arguments.ctl_stack_used_size = 0;
  arguments.save_area_used_size = 0;
  return 0;
}

int alloc_queue_gws(KfdCall& call, kfd_ioctl_alloc_queue_gws_args& arguments) {
  if (!call.context.queues.contains(arguments.queue_id)) return -EINVAL;
  std::optional<std::uint32_t>& holder = call.context.gws_queue;
  arguments.first_gws = 0;
  if (arguments.num_gws != 0) {
    if (holder) return -EBUSY;
    holder = arguments.queue_id;
    return 0;
  }
  if (!holder) return -EINVAL;
  holder.reset();
  return 0;
}

}  // namespace eclip::kfdsim
