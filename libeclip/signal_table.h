// The worker's view of its completion signals: which are reserved, and how often each was used.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "ipc/lease_ring.h"
#include "ipc/worker_regions.h"

namespace eclip {

/// Signals of one worker. Any thread may call anything; uses of one signal are the caller's to
/// order.
class SignalTable {
 public:
  /// `state` must outlive the table. Generations continue from what it says.
  explicit SignalTable(const WorkerState& state);

  /// Nullopt when all are taken.
  std::optional<std::uint32_t> reserve();
  /// False when its last use has not completed; the signal stays reserved then.
  bool release(std::uint32_t signal);
  [[nodiscard]] bool is_reserved(std::uint32_t signal) const {
    return signal < WorkerState::signal_count &&
           entries_[signal].reserved.load(std::memory_order_relaxed);
  }

  /// Starts a new use of a reserved signal; nullopt while the last one has not completed. Call
  /// before the packet is visible to eclipd.
  std::optional<SignalUse> begin_use(std::uint32_t signal);
  /// Takes back a use whose packet eclipd cannot have seen: the generation is used again.
  void cancel_use(SignalUse use);
  /// Gives up a use whose packet will not be done, though eclipd may have seen it: the signal's
  /// next use has the next generation.
  void abandon_use(SignalUse use) {
    entries_[use.signal].abandoned.store(use.generation, std::memory_order_release);
  }

  /// Whether the use's packet has completed; true for generation 0. The signal must be in range.
  [[nodiscard]] bool is_complete(SignalUse use) const;
  /// Whether eclipd has taken the use's packet, which has not completed.
  [[nodiscard]] bool is_forwarded(SignalUse use) const {
    return state_->signals[use.signal].generation.load(std::memory_order_acquire) == use.generation;
  }
  /// Whether the use's packet was dropped with its lease, and will never complete. The signal must
  /// be in range; no later use may have been begun.
  [[nodiscard]] bool is_cancelled(SignalUse use) const;
  /// Whether such a use was ever begun; true for generation 0.
  [[nodiscard]] bool was_begun(SignalUse use) const;
  /// The use begun last; generation 0: none ever.
  [[nodiscard]] SignalUse last_use(std::uint32_t signal) const {
    return {signal, entries_[signal].begun.load(std::memory_order_acquire)};
  }
  /// Whether no later use of its signal was begun.
  [[nodiscard]] bool is_last(SignalUse use) const {
    return entries_[use.signal].begun.load(std::memory_order_acquire) == use.generation;
  }

 private:
  struct Entry {
    /// Generation of the last use begun.
    std::atomic<std::uint32_t> begun = 0;
    /// Generation of the last use abandoned; 0: none.
    std::atomic<std::uint32_t> abandoned = 0;
    std::atomic<bool> reserved = false;
  };

  const WorkerState* state_;
  std::array<Entry, WorkerState::signal_count> entries_;
  std::mutex mutex_;  // guards free_ and changes of `reserved`
  std::vector<std::uint32_t> free_;
};

}  // namespace eclip
