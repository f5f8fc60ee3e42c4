// An SDMA queue's ring in device time.
#include "tools/kfdsim/sdma_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "tests/unit/kfdsim/gpu_memory_fixture.h"
#include "tools/kfdsim/gpu_context.h"

namespace eclip::kfdsim {
namespace {

using namespace std::chrono_literals;
using Words = std::vector<std::uint32_t>;
using Timestamp = std::array<std::uint32_t, 3>;

constexpr std::uint64_t ring_address = 0x1000000;
constexpr std::uint64_t ring_bytes = 256;
constexpr std::uint64_t pointers = 0x2000000;
constexpr std::uint64_t buffers = 0x3000000;
constexpr std::uint64_t buffer_bytes = 1 << 20;

model::GpuDescription mi50() {
  auto loaded = model::load_gpu_description(ECLIP_DATA_DIR "/gpus/mi50.toml");
  if (!loaded) throw std::runtime_error(loaded.error().message());
  // A byte takes a nanosecond.
  loaded->memory.sdma_gb_per_s = 1;
  return *loaded;
}

class SdmaQueueTest : public GpuMemoryTest {
 protected:
  void SetUp() override {
    map(memory(), ring_address, 4096);
    map(memory(), pointers, 4096);
    map(memory(), buffers, buffer_bytes);
  }
  GpuMemory& memory() { return context.memory; }
  SdmaQueue new_queue() { return {context, ring, engine, gpu, clock}; }

  /// Writes words to the ring, as if it had no end.
  void write(const Words& words) {
    for (const std::uint32_t word : words) {
      ASSERT_TRUE(memory().write_as(ring_address + written % ring_bytes, word));
      written += sizeof word;
    }
  }
  SdmaQueue::Progress run(SdmaQueue& queue, model::DeviceTime now) {
    return queue.run(
        written, now, [this](const SdmaQueue::Move& move) { moves.push_back(move); },
        [this] { return ++completed != stop_after; });
  }
  static Words copy(std::uint64_t from, std::uint64_t to, std::uint32_t bytes) {
    return {1, bytes - 1, 0, static_cast<std::uint32_t>(from), 0, static_cast<std::uint32_t>(to),
            0};
  }
  std::uint64_t read_pointer() { return memory().load(pointers).value_or(0); }

  const model::GpuDescription gpu = mi50();
  const KnownKernels known{};
  GpuContext context{::getpid(), "test", backing, budget, budget, gpu, known};
  RingSettings ring{ring_address, ring_bytes, pointers, pointers + 8, true};
  SdmaEngine engine;
  const DeviceClock clock{1.0, 25'000};
  std::uint64_t written = 0;
  std::vector<SdmaQueue::Move> moves;
  std::uint64_t completed = 0;   // packets
  std::uint64_t stop_after = 0;  // so many it goes no further; 0: never
};

TEST_F(SdmaQueueTest, GoesNoFurtherThanItMay) {
  SdmaQueue queue = new_queue();
  for (int i = 0; i < 3; ++i) write(copy(buffers, buffers + 5000, 1000));
  stop_after = 2;
  EXPECT_EQ(run(queue, 0us).packets, 0U);
  EXPECT_EQ(run(queue, 1us).packets, 1U);
  EXPECT_EQ(run(queue, 2us).packets, 1U);
  EXPECT_TRUE(queue.busy());
  EXPECT_EQ(queue.next_event(), std::nullopt) << "the third has not begun";
  EXPECT_EQ(run(queue, 50us).packets, 0U);
  EXPECT_EQ(run(queue, 51us).packets, 1U);
  EXPECT_EQ(moves.at(2).start, 50us);
}

TEST_F(SdmaQueueTest, CopyHasItsBytesAtItsEndAndNotBefore) {
  SdmaQueue queue = new_queue();
  memory().write_as<std::uint32_t>(buffers, 0xabcd);
  write(copy(buffers, buffers + 5000, 1000));
  EXPECT_FALSE(run(queue, 100ns).fault);
  EXPECT_TRUE(queue.busy());
  EXPECT_EQ(queue.next_event(), 1100ns);
  EXPECT_EQ(memory().read_as<std::uint32_t>(buffers + 5000), 0U);
  EXPECT_EQ(run(queue, 1099ns).packets, 0U);
  EXPECT_EQ(run(queue, 1200ns).packets, 1U);
  EXPECT_EQ(memory().read_as<std::uint32_t>(buffers + 5000), 0xabcdU);
  EXPECT_EQ(read_pointer(), 28U);
  ASSERT_EQ(moves.size(), 1U);
  EXPECT_EQ(moves[0].start, 100ns);
  EXPECT_EQ(moves[0].end, 1100ns);
}

TEST_F(SdmaQueueTest, CopiesFollowOneAnotherHoweverLateTheLookIs) {
  SdmaQueue queue = new_queue();
  write(copy(buffers, buffers + 5000, 1000));
  write(copy(buffers, buffers + 6000, 500));
  run(queue, 0ns);
  run(queue, 1300ns);
  EXPECT_EQ(queue.next_event(), 1500ns);
  run(queue, 9000ns);
  ASSERT_EQ(moves.size(), 2U);
  EXPECT_EQ(moves[1].start, 1000ns);
  EXPECT_EQ(moves[1].end, 1500ns);
}

TEST_F(SdmaQueueTest, QueuesOfOneEngineTakeTurns) {
  SdmaQueue first = new_queue();
  write(copy(buffers, buffers + 5000, 1000));
  run(first, 0ns);
  SdmaQueue second = new_queue();
  run(second, 10ns);
  EXPECT_EQ(second.next_event(), 2000ns);
}

TEST_F(SdmaQueueTest, PollHoldsUpWhatIsBehindIt) {
  SdmaQueue queue = new_queue();
  memory().write_as<std::uint32_t>(buffers, 1);
  write({0xb0000008, buffers, 0, 0, 0xffffffff, 0});
  write({5, buffers + 64, 0, 9});
  EXPECT_EQ(run(queue, 0ns).packets, 0U);
  EXPECT_TRUE(queue.busy());
  memory().write_as<std::uint32_t>(buffers, 0);
  EXPECT_EQ(run(queue, 1ns).packets, 2U);
  EXPECT_FALSE(queue.busy());
  EXPECT_EQ(memory().read_as<std::uint32_t>(buffers + 64), 9U);
}

TEST_F(SdmaQueueTest, TimestampIsThatOfThePacketBeforeIt) {
  SdmaQueue queue = new_queue();
  write(copy(buffers, buffers + 5000, 4000));
  write({0x20d, buffers + 8, 0});
  run(queue, 0ns);
  run(queue, 1ms);
  // 4 us of 40 ns each.
  EXPECT_EQ(memory().load(buffers + 8), 100U);
}

TEST_F(SdmaQueueTest, AtomicAddAndFill) {
  SdmaQueue queue = new_queue();
  memory().store(buffers, 5);
  write({47U << 25 | 10, buffers, 0, 0xffffffff, 0xffffffff, 0, 0, 0});
  write({0x8000000b, buffers + 16, 0, 0x01020304, 8 - 1});
  run(queue, 0ns);
  run(queue, 1ms);
  EXPECT_EQ(memory().load(buffers), 4U);
  EXPECT_EQ(memory().load(buffers + 16), 0x0102030401020304U);
  EXPECT_EQ(memory().load(buffers + 24), 0U);
}

TEST_F(SdmaQueueTest, PacketsGoOnAtTheRingsStart) {
  SdmaQueue queue = new_queue();
  memory().write_as<std::uint32_t>(buffers, 0x55);
  // 28 bytes do not divide 256: some packets cross the end.
  for (std::uint32_t i = 1; i <= 100; ++i) {
    write(copy(buffers, buffers + i * 8, 4));
    run(queue, model::DeviceTime(i * 100));
    ASSERT_FALSE(run(queue, model::DeviceTime(i * 100 + 50)).fault);
    ASSERT_EQ(memory().read_as<std::uint32_t>(buffers + i * 8), 0x55U) << i;
  }
  EXPECT_EQ(read_pointer(), 2800U);
}

TEST_F(SdmaQueueTest, LongNopIsSkipped) {
  SdmaQueue queue = new_queue();
  write(Words{39U << 16});
  write(Words(39, 0xffffffff));
  write({5, buffers, 0, 3});
  EXPECT_EQ(run(queue, 0ns).packets, 2U);
  EXPECT_EQ(memory().read_as<std::uint32_t>(buffers), 3U);
}

TEST_F(SdmaQueueTest, OneLookTakesABoundedNumberOfPackets) {
  constexpr std::uint64_t large_ring = 0x5000000;
  constexpr std::uint64_t packets = SdmaQueue::max_packets_at_once;
  ring.base = large_ring;
  ring.bytes = 4 * packets * sizeof(std::uint32_t);
  map(memory(), large_ring, ring.bytes);
  SdmaQueue queue = new_queue();
  memory().store(buffers, 7);
  written = 2 * packets * sizeof(std::uint32_t);  // zeros are NOPs of one word
  EXPECT_EQ(run(queue, 0ns).packets, packets);
  EXPECT_TRUE(queue.busy());
  memory().write_as<Timestamp>(large_ring + written, {0x20d, buffers, 0});
  written += sizeof(Timestamp);
  // What is left over goes on when it was due.
  EXPECT_EQ(run(queue, 1ms).packets, packets);
  EXPECT_EQ(run(queue, 2ms).packets, 1U);
  EXPECT_FALSE(queue.busy());
  EXPECT_EQ(memory().load(buffers), 0U);
}

TEST_F(SdmaQueueTest, DoorbellPastTheRingIsAFault) {
  SdmaQueue queue = new_queue();
  written = std::uint64_t{1} << 60;
  const auto progress = run(queue, 0ns);
  ASSERT_TRUE(progress.fault);
  EXPECT_THAT(progress.fault->text, ::testing::HasSubstr("its SDMA ring has 256"));
  EXPECT_EQ(progress.packets, 0U);
}

TEST_F(SdmaQueueTest, WhatIsNotMappedIsAMemoryFaultWithItsAddress) {
  constexpr std::uint32_t hole = 0x4000000;
  const std::vector<Words> bad{copy(hole, buffers, 8),
                               copy(buffers, hole, 8),
                               copy(buffers + buffer_bytes - 4, buffers, 8),
                               {5, hole, 0, 1},
                               {0xb0000008, hole, 0, 0, 0xffffffff, 0},
                               {47U << 25 | 10, hole, 0, 1, 0, 0, 0, 0},
                               {0x8000000b, hole, 0, 1, 7},
                               {0x20d, hole, 0}};
  for (const Words& words : bad) {
    written = 0;
    engine = {};
    SdmaQueue queue = new_queue();
    write(words);
    run(queue, 0ns);
    const auto progress = run(queue, 1ms);
    // A packet without duration faults at once.
    SdmaQueue again = new_queue();
    const auto fault = progress.fault ? progress.fault : run(again, 0ns).fault;
    ASSERT_TRUE(fault) << words[0];
    EXPECT_TRUE(fault->memory);
    EXPECT_THAT(fault->text, ::testing::HasSubstr("SDMA packet at byte 0"));
  }
}

}  // namespace
}  // namespace eclip::kfdsim
