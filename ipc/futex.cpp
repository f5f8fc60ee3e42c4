#include "ipc/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <ctime>

namespace eclip {
namespace {

timespec to_timespec(std::chrono::nanoseconds time) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
  return {.tv_sec = seconds.count(), .tv_nsec = (time - seconds).count()};
}

}  // namespace

void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                std::chrono::nanoseconds timeout) {
  const timespec relative = to_timespec(std::max(timeout, std::chrono::nanoseconds(0)));
  ::syscall(SYS_futex, &word, FUTEX_WAIT, expected, &relative, nullptr, 0);
}

void futex_wake_all(const std::atomic<std::uint32_t>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

bool futex_wait_any(std::span<const FutexExpectation> words, std::chrono::nanoseconds timeout) {
  std::array<futex_waitv, max_futex_words> vector{};
  const std::size_t count = std::min(words.size(), vector.size());
  for (std::size_t i = 0; i < count; ++i) {
    vector[i] = {.val = words[i].expected,
                 .uaddr = reinterpret_cast<std::uintptr_t>(words[i].word),
                 .flags = FUTEX_32,
                 .__reserved = 0};
  }
  timespec absolute{};
  if (timeout.count() >= 0) {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    absolute = to_timespec(std::chrono::seconds(now.tv_sec) +
                           std::chrono::nanoseconds(now.tv_nsec) + timeout);
  }
  const long result = ::syscall(SYS_futex_waitv, vector.data(), count, 0,
                                timeout.count() >= 0 ? &absolute : nullptr, CLOCK_MONOTONIC);
  return result >= 0 || errno != ENOSYS;
}

}  // namespace eclip
