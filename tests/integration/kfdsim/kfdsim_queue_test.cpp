// Queues, packets and kernels on the simulated GPU, through the unmodified libhsakmt.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "daemon/model/kernel.h"
#include "tests/integration/kfdsim/gpu_client.h"
#include "tests/integration/kfdsim/inside_fixture.h"

namespace eclip::test {
namespace {

using KfdsimQueue = InsideKfdsim;

// The counter ticks every 40 ns, at both ends.
constexpr double tick_us = 0.04;

TEST_F(KfdsimQueue, KernelTakesTheTimeOfItsProfileOnTheQueuesCus) {
  const auto kernel = kernel_of(800, 230);
  const LoadedKernels loaded({&kernel, 1});
  const auto curve = model::Kernel::create(kernel.shape, kernel.points);
  ASSERT_TRUE(curve);
  for (const std::uint32_t cus : {60U, 30U, 15U}) {
    const GpuSignal done;
    GpuQueue queue;
    ASSERT_EQ(queue.use_cus(cus), HSAKMT_STATUS_SUCCESS);
    queue.dispatch(loaded.object(0), &done);
    ASSERT_TRUE(done.wait());
    EXPECT_NEAR(done.device_us(), curve->time_us(cus), 2 * tick_us) << cus << " CUs";
    EXPECT_EQ(queue.read_index(), 1U);
  }
}

TEST_F(KfdsimQueue, RingMayBeReusedManyTimes) {
  const auto kernel = kernel_of(1, 1);
  const LoadedKernels loaded({&kernel, 1});
  constexpr int packets = 500;
  const GpuSignal done(packets);
  GpuQueue queue(16);
  for (int i = 0; i < packets; ++i) queue.dispatch(loaded.object(0), &done);
  ASSERT_TRUE(done.wait());
  EXPECT_EQ(done.value(), 0);
  EXPECT_EQ(queue.read_index(), std::uint64_t{packets});
}

TEST_F(KfdsimQueue, BarrierAndWaitsForAllItsSignals) {
  GpuSignal first;
  GpuSignal second;
  const GpuSignal done;
  GpuQueue queue;
  queue.barrier(false, std::array{first.handle(), second.handle()}, &done);
  first.set(0);
  // A packet of another queue that was processed later proves that the GPU had a look meanwhile.
  const GpuSignal other;
  GpuQueue other_queue;
  other_queue.barrier(false, {}, &other);
  ASSERT_TRUE(other.wait());
  EXPECT_EQ(done.value(), 1);
  EXPECT_EQ(queue.read_index(), 0U) << "a waiting barrier packet keeps its place in the ring";
  second.set(0);
  EXPECT_TRUE(done.wait());
  EXPECT_EQ(queue.read_index(), 1U);
}

TEST_F(KfdsimQueue, BarrierOrWaitsForOneOfItsSignals) {
  GpuSignal first;
  GpuSignal second;
  const GpuSignal done;
  GpuQueue queue;
  queue.barrier(true, std::array{first.handle(), second.handle()}, &done);
  const GpuSignal other;
  GpuQueue other_queue;
  other_queue.barrier(false, {}, &other);
  ASSERT_TRUE(other.wait());
  EXPECT_EQ(done.value(), 1);
  second.set(0);
  EXPECT_TRUE(done.wait());
}

TEST_F(KfdsimQueue, SignalsInRegisteredMemoryAreSeenAndWritten) {
  for (const bool shared_pages : {true, false}) {
    GpuSignal gate(1, GpuBuffer::Kind::registered, shared_pages);
    const GpuSignal done(1, GpuBuffer::Kind::registered, shared_pages);
    GpuQueue queue;
    queue.barrier(false, std::array{gate.handle()}, &done);
    gate.set(0);
    EXPECT_TRUE(done.wait()) << (shared_pages ? "shared" : "private") << " pages";
  }
}

/// The host counts up as fast as it can what the GPU counts down; no step may be lost.
void expect_atomic_decrements(GpuBuffer::Kind kind) {
  constexpr int packets = 30000;
  const auto kernel = kernel_of(1, 1);
  const LoadedKernels loaded({&kernel, 1});
  const GpuSignal both(1LL << 40, kind);
  const GpuSignal last;
  std::int64_t added = 0;
  std::thread host([&] {
    for (; last.value() != 0; ++added) __atomic_fetch_add(&both.raw().value, 1, __ATOMIC_RELAXED);
  });
  GpuQueue queue(1024);
  for (int i = 0; i < packets; ++i) queue.dispatch(loaded.object(0), &both);
  queue.barrier(false, {}, &last);
  host.join();
  EXPECT_EQ(both.value(), (1LL << 40) + added - packets);
}

TEST_F(KfdsimQueue, DecrementsInTheGpusMemoryAreAtomic) {
  expect_atomic_decrements(GpuBuffer::Kind::system);
}

TEST_F(KfdsimQueue, DecrementsInRegisteredSharedMemoryAreAtomic) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root may map other processes' shared memory";
  expect_atomic_decrements(GpuBuffer::Kind::registered);
}

TEST_F(KfdsimQueue, AnnouncedPacketIsNotTakenBeforeItIsWritten) {
  const GpuSignal done(16);
  GpuQueue queue(16);
  for (int i = 0; i < 16; ++i) queue.barrier(false, {}, &done);
  ASSERT_TRUE(done.wait());
  // The place of the next packet still holds the first one.
  queue.announce_next();
  const GpuSignal other;
  GpuQueue other_queue;
  other_queue.barrier(false, {}, &other);
  ASSERT_TRUE(other.wait());
  EXPECT_EQ(done.value(), 0);
  EXPECT_EQ(queue.read_index(), 16U);
  const GpuSignal written;
  queue.barrier(false, {}, &written);
  EXPECT_TRUE(written.wait());
}

/// A chain of mixing kernels, each of which reads what its predecessor wrote, alternately on two
/// queues.
class MixChain {
 public:
  static constexpr std::size_t length = 12;

  std::uint64_t run(bool with_barriers) {
    auto* words = words_.as<std::uint64_t>();
    std::fill_n(words, length + 1, 0);
    words[0] = seed;
    auto* arguments = kernargs_.as<replay::MixKernarg>();
    // Both queues begin when all packets are there, however slowly the host writes them: only
    // barriers can keep the order then.
    GpuSignal gate;
    std::array<GpuQueue, 2> queues;
    // CUs of their own: on shared ones, device-filling kernels follow each other anyway.
    std::array<std::array<std::uint32_t, 2>, 2> halves{{{0x3fffffff, 0}, {0xc0000000, 0x0fffffff}}};
    for (std::size_t i = 0; i < queues.size(); ++i) {
      EXPECT_EQ(queues.at(i).set_cu_mask(halves.at(i)), HSAKMT_STATUS_SUCCESS);
      queues.at(i).barrier(false, std::array{gate.handle()}, nullptr);
    }
    std::vector<std::unique_ptr<GpuSignal>> done;
    for (std::size_t i = 0; i < length; ++i) {
      arguments[i] = {words_.gpu() + (i + 1) * 8, static_cast<std::uint32_t>(i), 1, {}};
      arguments[i].inputs[0] = words_.gpu() + i * 8;
      GpuQueue& queue = queues.at(i % 2);
      done.push_back(std::make_unique<GpuSignal>());
      if (with_barriers && i > 0) queue.barrier(false, std::array{done[i - 1]->handle()}, nullptr);
      queue.dispatch(kernel_.object(0), done[i].get(), kernargs_.gpu() + i * sizeof *arguments);
    }
    gate.set(0);
    for (const auto& signal : done) EXPECT_TRUE(signal->wait());
    return words[length];
  }

  static std::uint64_t serial() {
    std::uint64_t value = seed;
    for (std::uint32_t i = 0; i < length; ++i) value = replay::mix(i, {&value, 1});
    return value;
  }

 private:
  static constexpr std::uint64_t seed = 42;
  const replay::ReplayKernel description_ = kernel_of(600, 300, true);
  LoadedKernels kernel_{{&description_, 1}};
  GpuBuffer words_{GpuBuffer::Kind::vram, 4096};
  GpuBuffer kernargs_{GpuBuffer::Kind::system, 4096};
};

TEST_F(KfdsimQueue, MixChainOverTwoQueuesEqualsSerialExecution) {
  EXPECT_EQ(MixChain().run(true), MixChain::serial());
}

TEST_F(KfdsimQueue, MixChainWithoutBarriersGivesAnotherValue) {
  EXPECT_NE(MixChain().run(false), MixChain::serial());
}

TEST_F(KfdsimQueue, QueuesOnDisjointCusRunAtTheSameTime) {
  // Long, so that on a loaded machine too the second starts before the first ends.
  constexpr double kernel_us = 50'000;
  const auto kernel = kernel_of(kernel_us, kernel_us);
  const LoadedKernels loaded({&kernel, 1});
  const GpuSignal left_done;
  const GpuSignal right_done;
  GpuQueue left;
  GpuQueue right;
  std::array<std::uint32_t, 2> low{0x3fffffff, 0};
  std::array<std::uint32_t, 2> high{0xc0000000, 0x0fffffff};
  ASSERT_EQ(left.set_cu_mask(low), HSAKMT_STATUS_SUCCESS);
  ASSERT_EQ(right.set_cu_mask(high), HSAKMT_STATUS_SUCCESS);
  left.dispatch(loaded.object(0), &left_done);
  right.dispatch(loaded.object(0), &right_done);
  ASSERT_TRUE(left_done.wait());
  ASSERT_TRUE(right_done.wait());
  EXPECT_LT(right_done.raw().start_ts, left_done.raw().end_ts);
  EXPECT_LT(left_done.raw().start_ts, right_done.raw().end_ts);
}

TEST_F(KfdsimQueue, AChangeOfQueuesStallsRunningKernelsAndReturnsAfterwards) {
  // Long, so that on a loaded machine too the changes fall into its time.
  constexpr double kernel_us = 20'000;
  const auto kernel = kernel_of(kernel_us, kernel_us);
  const LoadedKernels loaded({&kernel, 1});
  const GpuSignal done;
  GpuQueue queue;
  GpuQueue other;
  queue.dispatch(loaded.object(0), &done);
  std::array<std::uint32_t, 2> low{0x3fffffff, 0};
  using Clock = std::chrono::steady_clock;
  const auto before = Clock::now();
  for (int i = 0; i < 20; ++i) ASSERT_EQ(other.set_cu_mask(low), HSAKMT_STATUS_SUCCESS);
  const std::chrono::duration<double, std::micro> all_ioctls = Clock::now() - before;
  ASSERT_TRUE(done.wait());
  const std::chrono::duration<double, std::micro> ran(
      static_cast<double>(done.raw().end_ts - done.raw().start_ts) / 25.0);
  EXPECT_GT(ran.count(), kernel_us + 20 * 25.0);
  EXPECT_GT(all_ioctls.count(), 20 * 50.0);
}

TEST_F(KfdsimQueue, EmptyMaskHangsTheQueueUntilItGetsCus) {
  const auto kernel = kernel_of(10, 10);
  const LoadedKernels loaded({&kernel, 1});
  GpuQueue queue;
  std::array<std::uint32_t, 2> none{};
  ASSERT_EQ(queue.set_cu_mask(none), HSAKMT_STATUS_SUCCESS);
  const GpuSignal done;
  queue.dispatch(loaded.object(0), &done);
  const GpuSignal other_done;
  GpuQueue other;
  other.dispatch(loaded.object(0), &other_done);
  ASSERT_TRUE(other_done.wait());
  EXPECT_EQ(done.value(), 1);
  ASSERT_EQ(queue.use_cus(60), HSAKMT_STATUS_SUCCESS);
  EXPECT_TRUE(done.wait());
}

TEST_F(KfdsimQueue, CompletionSetsTheSignalsEvent) {
  HsaEventDescriptor description{};
  description.EventType = HSA_EVENTTYPE_SIGNAL;
  description.NodeId = gpu_node();
  HsaEvent* event = nullptr;
  ASSERT_EQ(hsaKmtCreateEvent(&description, false, false, &event), HSAKMT_STATUS_SUCCESS);
  const std::uint64_t mailbox = event->EventData.HWData2;
  ASSERT_NE(mailbox, 0U) << "the event has no mailbox";
  const auto kernel = kernel_of(3000, 3000);
  const LoadedKernels loaded({&kernel, 1});
  const GpuSignal done;
  done.raw().event_mailbox_ptr = mailbox;
  done.raw().event_id = event->EventId;
  GpuQueue queue;
  EXPECT_EQ(hsaKmtWaitOnEvent(event, 1), HSAKMT_STATUS_WAIT_TIMEOUT);
  queue.dispatch(loaded.object(0), &done);
  EXPECT_EQ(hsaKmtWaitOnEvent(event, 20'000), HSAKMT_STATUS_SUCCESS);
  EXPECT_EQ(done.value(), 0);
  // Auto-reset: the wait above consumed it.
  EXPECT_EQ(hsaKmtWaitOnEvent(event, 0), HSAKMT_STATUS_WAIT_TIMEOUT);
  EXPECT_EQ(hsaKmtDestroyEvent(event), HSAKMT_STATUS_SUCCESS);
}

TEST_F(KfdsimQueue, AutoResetEventIsConsumedByOneWaitAndAManualOneStays) {
  for (const bool manual : {false, true}) {
    HsaEventDescriptor description{};
    description.EventType = HSA_EVENTTYPE_SIGNAL;
    description.NodeId = gpu_node();
    HsaEvent* event = nullptr;
    ASSERT_EQ(hsaKmtCreateEvent(&description, manual, false, &event), HSAKMT_STATUS_SUCCESS);
    ASSERT_EQ(hsaKmtSetEvent(event), HSAKMT_STATUS_SUCCESS);
    EXPECT_EQ(hsaKmtWaitOnEvent(event, 1000), HSAKMT_STATUS_SUCCESS);
    const auto again = manual ? HSAKMT_STATUS_SUCCESS : HSAKMT_STATUS_WAIT_TIMEOUT;
    EXPECT_EQ(hsaKmtWaitOnEvent(event, 0), again);
    ASSERT_EQ(hsaKmtResetEvent(event), HSAKMT_STATUS_SUCCESS);
    EXPECT_EQ(hsaKmtWaitOnEvent(event, 0), HSAKMT_STATUS_WAIT_TIMEOUT);
    hsaKmtDestroyEvent(event);
  }
}

TEST_F(KfdsimQueue, UnknownKernelCompletesAfterItsEstimate) {
  const GpuBuffer code(GpuBuffer::Kind::system, 4096);
  const GpuSignal done;
  GpuQueue queue;
  queue.dispatch(code.gpu(), &done);
  ASSERT_TRUE(done.wait());
  // 1200 workgroups of 256 on 60 CUs that hold 10 each: 2 us and two rounds of 1 us.
  EXPECT_NEAR(done.device_us(), 4, 2 * tick_us);
}

TEST_F(KfdsimQueue, SteadyDispatchMakesNoIoctls) {
  const auto kernel = kernel_of(1, 1);
  const LoadedKernels loaded({&kernel, 1});
  const GpuSignal done(100);
  GpuQueue queue;
  const auto before = ioctl_count(::getpid(), "total");
  ASSERT_TRUE(before);
  for (int i = 0; i < 100; ++i) queue.dispatch(loaded.object(0), &done);
  ASSERT_TRUE(done.wait());
  EXPECT_EQ(ioctl_count(::getpid(), "total"), before);
  ASSERT_EQ(queue.use_cus(15), HSAKMT_STATUS_SUCCESS);
  EXPECT_EQ(ioctl_count(::getpid(), "total"), *before + 1);
}

}  // namespace
}  // namespace eclip::test
