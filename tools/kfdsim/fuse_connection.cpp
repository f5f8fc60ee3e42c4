#include "tools/kfdsim/fuse_connection.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "tools/kfdsim/device_nodes.h"

namespace eclip::kfdsim {
namespace {

// INIT is queued by mount(2) itself, so a missing one is a kernel fault; still, never hang on it.
constexpr int init_timeout_ms = 5000;

/// The kernel writes dirty pages of a FUSE file system back early and slows their writers down, so
/// that a slow server cannot fill the memory. The page server is a copy in memory: where this user
/// may, let the limits of all file systems together be the only ones.
void lift_dirty_limits(int directory) {
  struct stat status {};
  if (::fstat(directory, &status) != 0) return;
  const std::string device =
      fmt::format("/sys/class/bdi/{}:{}/", ::major(status.st_dev), ::minor(status.st_dev));
  std::ofstream(device + "max_ratio") << 100;
  std::ofstream(device + "strict_limit") << 0;  // Linux 6.2 or later
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
    return fail_errno(error, fmt::format("cannot open {}: let everybody open it, as udev does "
                                         "(chmod 0666 {}), or run kfdsim as root; in a container, "
                                         "allow this device",
                                         device.string(), device.string()));
  }
  return fail_errno(error, fmt::format("cannot open {}: load the fuse module (modprobe fuse), or "
                                       "give the container this device",
                                       device.string()));
}

FuseConnection::FuseConnection(UniqueFd device)
    : device_(std::move(device)), buffer_(fuse_buffer_bytes) {}

Result<FuseConnection> FuseConnection::mount(UniqueFd device,
                                             const std::filesystem::path& directory,
                                             std::optional<Mapping> wanted) {
  const std::string options = fmt::format("fd={},rootmode=40000,user_id={},group_id={},allow_other",
                                          device.get(), ::getuid(), ::getgid());
  if (::mount("kfdsim", directory.c_str(), "fuse.kfdsim", MS_NOSUID | MS_NODEV, options.c_str()) !=
      0) {
    return fail_errno(errno, fmt::format("cannot mount a FUSE file system on {}: check that the "
                                         "kernel has CONFIG_FUSE_FS and that no security policy "
                                         "forbids mounts",
                                         directory.string()));
  }
  FuseConnection connection(std::move(device));
  const auto mapping = connection.handshake(wanted);
  if (!mapping) return tl::unexpected<Error>(mapping.error());
  if (*mapping == Mapping::page_cache) {
    if (auto done = connection.start_page_server(directory); !done) {
      return tl::unexpected<Error>(std::move(done.error()));
    }
  }
  return connection;
}

Result<Mapping> FuseConnection::handshake(std::optional<Mapping> wanted) {
  pollfd readable{device_.get(), POLLIN, 0};
  ::poll(&readable, 1, init_timeout_ms);
  auto request = next();
  if (!request) return tl::unexpected<Error>(std::move(request.error()));
  if (!request->has_value() || request->value().header.opcode != FUSE_INIT) {
    return fail(Errc::unsupported, "the kernel did not begin the FUSE connection with INIT");
  }
  const auto init = request->value().as<fuse_init_in>();
  auto offered = check_passthrough_offered(init);
  if (!offered && wanted == Mapping::passthrough) {
    return tl::unexpected<Error>(std::move(offered.error()));
  }
  const bool passthrough = offered && wanted != Mapping::page_cache;

  FuseInitReply answer{};
  answer.major = FUSE_KERNEL_VERSION;
  answer.minor = passthrough_minor;
  answer.max_readahead = init.max_readahead;
  answer.flags = init.flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES);
  if (passthrough) {
    answer.flags |= FUSE_INIT_EXT;
    answer.flags2 = passthrough_flag2;
    answer.max_stack_depth = 1;
  }
  answer.max_write = max_transfer_bytes;
  answer.time_gran = 1;
  reply_object(request->value().header.unique, answer);
  if (!passthrough) return Mapping::page_cache;

  const UniqueFd probe(::memfd_create("kfdsim-probe", MFD_CLOEXEC));
  if (!probe) return fail_errno(errno, "cannot create a memfd");
  auto id = open_backing(probe.get());
  if (id) {
    close_backing(*id);
    return Mapping::passthrough;
  }
  if (wanted == Mapping::passthrough) return tl::unexpected<Error>(std::move(id.error()));
  return Mapping::page_cache;  // offered by the kernel, but not to this user
}

Result<void> FuseConnection::start_page_server(const std::filesystem::path& directory) {
  auto server = PageServer::start(std::move(device_));
  if (!server) return tl::unexpected<Error>(std::move(server.error()));
  page_server_.emplace(std::move(*server));
  device_ = page_server_->take_link();
  const auto place = directory / memory_directory_name;
  memory_directory_.reset(::open(place.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (memory_directory_) {
    lift_dirty_limits(memory_directory_.get());
    return {};
  }
  return fail_errno(errno, fmt::format("cannot open {}, which kfdsim serves", place.string()));
}

Result<UniqueFd> FuseConnection::open_device_file(std::uint64_t node) const {
  const std::string name = std::to_string(node);
  UniqueFd file(::openat(memory_directory_.get(), name.c_str(), O_RDWR | O_CLOEXEC));
  // The kernel would remember the name, and for it the node and all its pages.
  if (file && ::unlinkat(memory_directory_.get(), name.c_str(), 0) == 0) return file;
  return fail_errno(errno, "cannot open a client's device file");
}

Result<std::optional<FuseRequest>> FuseConnection::next() {
  while (true) {
    const ssize_t size = ::read(device_.get(), buffer_.data(), buffer_.size());
    if (size >= static_cast<ssize_t>(sizeof(fuse_in_header))) {
      return FuseRequest::of(
          std::span<const std::byte>(buffer_).first(static_cast<std::size_t>(size)));
    }
    // A reset instead of an end: it died with something of ours unread.
    if (page_server_ && (size == 0 || (size < 0 && errno == ECONNRESET))) {
      return fail(Errc::gone, "the process that serves pages has ended: the GPU is gone");
    }
    if (size >= 0) return fail(Errc::malformed, "the kernel sent a truncated FUSE request");
    if (errno == EAGAIN) return std::nullopt;
    // ENOENT: the request was interrupted before it was read.
    if (errno == EINTR || errno == ENOENT) continue;
    return fail(Errc::gone, fmt::format("the FUSE connection ended: {}", std::strerror(errno)));
  }
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
