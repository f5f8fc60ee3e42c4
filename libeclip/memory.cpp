// GPU memory that eclipd allocates for the worker.
#include <fcntl.h>
#include <sys/stat.h>

#include "ipc/testpoint.h"
#include "libeclip/context.h"
#include "libeclip/errors.h"
#include "libeclip/versioned_struct.h"

namespace eclip {
namespace {

/// Maps the memory that eclipd sent, after making sure that touching it cannot raise SIGBUS.
Result<boost::interprocess::mapped_region> map_memory(int fd, std::uint64_t bytes) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "examine the memory that eclipd sent");
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (status.st_size < 0 || static_cast<std::uint64_t>(status.st_size) < bytes || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0)
    return fail(Errc::malformed, "eclipd sent memory that is too short or may shrink");
  return map_memfd(fd, true, bytes);
}

int allocate(eclip_context* context, std::uint64_t bytes, std::uint32_t flags,
             eclip_memory* memory) {
  if (context == nullptr) return report(EINVAL, "the context is NULL");
  if (const int failed = check_struct_size(memory); failed != 0) return failed;
  if (bytes == 0) return report(EINVAL, "0 bytes of memory were asked for");
  static_assert(ECLIP_MEMORY_DEVICE_LOCAL == MemoryAllocate::flag_device_local);
  if ((flags & ~ECLIP_MEMORY_DEVICE_LOCAL) != 0)
    return report(EINVAL, "unknown memory flags " + std::to_string(flags));
  auto reply = context->control.request(
      MessageType::memory_allocate, MemoryAllocate{.bytes = bytes, .flags = flags, .reserved = 0},
      MessageType::memory_allocated);
  if (!reply) return report(reply.error());
  const auto allocated = payload_of<MemoryAllocated>(reply->message);
  eclip_memory described{};
  described.handle = allocated.memory;
  described.gpu_address = allocated.gpu_address;
  described.bytes = allocated.bytes;
  if ((flags & ECLIP_MEMORY_DEVICE_LOCAL) == 0) {
    if (reply->fds.size() != 1)
      return report(EPROTO, "eclipd allocated host-visible memory but sent no way to map it");
    ECLIP_TESTPOINT("memory_granted");
    auto mapping = map_memory(reply->fds[0].get(), allocated.bytes);
    if (!mapping) return report(mapping.error());
    described.host = mapping->get_address();
    const std::lock_guard lock(context->objects_mutex);
    context->host_mappings.insert_or_assign(allocated.memory, std::move(*mapping));
  }
  write_struct(described, memory);
  return 0;
}

int free_memory(eclip_context* context, const eclip_memory* given) {
  if (context == nullptr) return report(EINVAL, "the context is NULL");
  eclip_memory memory{};
  if (const int failed = read_struct(given, memory); failed != 0) return failed;
  const auto reply =
      context->control.request(MessageType::memory_free, Handle{memory.handle}, MessageType::ok);
  // Without eclipd the mapping is all that is left to free; an answer that is late, or an earlier
  // one that was, means that eclipd frees its side.
  if (reply || reply.error().code == Errc::gone || reply.error().code == Errc::timed_out ||
      reply.error().code == Errc::not_found) {
    const std::lock_guard lock(context->objects_mutex);
    context->host_mappings.erase(memory.handle);
  }
  return reply ? 0 : report(reply.error());
}

}  // namespace
}  // namespace eclip

int eclip_memory_allocate(eclip_context* context, uint64_t bytes, uint32_t flags,
                          struct eclip_memory* memory) {
  return eclip::guarded([&] { return eclip::allocate(context, bytes, flags, memory); });
}

int eclip_memory_free(eclip_context* context, const struct eclip_memory* memory) {
  return eclip::guarded([&] { return eclip::free_memory(context, memory); });
}
