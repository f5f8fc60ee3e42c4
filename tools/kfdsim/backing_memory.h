// The pages behind one client process's maps of /dev/kfd and the render node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

#include "ipc/result.h"
#include "ipc/unique_fd.h"

namespace eclip::kfdsim {

inline constexpr std::uint64_t page_bytes = 4096;

[[nodiscard]] constexpr std::uint64_t page_align(std::uint64_t bytes) {
  return (bytes + page_bytes - 1) & ~(page_bytes - 1);
}

/// A sparse file, or two, of fixed size and this process's map of it. The client's maps are maps of
/// the same file, so both see the same pages. Offsets in it are the mmap offsets that clients use.
/// Some places are fixed, the rest is allocated first fit.
class BackingMemory {
 public:
  /// libhsakmt takes the doorbell page's mmap offset from the upper 32 bits, so that it must be a
  /// multiple of 4 GiB (and nothing else may lie below the next one).
  static constexpr std::uint64_t doorbell_offset = 1ULL << 32;
  static constexpr std::uint64_t doorbell_bytes = 8192;
  static constexpr std::uint64_t mmio_offset = 2ULL << 32;
  static constexpr std::uint64_t first_buffer = 4ULL << 32;
  static constexpr std::uint64_t size_bytes = 1ULL << 38;

  /// A sealed memfd, which stands behind both device files by FUSE passthrough.
  static Result<BackingMemory> create();
  /// The client's device files themselves: libhsakmt maps doorbells and MMIO from kfd, buffers from
  /// the render node.
  static Result<BackingMemory> of_devices(UniqueFd kfd, UniqueFd render);
  ~BackingMemory();
  BackingMemory(BackingMemory&& other) noexcept;
  BackingMemory& operator=(BackingMemory&&) = delete;

  /// The memfd.
  [[nodiscard]] int fd() const { return low_.get(); }
  /// The byte at `offset`, as this process sees it. Pages that nobody touched read as zeros.
  [[nodiscard]] std::byte* at(std::uint64_t offset) const { return base_ + offset; }

  /// A range of whole pages, zeroed; nullopt when there is none left.
  std::optional<std::uint64_t> allocate(std::uint64_t bytes);
  /// Gives a range back, and its pages to the system.
  void release(std::uint64_t offset, std::uint64_t bytes);
  /// Zeroes a fixed place.
  void clear(std::uint64_t offset, std::uint64_t bytes);
  /// Zeroes everything, and gives all pages to the system.
  void clear_all();

 private:
  BackingMemory(UniqueFd low, UniqueFd high, std::byte* base);

  UniqueFd low_;   // below first_buffer
  UniqueFd high_;  // from there on; none: low_ has it too
  std::byte* base_;
  std::map<std::uint64_t, std::uint64_t> free_;  // offset -> bytes, never adjacent
};

/// Lets this process survive the end of the page server: from then on, pages that are not in memory
/// cannot be had, and are zeros here instead of a SIGBUS.
void survive_lost_pages();

}  // namespace eclip::kfdsim
