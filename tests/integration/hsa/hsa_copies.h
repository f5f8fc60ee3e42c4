// Fixture of the copy tests: the copies that they make.
#pragma once

#include <span>
#include <vector>

#include "tests/integration/hsa/hsa_fixture.h"

namespace eclip::test {

class HsaCopies : public InsideHsa {
 public:
  using InsideHsa::hsa;

  void start_copy(void* to, hsa_agent_t to_agent, const void* from, hsa_agent_t from_agent,
                  std::size_t bytes, std::span<const hsa_signal_t> dependencies,
                  const HsaSignal& done) const {
    check(hsa_amd_memory_async_copy(to, to_agent, from, from_agent, bytes,
                                    static_cast<std::uint32_t>(dependencies.size()),
                                    dependencies.data(), done.get()));
  }
  void copy(void* to, hsa_agent_t to_agent, const void* from, hsa_agent_t from_agent,
            std::size_t bytes) const {
    const HsaSignal done;
    start_copy(to, to_agent, from, from_agent, bytes, {}, done);
    EXPECT_TRUE(done.wait());
    EXPECT_EQ(done.value(), 0);
  }
  void host_to_gpu(void* to, const void* from, std::size_t bytes) const {
    copy(to, hsa().gpu, from, hsa().cpu, bytes);
  }
  void gpu_to_host(void* to, const void* from, std::size_t bytes) const {
    copy(to, hsa().cpu, from, hsa().gpu, bytes);
  }
  void on_gpu(void* to, const void* from, std::size_t bytes) const {
    copy(to, hsa().gpu, from, hsa().gpu, bytes);
  }
  /// All whole words of the memory.
  static void fill(const HsaMemory& memory, std::uint32_t word) {
    check(hsa_amd_memory_fill(memory.at(), word, (memory.bytes() + 3) / 4));
  }
  /// What is in the GPU's memory.
  [[nodiscard]] std::vector<std::uint8_t> read(const HsaMemory& memory) const {
    const HsaMemory host(hsa(), hsa().system, memory.bytes());
    gpu_to_host(host.at(), memory.at(), memory.bytes());
    return {host.span().begin(), host.span().end()};
  }

  struct Timed {
    std::uint64_t start;  ///< ticks of the system's clock
    std::uint64_t end;
    double microseconds;
  };
  /// A copy and what the runtime reports of it.
  [[nodiscard]] Timed timed_copy(void* to, hsa_agent_t to_agent, const void* from,
                                 hsa_agent_t from_agent, std::size_t bytes) const {
    std::uint64_t hertz = 0;
    check(hsa_system_get_info(HSA_SYSTEM_INFO_TIMESTAMP_FREQUENCY, &hertz));
    check(hsa_amd_profiling_async_copy_enable(true));
    const HsaSignal done;
    start_copy(to, to_agent, from, from_agent, bytes, {}, done);
    EXPECT_TRUE(done.wait());
    hsa_amd_profiling_async_copy_time_t time{};
    check(hsa_amd_profiling_get_async_copy_time(done.get(), &time));
    return {time.start, time.end,
            static_cast<double>(time.end - time.start) * 1e6 / static_cast<double>(hertz)};
  }
};

/// Of a time that the runtime reports: a tick of the GPU's counter (40 ns) at both ends, and what
/// its relation of the GPU's clock to the system's is wrong by, from a few readings of both.
inline double tolerance_us(double us) {
  constexpr double tick_us = 0.041;
  constexpr double clock_ratio_error = 1e-3;
  return 2 * tick_us + us * clock_ratio_error;
}

}  // namespace eclip::test
