// Waits for the driver's word: that the GPU has failed, and then nothing that eclipd has on it goes
// on; or that packets have completed whose signals were to interrupt the host.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

#include "daemon/completion_interrupt.h"
#include "ipc/result.h"

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

  [[nodiscard]] CompletionInterrupt completion_interrupt() const;

 private:
  struct Events;
  explicit GpuWatch(std::function<void(Error)> failed);
  void wait();
  void report_failure(int wait_status);

  std::function<void(Error)> failed_;
  std::atomic<bool> stopping_ = false;
  std::unique_ptr<Events> events_;
  std::shared_ptr<std::atomic<std::uint32_t>> completions_ =
      std::make_shared<std::atomic<std::uint32_t>>();
  std::thread thread_;
};

}  // namespace eclip::daemon
