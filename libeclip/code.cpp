// Code images and the kernels in them.
#include <unistd.h>

#include "libeclip/context.h"
#include "libeclip/errors.h"

namespace eclip {
namespace {

Result<void> write_whole(int fd, const void* bytes, std::size_t count) {
  const auto* from = static_cast<const char*>(bytes);
  for (std::size_t done = 0; done < count;) {
    const ssize_t size = ::pwrite(fd, from + done, count - done, static_cast<off_t>(done));
    if (size < 0 && errno != EINTR) return fail_errno(errno, "copy a code image");
    if (size > 0) done += static_cast<std::size_t>(size);
  }
  return {};
}

/// The handle that an `ok` reply carries; handles of kernels and code have 32 bits.
int store_handle(const ReceivedMessage& reply, std::uint32_t* handle) {
  const std::uint64_t value = payload_of<Handle>(reply.message).value;
  if (value > UINT32_MAX)
    return report(EPROTO, "eclipd answered with handle " + std::to_string(value));
  *handle = static_cast<std::uint32_t>(value);
  return 0;
}

int load(eclip_context* context, const void* image, std::uint64_t bytes, std::uint32_t* code) {
  if (context == nullptr || image == nullptr || code == nullptr)
    return report(EINVAL, "the context, the image or the place for the handle is NULL");
  if (bytes == 0) return report(EINVAL, "the code image has 0 bytes");
  const auto fd = create_sealed_memfd("eclip-code", bytes);
  if (!fd) return report(fd.error());
  if (auto written = write_whole(fd->get(), image, bytes); !written) return report(written.error());
  const std::array fds{fd->get()};
  const auto reply =
      context->control.request(MessageType::code_load, Handle{bytes}, MessageType::ok, fds);
  if (!reply) return report(reply.error());
  const int failed = store_handle(*reply, code);
  if (failed == 0 && context->recorder) context->recorder->code_loaded(*code, image, bytes);
  return failed;
}

int register_kernel(eclip_context* context, const KernelRegister& request, std::uint32_t* kernel) {
  if (context == nullptr || kernel == nullptr)
    return report(EINVAL, "the context or the place for the handle is NULL");
  if (request.offset % 64 != 0)
    return report(EINVAL, "kernel offset " + std::to_string(request.offset) +
                              " is not a multiple of 64, as a kernel descriptor's must be");
  const auto reply =
      context->control.request(MessageType::kernel_register, request, MessageType::ok);
  if (!reply) return report(reply.error());
  const int failed = store_handle(*reply, kernel);
  if (failed == 0 && context->recorder)
    context->recorder->kernel_registered(*kernel, request.code, request.offset);
  return failed;
}

}  // namespace
}  // namespace eclip

int eclip_code_load(eclip_context* context, const void* image, uint64_t bytes, uint32_t* code) {
  return eclip::guarded([&] { return eclip::load(context, image, bytes, code); });
}

int eclip_kernel_register(eclip_context* context, uint32_t code, uint64_t offset,
                          uint32_t kernarg_bytes, uint32_t* kernel) {
  return eclip::guarded([&] {
    const eclip::KernelRegister request{
        .code = code, .kernarg_bytes = kernarg_bytes, .offset = offset};
    return eclip::register_kernel(context, request, kernel);
  });
}
