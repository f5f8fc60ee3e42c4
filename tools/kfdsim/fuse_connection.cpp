#include "tools/kfdsim/fuse_connection.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace eclip::kfdsim {
namespace {

constexpr std::uint32_t max_write_bytes = 4096;
constexpr std::size_t buffer_bytes = 64 * 1024;
// INIT is queued by mount(2) itself, so a missing one is a kernel fault; still, never hang on it.
constexpr int init_timeout_ms = 5000;

void send(int fd, std::uint64_t unique, int error, std::span<const iovec> body) {
  fuse_out_header header{};
  header.unique = unique;
  header.error = error;
  std::array<iovec, 4> parts{};
  std::size_t count = 0;
  parts.at(count++) = {&header, sizeof header};
  std::size_t length = sizeof header;
  for (const iovec& part : body) {
    length += part.iov_len;
    parts.at(count++) = part;
  }
  header.len = static_cast<std::uint32_t>(length);
  // A refused reply (ENOENT) means that the requester is gone; nobody is left to be told.
  [[maybe_unused]] const ssize_t sent = ::writev(fd, parts.data(), static_cast<int>(count));
}

}  // namespace

Result<void> check_passthrough_offered(const fuse_init_in& init) {
  const bool extended = (init.flags & FUSE_INIT_EXT) != 0;
  if (extended && (init.flags2 & passthrough_flag2) != 0) return {};
  return fail(Errc::unsupported,
              fmt::format("this kernel's FUSE (protocol {}.{}) has no passthrough: run a Linux 6.9 "
                          "or later that was built with CONFIG_FUSE_PASSTHROUGH=y",
                          init.major, init.minor));
}

Result<UniqueFd> FuseConnection::open_device(const std::filesystem::path& device) {
  UniqueFd fd(::open(device.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (fd) return fd;
  const int error = errno;
  if (error == EACCES || error == EPERM) {
    return fail_errno(error, fmt::format("cannot open {}: run kfdsim as root, and in a container "
                                         "allow this device",
                                         device.string()));
  }
  return fail_errno(error, fmt::format("cannot open {}: load the fuse module (modprobe fuse), or "
                                       "give the container this device",
                                       device.string()));
}

FuseConnection::FuseConnection(UniqueFd device)
    : device_(std::move(device)), buffer_(buffer_bytes) {}

Result<FuseConnection> FuseConnection::mount(UniqueFd device,
                                             const std::filesystem::path& directory) {
  const std::string options =
      fmt::format("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.get());
  if (::mount("kfdsim", directory.c_str(), "fuse.kfdsim", MS_NOSUID | MS_NODEV, options.c_str()) !=
      0) {
    return fail_errno(errno, fmt::format("cannot mount a FUSE file system on {}: check that the "
                                         "kernel has CONFIG_FUSE_FS and that no security policy "
                                         "forbids mounts",
                                         directory.string()));
  }
  FuseConnection connection(std::move(device));
  if (auto done = connection.handshake(); !done) {
    return tl::unexpected<Error>(std::move(done.error()));
  }
  return connection;
}

Result<void> FuseConnection::handshake() {
  pollfd readable{device_.get(), POLLIN, 0};
  ::poll(&readable, 1, init_timeout_ms);
  auto request = next();
  if (!request) return tl::unexpected<Error>(std::move(request.error()));
  if (!request->has_value() || request->value().header.opcode != FUSE_INIT) {
    return fail(Errc::unsupported, "the kernel did not begin the FUSE connection with INIT");
  }
  const auto init = request->value().as<fuse_init_in>();
  if (auto offered = check_passthrough_offered(init); !offered) return offered;

  FuseInitReply answer{};
  answer.major = FUSE_KERNEL_VERSION;
  answer.minor = passthrough_minor;
  answer.max_readahead = init.max_readahead;
  answer.flags = FUSE_INIT_EXT;
  answer.flags2 = passthrough_flag2;
  answer.max_write = max_write_bytes;
  answer.time_gran = 1;
  answer.max_stack_depth = 1;
  reply_object(request->value().header.unique, answer);

  const UniqueFd probe(::memfd_create("kfdsim-probe", MFD_CLOEXEC));
  if (!probe) return fail_errno(errno, "cannot create a memfd");
  auto id = open_backing(probe.get());
  if (!id) return tl::unexpected<Error>(std::move(id.error()));
  close_backing(*id);
  return {};
}

Result<std::optional<FuseRequest>> FuseConnection::next() {
  while (true) {
    const ssize_t size = ::read(device_.get(), buffer_.data(), buffer_.size());
    if (size >= static_cast<ssize_t>(sizeof(fuse_in_header))) {
      FuseRequest request{};
      std::memcpy(&request.header, buffer_.data(), sizeof request.header);
      request.body = std::span<const std::byte>(buffer_).subspan(
          sizeof request.header, static_cast<std::size_t>(size) - sizeof request.header);
      return request;
    }
    if (size >= 0) return fail(Errc::malformed, "the kernel sent a truncated FUSE request");
    if (errno == EAGAIN) return std::nullopt;
    // ENOENT: the request was interrupted before it was read.
    if (errno == EINTR || errno == ENOENT) continue;
    return fail(Errc::gone, fmt::format("the FUSE connection ended: {}", std::strerror(errno)));
  }
}

void FuseConnection::reply(std::uint64_t unique, std::span<const std::byte> body) const {
  const iovec part{const_cast<std::byte*>(body.data()), body.size()};
  send(device_.get(), unique, 0, {&part, 1});
}

void FuseConnection::reply_errno(std::uint64_t unique, int errno_value) const {
  send(device_.get(), unique, -errno_value, {});
}

void FuseConnection::reply_ioctl(std::uint64_t unique, int result,
                                 std::span<const std::byte> out) const {
  fuse_ioctl_out answer{};
  answer.result = result;
  const std::array<iovec, 2> parts{iovec{&answer, sizeof answer},
                                   iovec{const_cast<std::byte*>(out.data()), out.size()}};
  send(device_.get(), unique, 0, parts);
}

Result<std::int32_t> FuseConnection::open_backing(int fd) const {
  FuseBackingMap map{};
  map.fd = fd;
  const int id = ::ioctl(device_.get(), ioctl_backing_open, &map);
  if (id > 0) return id;
  return fail_errno(errno,
                    "the kernel refuses a FUSE passthrough file: run kfdsim as root "
                    "(CAP_SYS_ADMIN) on a Linux 6.9 or later with CONFIG_FUSE_PASSTHROUGH=y");
}

void FuseConnection::close_backing(std::int32_t id) const {
  auto argument = static_cast<std::uint32_t>(id);
  ::ioctl(device_.get(), ioctl_backing_close, &argument);
}

}  // namespace eclip::kfdsim
