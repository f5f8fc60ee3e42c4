// What eclipd asks of a GPU: memory, queues, clock, and word of its failure. KfdDevice is the real
// one; tests bring their own (tests/fake/fake_device.h).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "daemon/aql_ring.h"
#include "daemon/completion_interrupt.h"
#include "daemon/topology.h"
#include "ipc/cu_mask.h"
#include "ipc/result.h"

namespace eclip::daemon {

class GpuDevice;

/// Memory that the GPU can reach; given back to its device with the object, which the device must
/// outlive.
class GpuMemory {
 public:
  enum class Kind { system, device_local, registered };
  struct Place {
    Kind kind = Kind::system;
    void* handle = nullptr;  ///< the device's name for it
    std::byte* host = nullptr;
    std::uint64_t gpu_address = 0;
    std::uint64_t bytes = 0;
  };

  GpuMemory() = default;
  GpuMemory(GpuDevice& device, Place place) : device_(&device), place_(place) {}
  GpuMemory(GpuMemory&& other) noexcept { *this = std::move(other); }
  GpuMemory& operator=(GpuMemory&& other) noexcept {
    if (this == &other) return *this;
    release();
    device_ = std::exchange(other.device_, nullptr);
    place_ = other.place_;
    return *this;
  }
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;
  ~GpuMemory() { release(); }

  [[nodiscard]] std::uint64_t gpu_address() const { return place_.gpu_address; }
  [[nodiscard]] std::uint64_t bytes() const { return place_.bytes; }
  /// What the host can read and write; null for device-local memory.
  [[nodiscard]] std::byte* host() const { return place_.host; }

 private:
  void release();

  GpuDevice* device_ = nullptr;  // null: holds nothing
  Place place_;
};

/// An AQL queue; destroyed with the object.
class HardwareQueue {
 public:
  virtual ~HardwareQueue() = default;
  HardwareQueue(const HardwareQueue&) = delete;
  HardwareQueue& operator=(const HardwareQueue&) = delete;

  [[nodiscard]] AqlRing& ring() { return *ring_; }

 protected:
  HardwareQueue() = default;
  std::optional<AqlRing> ring_;
};

/// The GPU's clock counter and the host's clock, read together.
struct ClockSample {
  std::uint64_t gpu_ticks;
  std::chrono::nanoseconds host;  ///< CLOCK_MONOTONIC_RAW
};

/// An opened GPU. Methods may be called from one thread at a time.
class GpuDevice {
 public:
  virtual ~GpuDevice() = default;
  GpuDevice(const GpuDevice&) = delete;
  GpuDevice& operator=(const GpuDevice&) = delete;

  [[nodiscard]] const GpuTopology& topology() const { return topology_; }
  /// Frequency of the clock counter.
  [[nodiscard]] std::uint64_t counter_hz() const { return counter_hz_; }

  /// System memory (GTT) that host and GPU share, zeroed; `bytes` is rounded up to pages.
  virtual Result<GpuMemory> allocate_system(std::uint64_t bytes) = 0;
  /// VRAM without a host mapping.
  virtual Result<GpuMemory> allocate_device_local(std::uint64_t bytes) = 0;
  /// Makes the process's own, page-aligned memory known to the GPU. It must outlive the result.
  virtual Result<GpuMemory> register_host(std::span<std::byte> memory) = 0;

  /// A queue with `packet_count` slots (a power of two) on the mask's CUs; without a mask on all,
  /// and then none is ever set.
  virtual Result<std::unique_ptr<HardwareQueue>> create_queue(
      std::uint32_t packet_count, const std::optional<CuMask>& mask) = 0;
  virtual Result<ClockSample> sample_clock() = 0;

  /// Queue creations, destructions and mask changes that this process has asked of the driver.
  [[nodiscard]] virtual std::uint64_t queue_ioctls() const = 0;

  /// What signals carry to interrupt the host. And `failed` is called at most once, on a thread of
  /// the device's and not after its end, when the GPU was reset or has had a memory fault. Once.
  /// Errc::device_failed.
  virtual Result<CompletionInterrupt> watch(std::function<void(Error)> failed) = 0;

 protected:
  GpuDevice() = default;
  GpuTopology topology_;
  std::uint64_t counter_hz_ = 0;

 private:
  friend class GpuMemory;
  virtual void release(const GpuMemory::Place& place) = 0;
};

inline void GpuMemory::release() {
  if (device_ != nullptr) std::exchange(device_, nullptr)->release(place_);
}

}  // namespace eclip::daemon
