// A small user of libhsakmt for the tests: memory, queues, signals and packets, nothing simulated.
#pragma once

#include <hsa/amd_hsa_signal.h>
#include <hsa/hsa.h>
#include <hsakmt.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tests/fake/eventually.h"
#include "tools/replay/replay_kernel.h"

namespace eclip::test {

inline constexpr std::chrono::seconds deadline{20};

/// Memory that the GPU can reach, at the same address as the CPU unless it is a second map.
class GpuBuffer {
 public:
  enum class Kind { system, paged, vram, registered };

  /// Registered memory is a MAP_SHARED map of a sealed memfd, or of private pages.
  GpuBuffer(Kind kind, std::size_t bytes, bool shared_pages = true);
  ~GpuBuffer();
  GpuBuffer(const GpuBuffer&) = delete;
  GpuBuffer& operator=(const GpuBuffer&) = delete;

  [[nodiscard]] std::byte* cpu() const { return cpu_; }
  [[nodiscard]] std::uint64_t gpu() const { return gpu_; }
  template <class T>
  [[nodiscard]] T* as(std::size_t offset = 0) const {
    return reinterpret_cast<T*>(cpu_ + offset);
  }

 private:
  Kind kind_;
  std::size_t bytes_;
  std::byte* cpu_ = nullptr;
  std::uint64_t gpu_ = 0;
};

/// A completion signal in GPU memory.
class GpuSignal {
 public:
  explicit GpuSignal(std::int64_t value = 1, GpuBuffer::Kind kind = GpuBuffer::Kind::system,
                     bool shared_pages = true);

  [[nodiscard]] std::uint64_t handle() const { return memory_.gpu(); }
  [[nodiscard]] amd_signal_t& raw() const { return *memory_.as<amd_signal_t>(); }
  [[nodiscard]] std::int64_t value() const;
  void set(std::int64_t value);
  /// Whether the signal reached 0 before the deadline.
  [[nodiscard]] bool wait() const;
  /// Device time between the packet's start and end.
  [[nodiscard]] double device_us() const;

 private:
  GpuBuffer memory_;
};

/// An AQL queue.
class GpuQueue {
 public:
  explicit GpuQueue(std::uint32_t packets = 64, GpuBuffer::Kind ring = GpuBuffer::Kind::system);
  ~GpuQueue();
  GpuQueue(const GpuQueue&) = delete;
  GpuQueue& operator=(const GpuQueue&) = delete;

  [[nodiscard]] HSAKMT_STATUS set_cu_mask(std::span<std::uint32_t> words) const;
  /// The lowest `cus` bits.
  [[nodiscard]] HSAKMT_STATUS use_cus(std::uint32_t cus) const;

  void dispatch(std::uint64_t kernel_object, const GpuSignal* signal, std::uint64_t kernarg = 0,
                bool barrier_bit = true);
  void barrier(bool any, std::span<const std::uint64_t> dependencies, const GpuSignal* signal,
               bool barrier_bit = true);
  /// Any 64 bytes; the header (16 bits) is written last, then the doorbell rings.
  void submit(const void* packet, std::uint16_t header);

  /// Takes the ring from the GPU; its address.
  std::uint64_t unmap_ring();

  /// Rings the doorbell for the next packet before it is written.
  void announce_next() const;

  [[nodiscard]] std::uint64_t read_index() const;
  [[nodiscard]] std::uint64_t write_index() const { return write_index_; }
  [[nodiscard]] HSA_QUEUEID id() const { return resource_.QueueId; }
  [[nodiscard]] std::uint64_t doorbell_address() const { return resource_.QueueDoorBell; }

 private:
  GpuBuffer ring_;
  GpuBuffer pointers_;
  std::uint32_t capacity_;
  HsaQueueResource resource_{};
  std::uint64_t write_index_ = 0;
};

/// A loaded image of replay kernels.
class LoadedKernels {
 public:
  explicit LoadedKernels(std::span<const replay::ReplayKernel> kernels);
  [[nodiscard]] std::uint64_t object(std::size_t index) const {
    return memory_->gpu() + offsets_.at(index);
  }

 private:
  std::unique_ptr<GpuBuffer> memory_;
  std::vector<std::uint32_t> offsets_;
};

/// A kernel with t(c) in two points; many workgroups.
replay::ReplayKernel kernel_of(double us_on_15_cus, double us_on_60_cus, bool mixes = false);

/// Opens the KFD, once per process; the GPU's node.
HSAuint32 gpu_node();

/// One line of /dev/kfdsim/fs/ioctls: the column's value for a process (0: all).
std::optional<std::uint64_t> ioctl_count(pid_t pid, const std::string& column);

}  // namespace eclip::test
