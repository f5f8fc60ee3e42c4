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
#include "tools/kfdsim/fuse_replies.h"
#include "tools/kfdsim/page_server.h"

namespace eclip::kfdsim {

/// How kfdsim and its clients come to share pages.
enum class Mapping : std::uint8_t {
  passthrough,  ///< the kernel maps a memfd of kfdsim's in place of the FUSE file
  page_cache    ///< both map the FUSE file, whose pages a PageServer reads and writes
};

/// Errc::unsupported, with the remedy, unless the kernel's INIT offers passthrough.
Result<void> check_passthrough_offered(const fuse_init_in& init);

/// The mounted connection, or with page-cache mapping the link to its PageServer. Replies may be
/// sent from several threads.
class FuseConnection {
 public:
  /// Opens the device; the error tells what to do when it is missing or may not be opened.
  static Result<UniqueFd> open_device(const std::filesystem::path& device);
  /// Mounts a file system on `directory` in the caller's mount namespace and answers INIT. Without
  /// a `wanted` mapping it takes passthrough where a throw-away file proves that it works. With
  /// page-cache mapping it forks: the caller must have one thread.
  static Result<FuseConnection> mount(UniqueFd device, const std::filesystem::path& directory,
                                      std::optional<Mapping> wanted);
  [[nodiscard]] Mapping mapping() const {
    return page_server_ ? Mapping::page_cache : Mapping::passthrough;
  }

  /// The next request, nullopt when there is none now. Errc::gone when unmounted or aborted.
  Result<std::optional<FuseRequest>> next();
  [[nodiscard]] int fd() const { return device_.get(); }

  void reply(std::uint64_t unique, std::span<const std::byte> body) const {
    kfdsim::reply(device_.get(), unique, body);
  }
  template <class T>
  void reply_object(std::uint64_t unique, const T& body) const {
    kfdsim::reply_object(device_.get(), unique, body);
  }
  void reply_errno(std::uint64_t unique, int errno_value) const {
    kfdsim::reply_errno(device_.get(), unique, errno_value);
  }
  void reply_ioctl(std::uint64_t unique, int result, std::span<const std::byte> out) const {
    kfdsim::reply_ioctl(device_.get(), unique, result, out);
  }

  /// Lets opens be backed by the file `fd`; the id is for FuseOpenReply.
  [[nodiscard]] Result<std::int32_t> open_backing(int fd) const;
  void close_backing(std::int32_t id) const;

  /// With page-cache mapping: the device file of a client, for this process to map.
  [[nodiscard]] Result<UniqueFd> open_device_file(std::uint64_t node) const;

 private:
  explicit FuseConnection(UniqueFd device);
  /// The mapping that it agreed on with the kernel.
  Result<Mapping> handshake(std::optional<Mapping> wanted);
  Result<void> start_page_server(const std::filesystem::path& directory);

  std::optional<PageServer> page_server_;  // ends when device_, the link to it, is closed
  UniqueFd device_;
  UniqueFd memory_directory_;
  std::vector<std::byte> buffer_;
};

}  // namespace eclip::kfdsim
