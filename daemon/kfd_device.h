// One GPU through libhsakmt. All that eclipd asks of the driver goes through here.
#pragma once

#include <memory>
#include <optional>

#include "daemon/gpu_device.h"
#include "daemon/gpu_watch.h"
#include "ipc/unique_fd.h"

namespace eclip::daemon {

/// There is at most one at a time (libhsakmt keeps its state for the process).
class KfdDevice final : public GpuDevice {
 public:
  /// Opens /dev/kfd and the GPU at a topology node (none: the first). Errc::device_failed with what
  /// is missing, Errc::not_found.
  static Result<std::unique_ptr<KfdDevice>> open(std::optional<std::uint32_t> node);
  ~KfdDevice() override;

  Result<GpuMemory> allocate_system(std::uint64_t bytes) override;
  Result<GpuMemory> allocate_device_local(std::uint64_t bytes) override;
  Result<GpuMemory> register_host(std::span<std::byte> memory) override;
  Result<std::unique_ptr<HardwareQueue>> create_queue(std::uint32_t packet_count,
                                                      const std::optional<CuMask>& mask) override;
  Result<ClockSample> sample_clock() override;
  [[nodiscard]] std::uint64_t queue_ioctls() const override;
  Result<CompletionInterrupt> watch(std::function<void(Error)> failed) override;

 private:
  KfdDevice() = default;
  Result<GpuMemory> allocate(std::uint64_t bytes, GpuMemory::Kind kind);
  void release(const GpuMemory::Place& place) override;

  UniqueFd lock_;
  std::unique_ptr<GpuWatch> watch_;
};

}  // namespace eclip::daemon
