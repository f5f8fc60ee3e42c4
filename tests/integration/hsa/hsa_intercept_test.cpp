// Intercept queues: a tools library between a program and the runtime (intercept_tool.cpp).
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "tests/integration/hsa/hsa_copies.h"
#include "tests/integration/hsa/intercept_tool.h"

namespace eclip::test {
namespace {

enum class Tool { counts, redirects };

class HsaIntercept : public HsaCopies, public ::testing::WithParamInterface<Tool> {
 protected:
  void SetUp() override {
    ::setenv("HSA_TOOLS_LIB", HSA_TEST_TOOL, 1);
    if (redirects()) {
      ::setenv("ECLIP_TEST_REDIRECT", "1", 1);
    } else {
      ::unsetenv("ECLIP_TEST_REDIRECT");
    }
    HsaCopies::SetUp();
    if (IsSkipped()) return;
    // The library that the runtime has loaded.
    library_ = ::dlopen(HSA_TEST_TOOL, RTLD_NOW | RTLD_NOLOAD);
    ASSERT_NE(library_, nullptr) << "the runtime did not load " HSA_TEST_TOOL;
    const auto counts = reinterpret_cast<decltype(&eclip_test_intercept_counts)>(
        ::dlsym(library_, "eclip_test_intercept_counts"));
    ASSERT_NE(counts, nullptr);
    counts_ = counts();
  }
  void TearDown() override {
    if (library_ != nullptr) ::dlclose(library_);
    HsaCopies::TearDown();
  }
  [[nodiscard]] static bool redirects() { return GetParam() == Tool::redirects; }
  [[nodiscard]] const InterceptCounts& counts() const { return *counts_; }

 private:
  void* library_ = nullptr;
  const InterceptCounts* counts_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(Tools, HsaIntercept, ::testing::Values(Tool::counts, Tool::redirects),
                         [](const auto& tool) {
                           return tool.param == Tool::counts ? "Counting" : "Redirecting";
                         });

TEST_P(HsaIntercept, SeesEachPacketAndTheValuesAreRight) {
  constexpr std::size_t kernels = 200;
  const HsaKernels mix(hsa(), {replay_kernel(4, 2, true)});
  const MixWords words(hsa(), kernels);
  const HsaQueue queue(hsa(), 1024);
  const HsaSignal done(kernels);
  const HsaSignal last;
  for (std::size_t i = 0; i < kernels; ++i) queue.dispatch(mix.object(), &done, words.kernarg(i));
  queue.barrier(false, std::array{done.get()}, &last);
  ASSERT_TRUE(last.wait());
  EXPECT_EQ(words.last(), words.expected());
  EXPECT_EQ(done.value(), 0);
  EXPECT_EQ(counts().queues, 1U);
  EXPECT_EQ(counts().packets, kernels + 1);
  EXPECT_EQ(counts().redirected, redirects() ? kernels : 0);
}

TEST_P(HsaIntercept, KernelsTakeTheTimeOfTheQueueThatRunsThem) {
  const HsaKernels kernel(hsa(), {replay_kernel(800, 230)});
  const HsaQueue queue(hsa());
  std::uint64_t hertz = 0;
  check(hsa_system_get_info(HSA_SYSTEM_INFO_TIMESTAMP_FREQUENCY, &hertz));
  for (int i = 0; i < 5; ++i) {
    const HsaSignal done;
    queue.dispatch(kernel.object(), &done);
    ASSERT_TRUE(done.wait());
    hsa_amd_profiling_dispatch_time_t time{};
    check(hsa_amd_profiling_get_dispatch_time(hsa().gpu, done.get(), &time));
    const double us = static_cast<double>(time.end - time.start) * 1e6 / static_cast<double>(hertz);
    const double expected = redirects() ? 800 : 230;
    EXPECT_NEAR(us, expected, tolerance_us(expected));
  }
}

TEST_P(HsaIntercept, ThreadsEachWithAQueue) {
  constexpr std::size_t threads = 4;
  constexpr std::size_t kernels = 60;
  const HsaKernels mix(hsa(), {replay_kernel(4, 2, true)});
  std::vector<int> right(threads);
  const auto work = [&](std::size_t index) {
    const MixWords words(hsa(), kernels);
    const HsaQueue queue(hsa(), 1024);
    const HsaSignal done(kernels);
    for (std::size_t i = 0; i < kernels; ++i) queue.dispatch(mix.object(), &done, words.kernarg(i));
    right[index] = done.wait() && words.last() == words.expected() ? 1 : 0;
  };
  std::vector<std::thread> all;
  for (std::size_t i = 0; i < threads; ++i) all.emplace_back(work, i);
  for (std::thread& thread : all) thread.join();
  EXPECT_EQ(right, std::vector<int>(threads, 1));
  EXPECT_EQ(counts().packets, threads * kernels);
}

TEST_P(HsaIntercept, CopiesDoNotPassThroughIt) {
  const HsaMemory device(hsa(), hsa().vram, 5000);
  fill(device, 0x5A5A5A5A);
  EXPECT_EQ(read(device), std::vector<std::uint8_t>(5000, 0x5A));
  EXPECT_EQ(counts().queues, 0U);
}

}  // namespace
}  // namespace eclip::test
