// What the page server does with the kernel's requests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "ipc/unique_fd.h"
#include "tools/kfdsim/client_process.h"
#include "tools/kfdsim/fuse_protocol.h"
#include "tools/kfdsim/page_store.h"

namespace eclip::kfdsim {

/// Answers requests about pages and attributes of device nodes, and those that kfdsim itself
/// causes, since kfdsim cannot serve while it waits for them. Passes all others to kfdsim and its
/// replies back. Never blocks on the link: a reply to a page fault of kfdsim may be next.
///
/// No operation in which the kernel holds a lock that kfdsim may need is passed on: kfdsim opens
/// clients' nodes in a directory of its own, and changes them under their inode's lock.
class PageRequests {
 public:
  PageRequests(UniqueFd device, UniqueFd link, const ClientProcess& kfdsim);

  /// Returns when either side has gone.
  void serve();

 private:
  bool take_request();  ///< false: no more now, or ended_
  bool take_reply();    ///< false: no more now, or ended_
  void handle(const FuseRequest& request, std::span<const std::byte> bytes);
  void handle_device(const FuseRequest& request, std::span<const std::byte> bytes);
  void handle_memory_directory(const FuseRequest& request);
  void open_for_kfdsim(const FuseRequest& request);
  void read(const FuseRequest& request);
  void write(const FuseRequest& request);
  void forget(const FuseRequest& request);
  [[nodiscard]] bool from_kfdsim(const FuseRequest& request) const;

  void pass_on(std::span<const std::byte> bytes);
  void send_waiting();

  UniqueFd device_;
  UniqueFd link_;
  const ClientProcess& kfdsim_;
  PageStore store_;
  std::vector<std::byte> request_buffer_;
  std::vector<std::byte> data_buffer_;
  std::deque<std::vector<std::byte>> waiting_;  // requests that the link had no room for
  bool ended_ = false;
};

}  // namespace eclip::kfdsim
