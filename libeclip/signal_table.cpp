#include "libeclip/signal_table.h"

namespace eclip {
namespace {

/// Generations wrap, so they are compared by distance.
bool is_past(std::uint32_t generation, std::uint32_t other) {
  return static_cast<std::int32_t>(generation - other) > 0;
}

// 0 means "no signal" and is skipped.
std::uint32_t after(std::uint32_t generation) {
  return generation + 1 == 0 ? 1 : generation + 1;
}

}  // namespace

SignalTable::SignalTable(const WorkerState& state) : state_(&state) {
  free_.reserve(entries_.size());
  for (std::uint32_t i = WorkerState::signal_count; i > 0; --i) free_.push_back(i - 1);
  for (std::uint32_t i = 0; i < WorkerState::signal_count; ++i)
    entries_[i].begun.store(state.signals[i].generation.load(std::memory_order_acquire),
                            std::memory_order_relaxed);
}

std::optional<std::uint32_t> SignalTable::reserve() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) return std::nullopt;
  const std::uint32_t signal = free_.back();
  free_.pop_back();
  entries_[signal].reserved.store(true, std::memory_order_relaxed);
  return signal;
}

bool SignalTable::release(std::uint32_t signal) {
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[signal];
  if (!is_complete({signal, entry.begun.load(std::memory_order_relaxed)})) return false;
  if (entry.reserved.exchange(false, std::memory_order_relaxed)) free_.push_back(signal);
  return true;
}

std::optional<SignalUse> SignalTable::begin_use(std::uint32_t signal) {
  Entry& entry = entries_[signal];
  std::uint32_t last = entry.begun.load(std::memory_order_acquire);
  if (!is_complete({signal, last})) return std::nullopt;
  const std::uint32_t next = after(last);
  // Two threads that use one signal at once: the second finds it busy.
  if (!entry.begun.compare_exchange_strong(last, next, std::memory_order_acq_rel))
    return std::nullopt;
  return SignalUse{signal, next};
}

void SignalTable::cancel_use(SignalUse use) {
  // Before 1 comes 0 only for a signal that was never used.
  const bool first = state_->signals[use.signal].generation.load(std::memory_order_acquire) == 0;
  const std::uint32_t before = use.generation == 1 && !first ? UINT32_MAX : use.generation - 1;
  entries_[use.signal].begun.store(before, std::memory_order_release);
}

bool SignalTable::is_complete(SignalUse use) const {
  if (use.generation == 0) return true;
  if (entries_[use.signal].abandoned.load(std::memory_order_acquire) == use.generation) return true;
  const SignalSlot& slot = state_->signals[use.signal];
  const std::uint32_t generation = slot.generation.load(std::memory_order_acquire);
  if (generation != 0 && is_past(generation, use.generation)) return true;
  if (generation == use.generation && slot.value.load(std::memory_order_acquire) == 0) return true;
  // The value may be 1 already for a use after this one, whose generation eclipd has not stored
  // yet. That use was begun only after this one had completed.
  return is_past(entries_[use.signal].begun.load(std::memory_order_acquire), use.generation);
}

bool SignalTable::is_cancelled(SignalUse use) const {
  if (use.generation == 0) return false;
  const SignalSlot& slot = state_->signals[use.signal];
  return slot.generation.load(std::memory_order_acquire) == use.generation &&
         slot.cancelled.load(std::memory_order_relaxed) == use.generation;
}

bool SignalTable::was_begun(SignalUse use) const {
  return use.generation == 0 ||
         !is_past(use.generation, entries_[use.signal].begun.load(std::memory_order_acquire));
}

}  // namespace eclip
