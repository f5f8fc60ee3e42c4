// Completion: signals, waiting for them, and the times that the GPU left in them.
#include <algorithm>
#include <array>
#include <chrono>
#include <optional>

#include "ipc/clock_ticks.h"
#include "ipc/futex.h"
#include "ipc/testpoint.h"
#include "libeclip/context.h"
#include "libeclip/errors.h"
#include "libeclip/wait.h"

namespace eclip {
namespace {

using Clock = std::chrono::steady_clock;

/// Shorter than a sleep and a wake-up; longer would take the CPU from eclipd's forwarder on small
/// machines.
constexpr std::chrono::microseconds spin_time{20};
/// How soon the end of eclipd is noticed, which wakes nobody.
constexpr std::chrono::milliseconds longest_sleep{25};
/// Between two looks at several signals, where the kernel cannot wait for more than one.
constexpr std::chrono::microseconds sleep_between_looks{500};
/// Stands for "no limit"; far from where adding it to a time point overflows.
constexpr std::chrono::nanoseconds longest_wait = std::chrono::hours(24 * 365);

void pause_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// 0 or -EINVAL.
int check(const eclip_context* context, SignalUse use) {
  if (context == nullptr) return report(EINVAL, "the context is NULL");
  if (use.signal >= WorkerState::signal_count || !context->signals->was_begun(use))
    return report(EINVAL, "the token is not of a submitted packet");
  return 0;
}

bool spin(const eclip_context& context, SignalUse use, Clock::time_point until) {
  while (!context.signals->is_complete(use)) {
    if (Clock::now() >= until) return false;
    pause_processor();
  }
  return true;
}

/// Counts this thread among those that want a signal's SignalSlot::wakes raised and woken.
class Waiter {
 public:
  Waiter(const eclip_context& context, std::uint32_t signal)
      : waiters_(&context.request().waiters[signal]) {
    waiters_->fetch_add(1, std::memory_order_seq_cst);
    // A forwarder that sleeps looks for neither completions nor waiters.
    context.wake_forwarder();
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  ~Waiter() { waiters_->fetch_sub(1, std::memory_order_seq_cst); }

 private:
  std::atomic<std::uint16_t>* waiters_;
};

/// 0 for a completed use, -ECANCELED for a dropped one, or why the worker was cut off if that is
/// why: eclipd says so before it drops anything.
int outcome(eclip_context& context, SignalUse use) {
  if (!context.signals->is_cancelled(use)) return 0;
  if (const int failed = context.check_alive(); failed != 0) return failed;
  return report(ECANCELED, "the packet was not done: it was dropped with its lease");
}

}  // namespace

int wait_for(eclip_context* context, SignalUse use, std::uint64_t timeout_ns) {
  if (const int failed = check(context, use); failed != 0) return failed;
  const auto start = Clock::now();
  const auto deadline =
      start + std::chrono::nanoseconds(std::min<std::uint64_t>(timeout_ns, longest_wait.count()));
  if (spin(*context, use, std::min(deadline, start + spin_time))) return outcome(*context, use);
  const Waiter waiter(*context, use.signal);
  const auto& wakes = context->state().signals[use.signal].wakes;
  while (true) {
    // Read before the looks below: what happens after them changes it, and the sleep ends at once.
    const std::uint32_t seen = wakes.load(std::memory_order_acquire);
    if (context->signals->is_complete(use)) return outcome(*context, use);
    if (const int failed = context->check_alive(); failed != 0) return failed;
    const auto left = deadline - Clock::now();
    if (left <= left.zero()) return report(ETIMEDOUT, "the packet did not complete in time");
    ECLIP_TESTPOINT("counted_as_waiter");
    futex_wait(wakes, seen, std::min<std::chrono::nanoseconds>(left, longest_sleep));
    if (context->signals->is_complete(use)) return outcome(*context, use);
    context->control.look_for_hangup();
  }
}

int wait_for_any(eclip_context& context, std::span<const SignalUse> uses,
                 const std::atomic<std::uint32_t>& word, std::uint32_t seen,
                 std::chrono::nanoseconds timeout) {
  uses = uses.first(std::min(uses.size(), most_uses));
  const auto is_over = [&] {
    return word.load(std::memory_order_acquire) != seen ||
           std::any_of(uses.begin(), uses.end(),
                       [&](SignalUse use) { return context.signals->is_complete(use); });
  };
  if (!uses.empty()) {
    const auto until = Clock::now() + std::min<std::chrono::nanoseconds>(spin_time, timeout);
    do {
      if (is_over()) return 0;
      pause_processor();
    } while (Clock::now() < until);
  }
  std::array<std::optional<Waiter>, most_uses> waiters;
  std::array<FutexExpectation, most_uses + 1> words;
  words[0] = {.word = &word, .expected = seen};
  for (std::size_t i = 0; i < uses.size(); ++i) {
    waiters[i].emplace(context, uses[i].signal);
    // Read before the looks below: see wait_for.
    const auto& wakes = context.state().signals[uses[i].signal].wakes;
    words[i + 1] = {.word = &wakes, .expected = wakes.load(std::memory_order_acquire)};
  }
  if (is_over()) return 0;
  if (const int failed = context.check_alive(); failed != 0) return failed;
  if (uses.empty()) {
    futex_wait(word, seen, timeout);
  } else if (!futex_wait_any({words.data(), uses.size() + 1}, timeout)) {
    const FutexExpectation& first = words[1];
    futex_wait(*first.word, first.expected,
               std::min<std::chrono::nanoseconds>(sleep_between_looks, timeout));
  }
  if (is_over()) return 0;
  if (!uses.empty()) context.control.look_for_hangup();
  return context.check_alive();
}

namespace {

int times(eclip_context* context, SignalUse use, std::uint64_t* start_ns, std::uint64_t* end_ns) {
  if (const int failed = check(context, use); failed != 0) return failed;
  if (start_ns == nullptr || end_ns == nullptr)
    return report(EINVAL, "the place for a time is NULL");
  const std::uint64_t hz = context->board().gpu_counter_hz;
  if (use.generation == 0 || hz == 0)
    return report(EINVAL, "the token is none, or the GPU's clock is unknown");
  const SignalSlot& slot = context->state().signals[use.signal];
  if (!context->signals->is_complete(use)) return report(EAGAIN, "the packet has not completed");
  if (const int failed = outcome(*context, use); failed != 0) return failed;
  // The GPU and, at the signal's next use, eclipd write these; the look afterwards tells.
  const std::uint64_t start = __atomic_load_n(&slot.start_ts, __ATOMIC_ACQUIRE);
  const std::uint64_t end = __atomic_load_n(&slot.end_ts, __ATOMIC_ACQUIRE);
  if (!context->signals->is_last(use))
    return report(EAGAIN, "the packet's signal has been used again; its times are gone");
  *start_ns = ticks_to_ns(start, hz);
  *end_ns = ticks_to_ns(end, hz);
  return 0;
}

int destroy_signal(eclip_context* context, std::uint32_t signal) {
  if (context == nullptr) return report(EINVAL, "the context is NULL");
  if (!context->signals->is_reserved(signal))
    return report(EINVAL, "signal " + std::to_string(signal) + " was not created");
  if (!context->signals->release(signal))
    return report(EBUSY, "the last use of signal " + std::to_string(signal) +
                             " has not completed; wait for it first");
  return 0;
}

}  // namespace
}  // namespace eclip

int eclip_signal_create(eclip_context* context, uint32_t* signal) {
  return eclip::guarded([&] {
    if (context == nullptr || signal == nullptr)
      return eclip::report(EINVAL, "the context or the place for the signal is NULL");
    const auto reserved = context->signals->reserve();
    if (!reserved) return eclip::report(ENOSPC, "all signals of this connection are in use");
    *signal = *reserved;
    return 0;
  });
}

int eclip_signal_destroy(eclip_context* context, uint32_t signal) {
  return eclip::guarded([&] { return eclip::destroy_signal(context, signal); });
}

int eclip_is_complete(eclip_context* context, struct eclip_token token) {
  const eclip::SignalUse use{token.signal, token.generation};
  if (context == nullptr || token.signal >= eclip::WorkerState::signal_count) return 0;
  if (!context->signals->is_complete(use)) {
    const int failed = eclip::guarded([&] { return context->check_alive(); });
    // What is in a hardware queue still runs when its worker is cut off.
    return failed == -EPROTO && context->signals->is_forwarded(use) ? 0 : failed;
  }
  return context->signals->is_cancelled(use) ? -ECANCELED : 1;
}

int eclip_wait(eclip_context* context, struct eclip_token token, uint64_t timeout_ns) {
  return eclip::guarded([&] {
    const int result = eclip::wait_for(context, {token.signal, token.generation}, timeout_ns);
    if (result == 0 && context->recorder) context->recorder->collect();
    return result;
  });
}

int eclip_token_times(eclip_context* context, struct eclip_token token, uint64_t* start_ns,
                      uint64_t* end_ns) {
  return eclip::guarded([&] {
    return eclip::times(context, {token.signal, token.generation}, start_ns, end_ns);
  });
}
