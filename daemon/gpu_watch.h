// Waits for the driver's word that the GPU has failed: then nothing that eclipd has on it goes on.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

#include "ipc/result.h"

struct _HsaEvent;

namespace eclip::daemon {

/// One blocked system call; no polling. The KFD must be open while it lives.
class GpuWatch {
 public:
  /// `failed` is called once, on a thread of the watch, when the GPU was reset or has had a memory
  /// fault. Errc::device_failed when the driver has no events.
  static Result<std::unique_ptr<GpuWatch>> start(std::uint32_t node,
                                                 std::function<void(Error)> failed);
  ~GpuWatch();
  GpuWatch(const GpuWatch&) = delete;
  GpuWatch& operator=(const GpuWatch&) = delete;

 private:
  explicit GpuWatch(std::function<void(Error)> failed) : failed_(std::move(failed)) {}
  void wait();

  std::function<void(Error)> failed_;
  std::atomic<bool> stopping_ = false;
  _HsaEvent* stop_ = nullptr;
  _HsaEvent* memory_fault_ = nullptr;
  _HsaEvent* reset_ = nullptr;
  std::thread thread_;
};

}  // namespace eclip::daemon
