#include "tools/kfdsim/page_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "tools/kfdsim/backing_memory.h"

namespace eclip::kfdsim {

void PageStore::read(std::uint64_t node, std::uint64_t offset, std::span<std::byte> to) const {
  const auto found = nodes_.find(node);
  std::size_t done = 0;
  if (found != nodes_.end() && found->second.file) {
    const ssize_t size =
        ::pread(found->second.file.get(), to.data(), to.size(), static_cast<off_t>(offset));
    if (size > 0) done = static_cast<std::size_t>(size);
  }
  std::ranges::fill(to.subspan(done), std::byte{});
}

int PageStore::write(std::uint64_t node, std::uint64_t offset, std::span<const std::byte> from) {
  UniqueFd& file = nodes_[node].file;
  if (!file) {
    file.reset(::memfd_create("kfdsim-pages", MFD_CLOEXEC));
    if (!file || ::ftruncate(file.get(), static_cast<off_t>(BackingMemory::size_bytes)) != 0) {
      const int error = errno;
      file.reset();
      return error;
    }
  }
  while (!from.empty()) {
    const ssize_t size = ::pwrite(file.get(), from.data(), from.size(), static_cast<off_t>(offset));
    if (size <= 0) return size == 0 ? EIO : errno;
    from = from.subspan(static_cast<std::size_t>(size));
    offset += static_cast<std::uint64_t>(size);
  }
  return 0;
}

int PageStore::punch(std::uint64_t node, std::uint64_t offset, std::uint64_t bytes) {
  const auto found = nodes_.find(node);
  if (found == nodes_.end() || !found->second.file) return 0;
  const int done = ::fallocate(found->second.file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               static_cast<off_t>(offset), static_cast<off_t>(bytes));
  return done == 0 ? 0 : errno;
}

void PageStore::owner_opened(std::uint64_t node) {
  nodes_[node].owned = true;
}

void PageStore::owner_closed(std::uint64_t node) {
  nodes_[node].owned = false;
}

void PageStore::forgotten(std::uint64_t node) {
  const auto found = nodes_.find(node);
  if (found != nodes_.end() && !found->second.owned) nodes_.erase(found);
}

}  // namespace eclip::kfdsim
