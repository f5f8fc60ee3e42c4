#include "tools/kfdsim/backing_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <utility>

namespace eclip::kfdsim {

Result<BackingMemory> BackingMemory::create() {
  UniqueFd fd(::memfd_create("kfdsim", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno(errno, "cannot create a memfd for a client's GPU memory");
  if (::ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0) {
    return fail_errno(errno,
                      "cannot size a client's GPU memory: raise the file size limit "
                      "(ulimit -f unlimited)");
  }
  // Without the seals a client that truncates its /dev/kfd would crash the simulator.
  ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  void* base =
      ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
  if (base == MAP_FAILED) {
    return fail_errno(errno,
                      "cannot map a client's GPU memory: raise the address space limit "
                      "(ulimit -v unlimited)");
  }
  return BackingMemory(std::move(fd), static_cast<std::byte*>(base));
}

BackingMemory::BackingMemory(UniqueFd fd, std::byte* base) : fd_(std::move(fd)), base_(base) {
  free_.emplace(first_buffer, size_bytes - first_buffer);
}

BackingMemory::BackingMemory(BackingMemory&& other) noexcept
    : fd_(std::move(other.fd_)),
      base_(std::exchange(other.base_, nullptr)),
      free_(std::move(other.free_)) {}

BackingMemory::~BackingMemory() {
  if (base_ != nullptr) ::munmap(base_, size_bytes);
}

std::optional<std::uint64_t> BackingMemory::allocate(std::uint64_t bytes) {
  bytes = page_align(bytes);
  for (auto range = free_.begin(); range != free_.end(); ++range) {
    if (range->second < bytes) continue;
    const std::uint64_t offset = range->first;
    const std::uint64_t rest = range->second - bytes;
    free_.erase(range);
    if (rest != 0) free_.emplace(offset + bytes, rest);
    return offset;
  }
  return std::nullopt;
}

void BackingMemory::release(std::uint64_t offset, std::uint64_t bytes) {
  bytes = page_align(bytes);
  clear(offset, bytes);
  auto [range, inserted] = free_.emplace(offset, bytes);
  const auto next = std::next(range);
  if (next != free_.end() && range->first + range->second == next->first) {
    range->second += next->second;
    free_.erase(next);
  }
  if (range == free_.begin()) return;
  const auto previous = std::prev(range);
  if (previous->first + previous->second == range->first) {
    previous->second += range->second;
    free_.erase(range);
  }
}

void BackingMemory::clear(std::uint64_t offset, std::uint64_t bytes) {
  ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
              static_cast<off_t>(bytes));
}

}  // namespace eclip::kfdsim
