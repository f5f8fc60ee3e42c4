// Times that the HSA runtime reports of kernels, against the profile's on the queue's CUs.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "daemon/model/kernel.h"
#include "tests/integration/hsa/hsa_copies.h"

namespace eclip::test {
namespace {

/// The GPU that kfdsim simulates by default.
model::GpuDescription mi50() {
  auto loaded = model::load_gpu_description(ECLIP_DATA_DIR "/gpus/mi50.toml");
  if (!loaded) throw std::runtime_error(loaded.error().message());
  return *loaded;
}

class HsaTimes : public InsideHsa {
 protected:
  void SetUp() override {
    InsideHsa::SetUp();
    if (!IsSkipped()) hsa_system_get_info(HSA_SYSTEM_INFO_TIMESTAMP_FREQUENCY, &hertz_);
  }
  /// Microseconds of the system's clock, which the runtime translates the GPU's ticks to.
  [[nodiscard]] double us(std::uint64_t ticks) const {
    return static_cast<double>(ticks) * 1e6 / static_cast<double>(hertz_);
  }
  [[nodiscard]] hsa_amd_profiling_dispatch_time_t times(const HsaSignal& signal) const {
    hsa_amd_profiling_dispatch_time_t time{};
    check(hsa_amd_profiling_get_dispatch_time(hsa().gpu, signal.get(), &time));
    return time;
  }
  [[nodiscard]] double duration_us(const HsaSignal& signal) const {
    const auto time = times(signal);
    return us(time.end) - us(time.start);
  }

 private:
  std::uint64_t hertz_ = 0;
};

TEST_F(HsaTimes, DispatchTimeIsTheProfilesOnEachMask) {
  const auto description = replay_kernel(800, 230);
  const auto curve = model::Kernel::create(description.shape, description.points);
  ASSERT_TRUE(curve);
  const HsaKernels kernel(hsa(), {description});
  const HsaQueue queue(hsa());
  check(hsa_amd_profiling_set_profiler_enabled(queue.get(), 1));
  constexpr std::uint64_t all = (std::uint64_t{1} << 60) - 1;
  for (const std::uint64_t mask : std::initializer_list<std::uint64_t>{
           all, 0x7fff, 0x111111111111111, 0x3fffffff, std::uint64_t{1} << 59, all - 1}) {
    queue.set_cu_mask(mask);
    const HsaSignal done;
    queue.dispatch(kernel.object(), &done);
    ASSERT_TRUE(done.wait());
    const double expected = curve->time_on_mask_us(static_cast<std::uint32_t>(std::popcount(mask)));
    EXPECT_NEAR(duration_us(done), expected, tolerance_us(expected)) << std::hex << mask;
  }
}

TEST_F(HsaTimes, MaskIsReadBack) {
  const HsaQueue queue(hsa());
  queue.set_cu_mask(0x0123456789abcdef);
  std::array<std::uint32_t, 2> words{};
  check(hsa_amd_queue_cu_get_mask(queue.get(), 64, words.data()));
  EXPECT_EQ(words[0], 0x89abcdefU);
  EXPECT_EQ(words[1], 0x01234567U);
}

TEST_F(HsaTimes, DependentKernelsFollowOneAnotherAfterTheLaunchGap) {
  const double launch_gap_us = mi50().timing.launch_gap_us;
  constexpr double kernel_us = 100;
  constexpr std::size_t count = 20;
  const HsaKernels kernel(hsa(), {replay_kernel(kernel_us, kernel_us)});
  const HsaQueue queue(hsa());
  // All packets are there before the first begins: what is between them is the GPU's alone.
  const HsaSignal gate;
  queue.barrier(false, std::array{gate.get()}, nullptr);
  std::vector<std::unique_ptr<HsaSignal>> done;
  for (std::size_t i = 0; i < count; ++i) {
    done.push_back(std::make_unique<HsaSignal>());
    queue.dispatch(kernel.object(), done.back().get());
  }
  gate.set(0);
  ASSERT_TRUE(done.back()->wait());
  for (std::size_t i = 0; i < count; ++i) {
    EXPECT_NEAR(duration_us(*done[i]), kernel_us, tolerance_us(kernel_us)) << i;
    if (i == 0) continue;
    const double gap = us(times(*done[i]).start) - us(times(*done[i - 1]).end);
    EXPECT_NEAR(gap, launch_gap_us, tolerance_us(launch_gap_us)) << i;
  }
}

TEST_F(HsaTimes, CopyBetweenKernelsBeginsWhenTheKernelEnds) {
  const double barrier_us = mi50().timing.barrier_us;
  constexpr double kernel_us = 100;
  const HsaKernels kernel(hsa(), {replay_kernel(kernel_us, kernel_us)});
  const HsaQueue queue(hsa());
  const HsaQueue bystander(hsa());
  const HsaMemory from(hsa(), hsa().system, 4096);
  const HsaMemory to(hsa(), hsa().vram, 4096);
  check(hsa_amd_profiling_async_copy_enable(true));
  for (int i = 0; i < 10; ++i) {
    const HsaSignal gate;
    const HsaSignal before;
    const HsaSignal copied;
    const HsaSignal after;
    const hsa_signal_t dependency = before.get();
    queue.barrier(false, std::array{gate.get()}, nullptr);
    queue.dispatch(kernel.object(), &before);
    check(hsa_amd_memory_async_copy(to.at(), hsa().gpu, from.at(), hsa().cpu, 4096, 1, &dependency,
                                    copied.get()));
    queue.barrier(false, std::array{copied.get()}, nullptr);
    queue.dispatch(kernel.object(), &after);
    // An ioctl that changes a queue makes kfdsim look at all doorbells first. Without it, a loaded
    // machine lets it see the gate long before the copy.
    bystander.set_cu_mask(i % 2 == 0 ? 0xff : 0xff00);
    gate.set(0);
    ASSERT_TRUE(after.wait());
    hsa_amd_profiling_async_copy_time_t copy{};
    check(hsa_amd_profiling_get_async_copy_time(copied.get(), &copy));
    EXPECT_NEAR(us(copy.start) - us(times(before).end), 0, tolerance_us(kernel_us));
    const double gap = us(times(after).start) - us(copy.end);
    EXPECT_GE(gap, barrier_us - tolerance_us(kernel_us));
    EXPECT_LT(gap, 2 * barrier_us);
  }
}

TEST_F(HsaTimes, KernelsOnDisjointMasksOverlap) {
  constexpr double kernel_us = 3000;
  const HsaKernels kernel(hsa(), {replay_kernel(kernel_us, kernel_us)});
  const HsaQueue left(hsa());
  const HsaQueue right(hsa());
  left.set_cu_mask(0x3fffffff);
  right.set_cu_mask(0x3fffffffULL << 30);
  const HsaSignal gate;
  const HsaSignal left_done;
  const HsaSignal right_done;
  left.barrier(false, std::array{gate.get()}, nullptr);
  right.barrier(false, std::array{gate.get()}, nullptr);
  left.dispatch(kernel.object(), &left_done);
  right.dispatch(kernel.object(), &right_done);
  gate.set(0);
  ASSERT_TRUE(left_done.wait() && right_done.wait());
  EXPECT_LT(times(left_done).start, times(right_done).end);
  EXPECT_LT(times(right_done).start, times(left_done).end);
}

TEST_F(HsaTimes, TimesLieBetweenTheHostsReadingsOfItsClock) {
  const HsaKernels kernel(hsa(), {replay_kernel(200, 100)});
  const HsaQueue queue(hsa());
  const auto now = [&] {
    std::uint64_t ticks = 0;
    check(hsa_system_get_info(HSA_SYSTEM_INFO_TIMESTAMP, &ticks));
    return us(ticks);
  };
  for (int i = 0; i < 20; ++i) {
    const HsaSignal done;
    const double before = now();
    queue.dispatch(kernel.object(), &done);
    ASSERT_TRUE(done.wait());
    const double after = now();
    // The clocks are related to within their readings' distance.
    constexpr double slack_us = 20;
    EXPECT_GT(us(times(done).start), before - slack_us);
    EXPECT_LT(us(times(done).end), after + slack_us);
  }
}

/// HSA_CU_MASK leaves CUs 0 to 29 to the process.
class HsaCuMask : public HsaTimes {
 protected:
  void SetUp() override {
    ::setenv("HSA_CU_MASK", "0:0-29", 1);
    HsaTimes::SetUp();
  }
  void TearDown() override {
    HsaTimes::TearDown();
    ::unsetenv("HSA_CU_MASK");
  }
  /// Expects the kernel to take its time on so many CUs.
  void expect_cus(const HsaQueue& queue, std::uint32_t cus) const {
    const auto description = replay_kernel(800, 230);
    const auto curve = model::Kernel::create(description.shape, description.points);
    ASSERT_TRUE(curve);
    const HsaKernels kernel(hsa(), {description});
    check(hsa_amd_profiling_set_profiler_enabled(queue.get(), 1));
    const HsaSignal done;
    queue.dispatch(kernel.object(), &done);
    ASSERT_TRUE(done.wait());
    const double expected = curve->time_on_mask_us(cus);
    EXPECT_NEAR(duration_us(done), expected, tolerance_us(expected)) << cus << " CUs";
  }
};

TEST_F(HsaCuMask, ConfinesAQueueWithoutAMask) {
  const HsaQueue queue(hsa());
  expect_cus(queue, 30);
}

TEST_F(HsaCuMask, LeavesAMaskWithinItAsItIs) {
  const HsaQueue queue(hsa());
  queue.set_cu_mask(0x3ff);
  expect_cus(queue, 10);
}

TEST_F(HsaCuMask, TakesFromAMaskWhatIsBeyondIt) {
  const HsaQueue queue(hsa());
  const std::array<std::uint32_t, 2> words{0xfff00000, 0xff};  // CUs 20 to 39
  EXPECT_EQ(hsa_amd_queue_cu_set_mask(queue.get(), 64, words.data()), HSA_STATUS_CU_MASK_REDUCED);
  expect_cus(queue, 10);
  std::array<std::uint32_t, 2> seen{};
  check(hsa_amd_queue_cu_get_mask(queue.get(), 64, seen.data()));
  EXPECT_EQ(seen, (std::array<std::uint32_t, 2>{0x3ff00000, 0}));
}

}  // namespace
}  // namespace eclip::test
