#include "tools/kfdsim/device_nodes.h"

#include <sys/stat.h>
#include <unistd.h>

#include "tools/kfdsim/backing_memory.h"

namespace eclip::kfdsim {

fuse_attr attributes_of(std::uint64_t node) {
  fuse_attr attributes{};
  attributes.ino = node;
  attributes.nlink = 1;
  // In a user namespace no other user need exist, and files of nobody cannot be written.
  attributes.uid = ::getuid();
  attributes.gid = ::getgid();
  attributes.blksize = static_cast<std::uint32_t>(page_bytes);
  if (node == FUSE_ROOT_ID || node == memory_directory_node) {
    attributes.mode = S_IFDIR | 0755;
  } else if (is_device(node)) {
    // Regular files: a device number would make the kernel look for the driver that is not there.
    attributes.mode = S_IFREG | 0666;
    attributes.size = BackingMemory::size_bytes;
  } else {
    // Without size there is no page to map: when kfdsim looked into a client's memory where such a
    // page is, it would wait for itself. Reads do not ask for the size.
    attributes.mode = S_IFREG | 0444;
    attributes.size = 0;
  }
  return attributes;
}

fuse_entry_out entry_of(std::uint64_t node) {
  fuse_entry_out entry{};
  entry.nodeid = node;
  entry.attr = attributes_of(node);
  entry.attr_valid = attributes_valid_s;
  return entry;
}

fuse_attr_out attribute_reply(std::uint64_t node) {
  fuse_attr_out answer{};
  answer.attr = attributes_of(node);
  answer.attr_valid = attributes_valid_s;
  return answer;
}

}  // namespace eclip::kfdsim
