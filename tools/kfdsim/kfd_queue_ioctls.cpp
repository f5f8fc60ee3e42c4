#include <cerrno>
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
    case KFD_IOC_QUEUE_TYPE_SDMA_XGMI:
      return QueueType::sdma;
    default:
      return QueueType::pm4;
  }
}

}  // namespace

int create_queue(KfdCall& call, kfd_ioctl_create_queue_args& arguments) {
  if (!share_is_valid(arguments.queue_percentage, arguments.queue_priority)) return -EINVAL;
  if (arguments.queue_type > KFD_IOC_QUEUE_TYPE_SDMA_XGMI) return -not_supported;
  if (arguments.gpu_id != kfd_gpu_id) return -EINVAL;
  if (!call.context.vm_acquired) return -ESRCH;
  RingSettings ring;
  ring.base = arguments.ring_base_address;
  ring.bytes = arguments.ring_size;
  ring.read_pointer = arguments.read_pointer_address;
  ring.write_pointer = arguments.write_pointer_address;
  ring.active = arguments.queue_percentage > 0 && ring.base != 0 && ring.bytes != 0;
  std::uint32_t id = 0;
  if (const int error = call.gpu.create_queue(call.context, type_of(arguments), ring, id))
    return -error;
  arguments.queue_id = id;
  arguments.doorbell_offset =
      BackingMemory::doorbell_offset + call.context.queues.at(id)->doorbell * 8ULL;
  return 0;
}

int destroy_queue(KfdCall& call, kfd_ioctl_destroy_queue_args& arguments) {
  return -call.gpu.destroy_queue(call.context, arguments.queue_id);
}

int update_queue(KfdCall& call, kfd_ioctl_update_queue_args& arguments) {
  if (!share_is_valid(arguments.queue_percentage, arguments.queue_priority)) return -EINVAL;
  const bool active = arguments.queue_percentage > 0 && arguments.ring_base_address != 0 &&
                      arguments.ring_size != 0;
  return -call.gpu.update_queue(call.context, arguments.queue_id, arguments.ring_base_address,
                                arguments.ring_size, active);
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

int alloc_queue_gws(KfdCall& call, kfd_ioctl_alloc_queue_gws_args& arguments) {
  if (!call.context.queues.contains(arguments.queue_id)) return -EINVAL;
  arguments.first_gws = 0;
  return 0;
}

}  // namespace eclip::kfdsim
