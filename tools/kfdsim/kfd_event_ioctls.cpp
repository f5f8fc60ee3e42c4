#include <array>
#include <cerrno>
#include <cstddef>
#include <vector>

#include "tools/kfdsim/kfd_ioctls.h"
#include "tools/kfdsim/user_memory.h"

namespace eclip::kfdsim {
namespace {

// libhsakmt takes any positive offset as a sign that the event has a slot in the event page. It
// maps the page itself on a discrete GPU, so the value is never used as an offset.
constexpr std::uint64_t event_page_offset = 1;
// Past this the driver's own array is larger than the kernel allocates.
constexpr std::uint32_t max_waited_events = 65536;

/// The client gives the memory for the event page in its first CREATE_EVENT, by its handle.
int set_event_page(KfdCall& call, std::uint64_t handle) {
  if (call.context.event_page) return -EINVAL;
  const auto id = buffer_of(handle);
  if (!id) return -EINVAL;
  if (!call.context.vm_acquired()) return -ENODEV;
  const GpuMemory::Buffer* buffer = call.context.memory.find(*id);
  if (buffer == nullptr) return -EINVAL;
  call.context.event_page = id;
  call.context.events.set_page(buffer->gpu_address, call.context.memory);
  return 0;
}

}  // namespace

int create_event(KfdCall& call, kfd_ioctl_create_event_args& arguments) {
  if (arguments.event_page_offset != 0) {
    if (const int error = set_event_page(call, arguments.event_page_offset)) return error;
  }
  if (const int error = call.context.events.create(arguments)) return -error;
  if (has_event_slot(arguments.event_type)) arguments.event_page_offset = event_page_offset;
  return 0;
}

int destroy_event(KfdCall& call, kfd_ioctl_destroy_event_args& arguments) {
  return -call.context.events.destroy(arguments.event_id);
}

int set_event(KfdCall& call, kfd_ioctl_set_event_args& arguments) {
  return -call.context.events.set(arguments.event_id);
}

int reset_event(KfdCall& call, kfd_ioctl_reset_event_args& arguments) {
  return -call.context.events.reset(arguments.event_id);
}

int wait_events(KfdCall& call, kfd_ioctl_wait_events_args& arguments) {
  if (arguments.num_events > max_waited_events) return -ENOMEM;
  if (arguments.num_events == 0) {
    arguments.wait_result = KFD_IOC_WAIT_RESULT_COMPLETE;
    return 0;
  }
  std::vector<kfd_event_data> data(arguments.num_events);
  if (!read_process(call.client.pid(), arguments.events_ptr,
                    std::as_writable_bytes(std::span(data)))) {
    return -EFAULT;
  }
  std::vector<std::uint32_t> ids;
  ids.reserve(data.size());
  for (const kfd_event_data& event : data) ids.push_back(event.event_id);
  if (const int error =
          call.context.events.wait(call.request, arguments, ids, WallTime::clock::now())) {
    return -error;
  }
  return ioctl_pending;
}

}  // namespace eclip::kfdsim
