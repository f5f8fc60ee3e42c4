// One GPU through libhsakmt: memory, queues, clock. All that eclipd asks of the driver goes through
// here.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "daemon/aql_ring.h"
#include "daemon/topology.h"
#include "ipc/cu_mask.h"
#include "ipc/result.h"

namespace eclip::daemon {

/// Memory that the GPU can reach; unmapped and freed with the object.
class GpuMemory {
 public:
  enum class Kind { system, device_local, registered };

  GpuMemory() = default;
  GpuMemory(GpuMemory&& other) noexcept;
  GpuMemory& operator=(GpuMemory&& other) noexcept;
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;
  ~GpuMemory();

  [[nodiscard]] std::uint64_t gpu_address() const { return gpu_address_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  /// What the host can read and write; null for device-local memory.
  [[nodiscard]] std::byte* host() const { return host_; }

 private:
  friend class KfdDevice;
  void release();

  Kind kind_ = Kind::system;
  void* thunk_address_ = nullptr;  // libhsakmt's name for it; null: holds nothing
  std::byte* host_ = nullptr;
  std::uint64_t gpu_address_ = 0;
  std::uint64_t bytes_ = 0;
};

/// A CU-masked AQL queue of the hardware; destroyed with the object.
class HardwareQueue {
 public:
  ~HardwareQueue();
  HardwareQueue(const HardwareQueue&) = delete;
  HardwareQueue& operator=(const HardwareQueue&) = delete;

  [[nodiscard]] AqlRing& ring() { return *ring_; }
  /// The KFD's queue id as libhsakmt shows it.
  [[nodiscard]] std::uint64_t id() const { return id_; }

 private:
  friend class KfdDevice;
  HardwareQueue() = default;

  GpuMemory packets_;
  GpuMemory control_;  // amd_queue_t
  std::uint64_t id_ = 0;
  bool created_ = false;
  std::optional<AqlRing> ring_;
};

/// The GPU's clock counter and the host's clock, read together.
struct ClockSample {
  std::uint64_t gpu_ticks;
  std::chrono::nanoseconds host;  ///< CLOCK_MONOTONIC_RAW
};

/// An opened GPU. There is at most one at a time (libhsakmt keeps its state for the process).
/// Methods may be called from one thread at a time.
class KfdDevice {
 public:
  /// Opens /dev/kfd and the GPU at a topology node (none: the first). Errc::device_failed with what
  /// is missing, Errc::not_found.
  static Result<std::unique_ptr<KfdDevice>> open(std::optional<std::uint32_t> node);
  ~KfdDevice();
  KfdDevice(const KfdDevice&) = delete;
  KfdDevice& operator=(const KfdDevice&) = delete;

  [[nodiscard]] const GpuTopology& topology() const { return topology_; }
  /// Frequency of the clock counter.
  [[nodiscard]] std::uint64_t counter_hz() const { return counter_hz_; }

  /// System memory (GTT) that host and GPU share, zeroed; `bytes` is rounded up to pages.
  Result<GpuMemory> allocate_system(std::uint64_t bytes);
  /// VRAM without a host mapping.
  Result<GpuMemory> allocate_device_local(std::uint64_t bytes);
  /// Makes the process's own, page-aligned memory known to the GPU. It must outlive the result.
  Result<GpuMemory> register_host(std::span<std::byte> memory);

  /// A queue with `packet_count` slots (a power of two) on the mask's CUs.
  Result<std::unique_ptr<HardwareQueue>> create_queue(std::uint32_t packet_count,
                                                      const CuMask& mask);
  Result<ClockSample> sample_clock();

  /// Queue creations, destructions and mask changes that this process has asked of the driver.
  static std::uint64_t queue_ioctls();

 private:
  KfdDevice() = default;
  Result<GpuMemory> allocate(std::uint64_t bytes, GpuMemory::Kind kind);

  GpuTopology topology_;
  UniqueFd lock_;
  std::uint64_t counter_hz_ = 0;
};

}  // namespace eclip::daemon
