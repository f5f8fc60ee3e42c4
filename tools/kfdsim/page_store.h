// Where pages of the devices are while the kernel's page cache does not have them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>

#include "ipc/unique_fd.h"

namespace eclip::kfdsim {

/// A sparse memfd for each node, made when the first page is written. Failures are errno values.
class PageStore {
 public:
  /// The bytes at `offset`; zeros where nothing was ever written.
  void read(std::uint64_t node, std::uint64_t offset, std::span<std::byte> to) const;
  int write(std::uint64_t node, std::uint64_t offset, std::span<const std::byte> from);
  /// Makes a range zeros and gives its pages to the system.
  int punch(std::uint64_t node, std::uint64_t offset, std::uint64_t bytes);

  /// kfdsim opens a node when its client appears and closes it after the client's end; descendants
  /// may keep the pages in use a while longer, until the kernel forgets the node.
  void owner_opened(std::uint64_t node);
  void owner_closed(std::uint64_t node);
  void forgotten(std::uint64_t node);

 private:
  struct Node {
    UniqueFd file;
    bool owned = false;
  };
  std::map<std::uint64_t, Node> nodes_;
};

}  // namespace eclip::kfdsim
