// Waiting for what no event tells of: figures of other processes, words in shared memory.
#pragma once

#include <chrono>
#include <thread>

namespace eclip::test {

/// Looks again and again until the condition holds; false when it did not within the limit.
template <class Condition>
bool eventually(Condition condition,
                std::chrono::steady_clock::duration limit = std::chrono::seconds(20)) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

}  // namespace eclip::test
