// Memory of a client process that the client registered with the driver ("userptr").
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "ipc/unique_fd.h"

namespace eclip::kfdsim {

/// Copies between this process and `address` of process `pid`; false when a byte is not accessible.
bool read_process(pid_t pid, std::uint64_t address, std::span<std::byte> to);
bool write_process(pid_t pid, std::uint64_t address, std::span<const std::byte> from);

/// The address space that a process has now: it ends with the process, or when that calls exec.
class UserAddressSpace {
 public:
  explicit UserAddressSpace(pid_t pid);
  [[nodiscard]] bool lives() const;

 private:
  UniqueFd memory_;  // /proc/PID/mem, which stays with the address space that it was opened for
};

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
