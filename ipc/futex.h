// Waiting on and waking a 32-bit word in shared memory.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>

namespace eclip {

/// Sleeps while `word` is `expected`, until woken, `timeout` passes or a signal arrives. The word
/// may be in a read-only mapping. Callers look at their condition again in any case.
void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                std::chrono::nanoseconds timeout);

/// Wakes all that sleep on `word`.
void futex_wake_all(const std::atomic<std::uint32_t>& word);

/// One word and what it must still be for futex_wait_any to sleep.
struct FutexExpectation {
  const std::atomic<std::uint32_t>* word;
  std::uint32_t expected;
};

/// The largest number of words that futex_wait_any takes.
inline constexpr std::size_t max_futex_words = 128;

/// Sleeps while each word is as expected, until one is woken or `timeout` passes (negative: no
/// limit). False when the kernel has no futex_waitv (before Linux 5.16): nothing was waited for
/// then.
bool futex_wait_any(std::span<const FutexExpectation> words, std::chrono::nanoseconds timeout);

}  // namespace eclip
