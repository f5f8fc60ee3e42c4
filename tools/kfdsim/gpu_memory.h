// What one client process has allocated on the GPU, and its GPU address space.
#pragma once

#include <linux/types.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "tools/kfdsim/backing_memory.h"
#include "tools/kfdsim/user_memory.h"

namespace eclip::kfdsim {

/// Bytes that are left of what all clients share.
struct MemoryBudget {
  std::uint64_t vram_bytes;
  std::uint64_t system_bytes;  ///< GTT and userptr, as the KFD limits them
};

enum class MemoryKind : std::uint8_t { vram, gtt, userptr, doorbell, mmio };

/// The buffers of one process. GPU addresses resolve to this process's map of the backing memory,
/// to a second map of the client's shared pages, or to an address in the client.
/// Failures are errno values, as the KFD returns them.
class GpuMemory {
 public:
  struct Buffer {
    MemoryKind kind = MemoryKind::gtt;
    std::uint64_t gpu_address = 0;
    std::uint64_t bytes = 0;         ///< of memory
    std::uint64_t copies = 1;        ///< AQL ring buffers are mapped twice in a row
    std::uint64_t offset = 0;        ///< in the backing memory
    std::uint64_t user_address = 0;  ///< userptr only
    bool mapped = false;
    SharedUserPages shared;
  };

  /// `limits` is what the process may have itself.
  GpuMemory(pid_t pid, BackingMemory& backing, MemoryBudget& budget, MemoryBudget limits);
  ~GpuMemory();
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;

  /// Allocates what AMDKFD_IOC_ALLOC_MEMORY_OF_GPU asks for; 0 and the buffer's id, or an errno.
  int allocate(std::uint64_t gpu_address, std::uint64_t bytes, std::uint32_t flags,
               std::uint64_t user_address, std::uint32_t& id);
  int free(std::uint32_t id);  ///< EINVAL: unknown; EBUSY: still mapped
  int map(std::uint32_t id);   ///< EINVAL: unknown, or the addresses are taken
  int unmap(std::uint32_t id);
  /// The GPU's own memory that it has, and that it can still have.
  [[nodiscard]] std::uint64_t vram_bytes() const { return vram_bytes_; }
  [[nodiscard]] std::uint64_t vram_bytes_left() const;
  /// The contents of VRAM become zeros.
  void lose_vram();
  [[nodiscard]] const Buffer* find(std::uint32_t id) const;

  /// Copies from and to GPU addresses; false when a byte is not mapped.
  bool read(std::uint64_t address, std::span<std::byte> to) const;
  bool write(std::uint64_t address, std::span<const std::byte> from);
  template <class T>
  [[nodiscard]] std::optional<T> read_as(std::uint64_t address) const {
    T value;
    if (!read(address, std::as_writable_bytes(std::span<T, 1>(&value, 1)))) return std::nullopt;
    return value;
  }
  template <class T>
  bool write_as(std::uint64_t address, const T& value) {
    return write(address, std::as_bytes(std::span<const T, 1>(&value, 1)));
  }
  /// A 64-bit value, aligned; a load with acquire order where the memory is shared.
  [[nodiscard]] std::optional<std::uint64_t> load(std::uint64_t address) const;
  /// The same for a store with release order.
  bool store(std::uint64_t address, std::uint64_t value);
  /// Whether all of a range is mapped.
  [[nodiscard]] bool mapped(std::uint64_t address, std::uint64_t bytes) const;
  /// Where this process sees a range itself; null when it lies in several buffers or in memory that
  /// only the client maps, or is not mapped.
  [[nodiscard]] std::byte* direct(std::uint64_t address, std::uint64_t bytes) const;
  /// Whether the byte at `address` is in the GPU's own memory.
  [[nodiscard]] bool is_vram(std::uint64_t address) const;
  /// Adds to a 64-bit value: atomically with respect to the client, except in private
  /// user memory, which this process can only read and write.
  bool add(std::uint64_t address, std::int64_t addend);

 private:
  /// A run of bytes that lies in one buffer.
  struct Run {
    std::byte* host = nullptr;       ///< where this process sees it; null: only through the client
    std::uint64_t user_address = 0;  ///< valid when host is null
    std::uint64_t bytes = 0;
  };
  [[nodiscard]] std::optional<Run> resolve(std::uint64_t address, std::uint64_t bytes) const;
  [[nodiscard]] std::optional<Run> resolve_word(std::uint64_t address) const;
  void give_back(Buffer& buffer);

  pid_t pid_;
  BackingMemory& backing_;
  MemoryBudget& budget_;
  MemoryBudget own_budget_;
  std::map<std::uint32_t, Buffer> buffers_;
  std::map<std::uint64_t, std::uint32_t> mapped_;  // GPU address -> buffer
  std::uint32_t next_id_ = 1;
  std::uint64_t vram_bytes_ = 0;
};

}  // namespace eclip::kfdsim
