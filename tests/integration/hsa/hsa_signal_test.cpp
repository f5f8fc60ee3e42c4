// Signals: waited for by spinning and by the event path, by many threads, by handlers.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "tests/integration/hsa/hsa_fixture.h"

namespace eclip::test {
namespace {

using HsaSignals = InsideHsa;

TEST_F(HsaSignals, ActiveAndBlockedWaitsSeeEachCompletion) {
  const HsaKernels kernel(hsa(), {replay_kernel(20, 10)});
  const HsaQueue queue(hsa());
  for (const auto how : {HSA_WAIT_STATE_ACTIVE, HSA_WAIT_STATE_BLOCKED}) {
    for (int i = 0; i < 100; ++i) {
      const HsaSignal done;
      queue.dispatch(kernel.object(), &done);
      ASSERT_TRUE(done.wait(how)) << "round " << i;
      ASSERT_EQ(done.value(), 0);
    }
  }
}

TEST_F(HsaSignals, BlockedWaitSleepsThroughALongKernel) {
  // Long enough that the runtime gives up spinning and asks the driver for the event.
  const HsaKernels kernel(hsa(), {replay_kernel(30'000, 20'000)});
  const HsaQueue queue(hsa());
  for (int i = 0; i < 5; ++i) {
    const HsaSignal done;
    queue.dispatch(kernel.object(), &done);
    ASSERT_TRUE(done.wait(HSA_WAIT_STATE_BLOCKED));
  }
}

TEST_F(HsaSignals, WaitReturnsAtItsTimeoutWhenNothingHappens) {
  const HsaSignal never;
  EXPECT_EQ(hsa_signal_wait_scacquire(never.get(), HSA_SIGNAL_CONDITION_LT, 1, 1'000'000,
                                      HSA_WAIT_STATE_BLOCKED),
            1);
}

TEST_F(HsaSignals, ManyThreadsWaitForTheSameSignal) {
  const HsaKernels kernel(hsa(), {replay_kernel(8000, 5000)});
  const HsaQueue queue(hsa());
  const HsaSignal done;
  std::atomic<int> woken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 12; ++i) {
    threads.emplace_back([&] {
      if (done.wait()) ++woken;
    });
  }
  queue.dispatch(kernel.object(), &done);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(woken, 12);
}

TEST_F(HsaSignals, ManyThreadsWaitForSignalsOfTheirOwn) {
  constexpr int rounds = 10;
  const HsaKernels kernel(hsa(), {replay_kernel(600, 400)});
  std::atomic<int> woken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 12; ++i) {
    threads.emplace_back([&] {
      const HsaQueue queue(hsa(), 64);
      for (int round = 0; round < rounds; ++round) {
        const HsaSignal done;
        queue.dispatch(kernel.object(), &done);
        if (done.wait()) ++woken;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(woken, 12 * rounds);
}

TEST_F(HsaSignals, WaitAnyNamesTheSignalThatChanged) {
  constexpr std::size_t count = 5;
  const HsaKernels kernel(hsa(), {replay_kernel(3000, 2000)});
  const HsaQueue queue(hsa());
  for (const auto how : {HSA_WAIT_STATE_ACTIVE, HSA_WAIT_STATE_BLOCKED}) {
    for (std::size_t chosen = 0; chosen < count; ++chosen) {
      std::vector<std::unique_ptr<HsaSignal>> signals;
      std::array<hsa_signal_t, count> handles{};
      for (std::size_t i = 0; i < count; ++i) {
        signals.push_back(std::make_unique<HsaSignal>());
        handles.at(i) = signals.back()->get();
      }
      std::array<hsa_signal_condition_t, count> conditions{};
      conditions.fill(HSA_SIGNAL_CONDITION_EQ);
      std::array<hsa_signal_value_t, count> values{};
      queue.dispatch(kernel.object(), signals[chosen].get());
      hsa_signal_value_t seen = -1;
      EXPECT_EQ(hsa_amd_signal_wait_any(count, handles.data(), conditions.data(), values.data(),
                                        wait_deadline(), how, &seen),
                chosen);
      EXPECT_EQ(seen, 0);
    }
  }
}

struct HandlerCount {
  std::atomic<int> calls{0};
  HsaSignal all_called;
  int wanted = 0;
};

/// Called when the signal is below 1000 - calls; stays until it was called as often as wanted.
bool count_call(hsa_signal_value_t, void* data) {
  auto* count = static_cast<HandlerCount*>(data);
  if (++count->calls < count->wanted) return true;
  count->all_called.set(0);
  return false;
}

TEST_F(HsaSignals, AsyncHandlerIsCalledOncePerKernel) {
  constexpr int kernels = 50;
  const HsaKernels kernel(hsa(), {replay_kernel(20, 10)});
  const HsaQueue queue(hsa());
  HandlerCount count;
  count.wanted = kernels;
  std::vector<std::unique_ptr<HsaSignal>> signals;
  for (int i = 0; i < kernels; ++i) {
    signals.push_back(std::make_unique<HsaSignal>());
    struct Once {
      static bool call(hsa_signal_value_t value, void* data) {
        if (value == 0) count_call(value, data);
        return false;
      }
    };
    check(hsa_amd_signal_async_handler(signals.back()->get(), HSA_SIGNAL_CONDITION_LT, 1,
                                       Once::call, &count));
    queue.dispatch(kernel.object(), signals.back().get());
  }
  EXPECT_TRUE(count.all_called.wait());
  EXPECT_EQ(count.calls, kernels);
}

TEST_F(HsaSignals, AsyncHandlerThatStaysIsCalledAgain) {
  const HsaKernels kernel(hsa(), {replay_kernel(20, 10)});
  const HsaQueue queue(hsa());
  HandlerCount count;
  count.wanted = 3;
  const HsaSignal done;
  check(hsa_amd_signal_async_handler(done.get(), HSA_SIGNAL_CONDITION_LT, 1, count_call, &count));
  queue.dispatch(kernel.object(), &done);
  EXPECT_TRUE(count.all_called.wait());
  EXPECT_EQ(count.calls, 3);
}

TEST_F(HsaSignals, HostsStoreReleasesAWaitingQueue) {
  const HsaKernels kernel(hsa(), {replay_kernel(20, 10)});
  const HsaQueue queue(hsa());
  for (int i = 0; i < 50; ++i) {
    const HsaSignal gate;
    const HsaSignal done;
    queue.barrier(false, std::array{gate.get()}, nullptr);
    queue.dispatch(kernel.object(), &done);
    EXPECT_EQ(done.value(), 1);
    gate.set(0);
    ASSERT_TRUE(done.wait());
  }
}

TEST_F(HsaSignals, MoreSignalsThanTheDriverHasEvents) {
  // The KFD has 4095 events; the runtime goes on with signals that are only looked at.
  constexpr std::size_t count = 4500;
  const HsaKernels kernel(hsa(), {replay_kernel(2, 1)});
  const HsaQueue queue(hsa());
  std::vector<std::unique_ptr<HsaSignal>> signals;
  for (std::size_t i = 0; i < count; ++i) signals.push_back(std::make_unique<HsaSignal>());
  for (const auto& signal : signals) queue.dispatch(kernel.object(), signal.get());
  for (const auto& signal : signals) ASSERT_TRUE(signal->wait());
}

}  // namespace
}  // namespace eclip::test
