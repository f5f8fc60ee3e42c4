// Memory of a client process that the client registered with the driver ("userptr").
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace eclip::kfdsim {

/// Copies between this process and `address` of process `pid`; false when a byte is not accessible.
bool read_process(pid_t pid, std::uint64_t address, std::span<std::byte> to);
bool write_process(pid_t pid, std::uint64_t address, std::span<const std::byte> from);

/// A second map, in this process, of pages that a client has mapped shared.
class SharedUserPages {
 public:
  SharedUserPages() = default;
  /// Maps [address, address + bytes) of `pid` when it lies in one shared map of memory that cannot
  /// shrink: a memfd with F_SEAL_SHRINK, or anonymous shared memory. Otherwise is empty: other
  /// files could be truncated, which would crash the reader.
  SharedUserPages(pid_t pid, std::uint64_t address, std::uint64_t bytes);
  ~SharedUserPages();
  SharedUserPages(SharedUserPages&& other) noexcept;
  SharedUserPages& operator=(SharedUserPages&& other) noexcept;

  /// Null when empty.
  [[nodiscard]] std::byte* base() const { return base_; }

 private:
  std::byte* base_ = nullptr;
  std::uint64_t bytes_ = 0;
};

}  // namespace eclip::kfdsim
