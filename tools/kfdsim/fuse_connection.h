// One end of a FUSE mount, spoken raw: libfuse of Debian 12 cannot negotiate passthrough.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "ipc/result.h"
#include "ipc/unique_fd.h"
#include "tools/kfdsim/fuse_protocol.h"

namespace eclip::kfdsim {

/// One request of the kernel. Views into the buffer that it was read into.
struct FuseRequest {
  fuse_in_header header;
  std::span<const std::byte> body;

  /// The body's start as a T; zero-extended when the kernel sent less.
  template <class T>
  [[nodiscard]] T as() const {
    T value{};
    const std::size_t size = body.size() < sizeof(T) ? body.size() : sizeof(T);
    __builtin_memcpy(&value, body.data(), size);
    return value;
  }
};

/// Errc::unsupported, with the remedy, unless the kernel's INIT offers passthrough.
Result<void> check_passthrough_offered(const fuse_init_in& init);

/// The mounted connection. Replies may be sent from several threads.
class FuseConnection {
 public:
  /// Opens the device; the error tells what to do when it is missing or may not be opened.
  static Result<UniqueFd> open_device(const std::filesystem::path& device);
  /// Mounts a file system on `directory` in the caller's mount namespace, answers INIT and proves
  /// with a throw-away file that passthrough works.
  static Result<FuseConnection> mount(UniqueFd device, const std::filesystem::path& directory);

  /// The next request, nullopt when there is none now. Errc::gone when unmounted or aborted.
  Result<std::optional<FuseRequest>> next();
  [[nodiscard]] int fd() const { return device_.get(); }

  void reply(std::uint64_t unique, std::span<const std::byte> body) const;
  template <class T>
  void reply_object(std::uint64_t unique, const T& body) const {
    reply(unique, std::as_bytes(std::span<const T, 1>(&body, 1)));
  }
  /// Fails the request with a (positive) errno value; 0 is a success without a body.
  void reply_errno(std::uint64_t unique, int errno_value) const;
  /// Completes an IOCTL with its result (0 or -errno) and the bytes for the caller's argument.
  void reply_ioctl(std::uint64_t unique, int result, std::span<const std::byte> out) const;

  /// Lets opens be backed by the file `fd`; the id is for FuseOpenReply.
  [[nodiscard]] Result<std::int32_t> open_backing(int fd) const;
  void close_backing(std::int32_t id) const;

 private:
  explicit FuseConnection(UniqueFd device);
  Result<void> handshake();

  UniqueFd device_;
  std::vector<std::byte> buffer_;
};

}  // namespace eclip::kfdsim
