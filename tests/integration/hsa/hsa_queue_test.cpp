// Agents, memory pools, queues and packets through the unmodified HSA runtime.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/hsa/hsa_fixture.h"

namespace eclip::test {
namespace {

using HsaQueues = InsideHsa;

/// AMD's attributes are an enum of their own.
hsa_agent_info_t amd_info(hsa_amd_agent_info_t attribute) {
  return static_cast<hsa_agent_info_t>(attribute);
}

TEST_F(HsaQueues, AgentIsTheSimulatedMi50) {
  std::array<char, 64> name{};
  check(hsa_agent_get_info(hsa().gpu, HSA_AGENT_INFO_NAME, name.data()));
  EXPECT_STREQ(name.data(), "gfx906");
  check(hsa_agent_get_info(hsa().gpu, amd_info(HSA_AMD_AGENT_INFO_PRODUCT_NAME), name.data()));
  EXPECT_NE(std::string(name.data()).find("simulated"), std::string::npos);
  std::uint32_t cus = 0;
  check(hsa_agent_get_info(hsa().gpu, amd_info(HSA_AMD_AGENT_INFO_COMPUTE_UNIT_COUNT), &cus));
  EXPECT_EQ(cus, 60U);
}

TEST_F(HsaQueues, VramPoolHasTheSizeOfTheGpusMemory) {
  std::size_t bytes = 0;
  check(hsa_amd_memory_pool_get_info(hsa().vram, HSA_AMD_MEMORY_POOL_INFO_SIZE, &bytes));
  EXPECT_EQ(bytes, 34342961152U);
  void* memory = nullptr;
  EXPECT_NE(hsa_amd_memory_pool_allocate(hsa().vram, bytes + 4096, 0, &memory), HSA_STATUS_SUCCESS);
}

TEST_F(HsaQueues, FreedVramIsThereAgain) {
  constexpr std::size_t most = std::size_t{30} << 30;
  for (int i = 0; i < 3; ++i) {
    const HsaMemory memory(hsa(), hsa().vram, most);
    void* other = nullptr;
    EXPECT_NE(hsa_amd_memory_pool_allocate(hsa().vram, most, 0, &other), HSA_STATUS_SUCCESS);
  }
}

TEST_F(HsaQueues, MixChainInOneQueueEqualsSerialExecution) {
  constexpr std::size_t kernels = 1000;  // more than the ring holds
  const HsaKernels mix(hsa(), {replay_kernel(2, 1, true)});
  const MixWords words(hsa(), kernels);
  const HsaQueue queue(hsa(), 64);
  const HsaSignal done(kernels);
  for (std::size_t i = 0; i < kernels; ++i) queue.dispatch(mix.object(), &done, words.kernarg(i));
  ASSERT_TRUE(done.wait());
  EXPECT_EQ(words.last(), words.expected());
}

/// A chain whose kernel i is on queue i modulo `queues`, and waits for kernel i - 1.
std::uint64_t chain_over_queues(const Hsa& hsa, const MixWords& words, std::size_t kernels,
                                std::size_t queues, bool any) {
  const HsaKernels mix(hsa, {replay_kernel(4, 2, true)});
  std::vector<std::unique_ptr<HsaQueue>> all;
  for (std::size_t i = 0; i < queues; ++i) all.push_back(std::make_unique<HsaQueue>(hsa));
  std::vector<std::unique_ptr<HsaSignal>> done;
  for (std::size_t i = 0; i < kernels; ++i) done.push_back(std::make_unique<HsaSignal>());
  const HsaSignal never;
  for (std::size_t i = 0; i < kernels; ++i) {
    const HsaQueue& queue = *all[i % queues];
    if (i > 0 && any) {
      queue.barrier(true, std::array{never.get(), done[i - 1]->get()}, nullptr);
    } else if (i > 0) {
      // The signal before the last is 0 long since.
      queue.barrier(false,
                    std::array{done[i - 1]->get(), done[i - std::min<std::size_t>(i, 2)]->get()},
                    nullptr);
    }
    queue.dispatch(mix.object(), done[i].get(), words.kernarg(i));
  }
  EXPECT_TRUE(done.back()->wait());
  return words.last();
}

TEST_F(HsaQueues, BarrierAndOrdersKernelsOfSeveralQueues) {
  const MixWords words(hsa(), 60);
  EXPECT_EQ(chain_over_queues(hsa(), words, 60, 3, false), words.expected());
}

TEST_F(HsaQueues, BarrierOrOrdersKernelsOfSeveralQueues) {
  const MixWords words(hsa(), 60);
  EXPECT_EQ(chain_over_queues(hsa(), words, 60, 3, true), words.expected());
}

TEST_F(HsaQueues, ThreadsWithQueuesOfTheirOwnDoNotDisturbOneAnother) {
  constexpr std::size_t kernels = 200;
  constexpr std::size_t threads = 6;
  const HsaKernels mix(hsa(), {replay_kernel(2, 1, true)});
  std::vector<int> right(threads);
  const auto work = [&](std::size_t index) {
    const MixWords words(hsa(), kernels);
    const HsaQueue queue(hsa(), 64);
    const HsaSignal done(kernels);
    for (std::size_t i = 0; i < kernels; ++i) queue.dispatch(mix.object(), &done, words.kernarg(i));
    right[index] = done.wait() && words.last() == words.expected() ? 1 : 0;
  };
  std::vector<std::thread> all;
  for (std::size_t i = 0; i < threads; ++i) all.emplace_back(work, i);
  for (std::thread& thread : all) thread.join();
  EXPECT_EQ(right, std::vector<int>(threads, 1));
}

TEST_F(HsaQueues, QueueDestroyedWhileItWorksLeavesTheOthersRunning) {
  constexpr std::size_t kernels = 100;
  const HsaKernels all(hsa(), {replay_kernel(2e6, 2e6), replay_kernel(2, 1, true)});
  const HsaSignal never;
  for (int round = 0; round < 5; ++round) {
    const MixWords words(hsa(), kernels);
    const HsaQueue other(hsa(), 64);
    const HsaSignal other_done(kernels);
    const HsaSignal lost(2);
    const HsaSignal first;
    HsaQueue queue(hsa());
    // Two CUs for the long kernel, so that the other queue has some.
    queue.set_cu_mask(3);
    queue.dispatch(all.object(1), &first, words.kernarg(0));
    queue.dispatch(all.object(0), &lost);
    queue.barrier(false, std::array{never.get()}, &lost);
    ASSERT_TRUE(first.wait());
    for (std::size_t i = 0; i < kernels; ++i) {
      other.dispatch(all.object(1), &other_done, words.kernarg(i));
      if (i == kernels / 2) queue.destroy();
    }
    ASSERT_TRUE(other_done.wait());
    EXPECT_EQ(words.last(), words.expected());
    EXPECT_EQ(lost.value(), 2);
  }
}

TEST_F(HsaQueues, ManyQueuesAtOnceAreServed) {
  constexpr std::size_t queues = 40;
  const HsaKernels mix(hsa(), {replay_kernel(2, 1, true)});
  const MixWords words(hsa(), queues);
  std::vector<std::unique_ptr<HsaQueue>> all;
  std::vector<std::unique_ptr<HsaSignal>> done;
  for (std::size_t i = 0; i < queues; ++i) {
    all.push_back(std::make_unique<HsaQueue>(hsa(), 64));
    done.push_back(std::make_unique<HsaSignal>());
  }
  // The last queue's packets are written first.
  for (std::size_t i = queues; i-- > 0;) {
    if (i > 0) all[i]->barrier(false, std::array{done[i - 1]->get()}, nullptr);
    all[i]->dispatch(mix.object(), done[i].get(), words.kernarg(i));
  }
  ASSERT_TRUE(done.back()->wait());
  EXPECT_EQ(words.last(), words.expected());
}

}  // namespace
}  // namespace eclip::test
