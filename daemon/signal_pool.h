// Signals of the forwarder's own, known to the GPU: for packets whose completion it wants to see
// though their worker gave them no signal.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "daemon/completion_interrupt.h"
#include "ipc/worker_regions.h"

namespace eclip::daemon {

/// On the forwarder's thread only.
class SignalPool {
 public:
  SignalPool(std::span<SignalSlot> slots, std::uint64_t gpu_address)
      : slots_(slots), gpu_address_(gpu_address) {
    for (auto i = static_cast<std::uint32_t>(slots.size()); i > 0; --i) free_.push_back(i - 1);
  }

  /// An armed signal (value 1), nullopt when all are out.
  std::optional<std::uint32_t> take() {
    if (free_.empty()) return std::nullopt;
    const std::uint32_t signal = free_.back();
    free_.pop_back();
    carry(slots_[signal], nullptr);
    slots_[signal].value.store(1, std::memory_order_relaxed);
    return signal;
  }
  [[nodiscard]] bool has_some() const { return !free_.empty(); }
  void give_back(std::uint32_t signal) { free_.push_back(signal); }

  [[nodiscard]] bool is_complete(std::uint32_t signal) const {
    return slots_[signal].value.load(std::memory_order_acquire) == 0;
  }
  void set_interrupt(std::uint32_t signal, const CompletionInterrupt* interrupt) {
    carry(slots_[signal], interrupt);
  }
  [[nodiscard]] const SignalSlot& slot(std::uint32_t signal) const { return slots_[signal]; }
  [[nodiscard]] std::uint64_t gpu_address(std::uint32_t signal) const {
    return gpu_address_ + signal * sizeof(SignalSlot);
  }

 private:
  std::span<SignalSlot> slots_;
  std::uint64_t gpu_address_;
  std::vector<std::uint32_t> free_;
};

}  // namespace eclip::daemon
