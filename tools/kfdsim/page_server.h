// The process that answers the kernel's page reads and writes where FUSE has no passthrough.
#pragma once

#include <sys/types.h>

#include "ipc/result.h"
#include "ipc/unique_fd.h"

namespace eclip::kfdsim {

/// Without passthrough, kfdsim and its clients share the pages of a device through the page cache
/// of the FUSE file. A process that maps a file which it serves itself would wait for itself in the
/// kernel, unkillable. So a process of its own holds /dev/fuse, the only one that does: when it
/// ends, however it ends, the kernel aborts the connection and everybody who waits goes on. It maps
/// nothing and never waits for kfdsim. It answers all that concerns pages, and passes the rest
/// (names, opens, ioctls) on.
class PageServer {
 public:
  /// Forks; the caller must have one thread, which must stay until the end, and FUSE's handshake
  /// must be over. Afterwards the caller does not have /dev/fuse any more.
  static Result<PageServer> start(UniqueFd fuse_device);
  /// Waits for the process's end, which comes when the link is closed.
  ~PageServer();
  PageServer(PageServer&& other) noexcept;
  PageServer& operator=(PageServer&&) = delete;

  /// The socket in place of /dev/fuse: a request for each read, a reply for each write, in FUSE's
  /// own form; not blocking.
  UniqueFd take_link() { return std::move(link_); }

 private:
  PageServer(pid_t pid, UniqueFd link) : pid_(pid), link_(std::move(link)) {}

  pid_t pid_;
  UniqueFd link_;
};

}  // namespace eclip::kfdsim
