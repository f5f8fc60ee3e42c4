// What the tools library of the tests has seen in this process.
#pragma once

#include <atomic>
#include <cstdint>

namespace eclip::test {

struct InterceptCounts {
  std::atomic<std::uint64_t> queues{0};
  std::atomic<std::uint64_t> packets{0};
  std::atomic<std::uint64_t> redirected{0};
};

}  // namespace eclip::test

/// Exported by the library, for dlsym.
extern "C" const eclip::test::InterceptCounts* eclip_test_intercept_counts();
