// A GPU of plain memory in this process, with the packet processor in the test's hands.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "daemon/gpu_device.h"

namespace eclip::test {

/// Four shader engines of 15 CUs. GPU addresses are host addresses. A packet that reaches for
/// memory which the device was not told of is a bug of eclipd's: `on_bad_packet` gets a line.
class FakeDevice final : public daemon::GpuDevice {
 public:
  FakeDevice();
  ~FakeDevice() override;

  Result<daemon::GpuMemory> allocate_system(std::uint64_t bytes) override;
  Result<daemon::GpuMemory> allocate_device_local(std::uint64_t bytes) override;
  Result<daemon::GpuMemory> register_host(std::span<std::byte> memory) override;
  Result<std::unique_ptr<daemon::HardwareQueue>> create_queue(
      std::uint32_t packet_count, const std::optional<CuMask>& mask) override;
  Result<daemon::ClockSample> sample_clock() override;
  [[nodiscard]] std::uint64_t queue_ioctls() const override { return queue_ioctls_; }
  Result<daemon::CompletionInterrupt> watch(std::function<void(Error)> failed) override;

  /// Completes all packets that the doorbells have announced, in each queue's order, at once. Any
  /// thread, one at a time. Returns how many there were.
  std::uint64_t run_queues();
  /// As the driver tells of a reset.
  void fail(const std::string& what);
  /// Memory that it holds now: objects.
  [[nodiscard]] std::size_t memory_objects() const;

  std::function<void(const std::string&)> on_bad_packet;

 private:
  class Queue;
  void release(const daemon::GpuMemory::Place& place) override;
  Result<daemon::GpuMemory> add(daemon::GpuMemory::Place place);
  void complete(const daemon::AqlPacket& packet);
  void check(const char* what, std::uint64_t address, std::uint64_t bytes) const;

  mutable std::mutex mutex_;  // the maps below: control thread and whoever runs the queues
  std::map<std::uint64_t, std::uint64_t> ranges_;  // GPU address: bytes
  std::vector<Queue*> queues_;
  std::uint64_t next_local_ = std::uint64_t{1} << 46;  // addresses of VRAM without memory
  std::uint64_t queue_ioctls_ = 0;
  std::function<void(Error)> failed_;
  std::uint64_t mailbox_ = 0;
  std::shared_ptr<std::atomic<std::uint32_t>> interrupts_ =
      std::make_shared<std::atomic<std::uint32_t>>();
};

}  // namespace eclip::test
