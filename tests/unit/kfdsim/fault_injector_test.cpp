// Which calls and queues faults hit, and when.
#include "tools/kfdsim/fault_injector.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string>

namespace eclip::kfdsim {
namespace {

using namespace std::chrono_literals;

constexpr std::uint8_t create_queue = 0x02;
constexpr std::uint8_t get_clock = 0x05;

FaultInjector injector_of(std::initializer_list<const char*> texts, std::uint64_t seed = 0) {
  std::vector<FaultSpec> specs;
  for (const char* text : texts) specs.push_back(parse_fault_spec(text).value());
  return FaultInjector(std::move(specs), seed);
}

/// A letter for each of a process's calls: '.' carried out, 'x' failed, 'd' delayed, 'D' both.
std::string calls(FaultInjector& injector, FaultHistory& process, std::uint8_t number, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    const auto outcome = injector.ioctl(process, number);
    const bool late = outcome.delay.count() != 0;
    text += outcome.error != 0 ? (late ? 'D' : 'x') : (late ? 'd' : '.');
  }
  return text;
}
std::string calls(FaultInjector&& injector, std::uint8_t number, int count) {
  FaultHistory process;
  return calls(injector, process, number, count);
}

TEST(FaultInjector, HitsItsCommandOnly) {
  EXPECT_EQ(calls(injector_of({}), create_queue, 3), "...");
  EXPECT_EQ(calls(injector_of({"ioctl:create_queue,error=EIO"}), create_queue, 3), "xxx");
  EXPECT_EQ(calls(injector_of({"ioctl:create_queue,error=EIO"}), get_clock, 3), "...");
  EXPECT_EQ(calls(injector_of({"ioctl:any,delay=1ms"}), get_clock, 3), "ddd");
  EXPECT_EQ(calls(injector_of({"hang-queue", "reset,at=0s", "vram,limit=0B"}), get_clock, 3),
            "...");
}

TEST(FaultInjector, SparesTheFirstAndStopsAfterTheLast) {
  EXPECT_EQ(calls(injector_of({"ioctl:any,error=EIO,after=2,count=3"}), get_clock, 8), "..xxx...");
  auto injector = injector_of({"ioctl:any,error=EIO,count=1"});
  FaultHistory one;
  FaultHistory other;
  EXPECT_EQ(calls(injector, one, get_clock, 3), "x..");
  EXPECT_EQ(calls(injector, one, create_queue, 3), "...") << "count is of the process's calls";
  EXPECT_EQ(calls(injector, other, get_clock, 3), "x..") << "each process has its own";
}

TEST(FaultInjector, FaultsOfOneCallAddUp) {
  auto injector = injector_of({"ioctl:any,error=EIO,delay=2ms",
                               "ioctl:get_clock_counters,delay=1ms", "ioctl:any,error=ENOMEM"});
  FaultHistory process;
  const auto outcome = injector.ioctl(process, get_clock);
  EXPECT_EQ(outcome.error, EIO) << "the first that is given";
  EXPECT_EQ(outcome.delay, 3ms);
}

TEST(FaultInjector, ProbabilityDependsOnSeedAndCounterAlone) {
  constexpr int many = 2000;
  const auto pattern = [](std::uint64_t seed) {
    return calls(injector_of({"ioctl:any,error=EIO,probability=0.3"}, seed), get_clock, many);
  };
  const std::string first = pattern(1);
  EXPECT_EQ(pattern(1), first);
  EXPECT_NE(pattern(2), first);
  const auto hits = std::count(first.begin(), first.end(), 'x');
  EXPECT_GT(hits, many * 25 / 100);
  EXPECT_LT(hits, many * 35 / 100);

  // Other processes and other commands in between change nothing.
  auto injector = injector_of({"ioctl:any,error=EIO,probability=0.3"}, 1);
  FaultHistory one;
  FaultHistory other;
  std::string interleaved;
  for (int i = 0; i < many; ++i) {
    interleaved += calls(injector, one, get_clock, 1);
    calls(injector, one, create_queue, i % 2);
    calls(injector, other, get_clock, i % 3);
  }
  EXPECT_EQ(interleaved, first);
}

TEST(FaultInjector, ProbabilityHasItsEnds) {
  EXPECT_EQ(calls(injector_of({"ioctl:any,error=EIO,probability=0"}), get_clock, 50),
            std::string(50, '.'));
  EXPECT_EQ(calls(injector_of({"ioctl:any,error=EIO,probability=1"}), get_clock, 50),
            std::string(50, 'x'));
}

TEST(FaultInjector, Queues) {
  auto injector = injector_of({"hang-queue,queue=2,after=7"});
  FaultHistory one;
  FaultHistory other;
  EXPECT_FALSE(injector.queue_created(one));
  EXPECT_FALSE(injector.queue_created(other));
  const auto hang = injector.queue_created(one);
  ASSERT_TRUE(hang);
  EXPECT_EQ(hang->after, 7U);
  EXPECT_FALSE(injector.queue_created(one));
}

TEST(FaultInjector, MemoryIsTheLeastOfAllLimits) {
  const auto injector =
      injector_of({"vram,limit=64MiB", "vram,limit=32MiB", "system-memory,limit=1GiB"});
  EXPECT_EQ(injector.limited(1ULL << 40, true), 32ULL << 20);
  EXPECT_EQ(injector.limited(1ULL << 20, true), 1ULL << 20);
  EXPECT_EQ(injector.limited(1ULL << 40, false), 1ULL << 30);
}

TEST(FaultInjector, TimedFaultsComeInOrder) {
  auto injector =
      injector_of({"reset,at=3s,for=1s", "stall-processor,at=1s,for=2ms", "reset,after=5"});
  EXPECT_EQ(injector.next_due(), 1s);
  EXPECT_FALSE(injector.take_due(999ms));
  const auto stall = injector.take_due(10s);
  ASSERT_TRUE(stall);
  EXPECT_EQ(stall->at, 1s);
  EXPECT_EQ(stall->duration, 2ms);
  EXPECT_FALSE(stall->resets);
  const auto reset = injector.take_due(10s);
  ASSERT_TRUE(reset);
  EXPECT_EQ(reset->at, 3s);
  EXPECT_TRUE(reset->resets);
  EXPECT_EQ(injector.next_due(), std::nullopt);
}

/// A letter for each packet of the first process: '.' nothing, 's' a stall, 'r' a reset.
std::string packets(FaultInjector&& injector, int count_to, std::uint64_t process = 1) {
  std::string text;
  for (int i = 1; i <= count_to; ++i) {
    const auto outcome = injector.packet_completed(process, static_cast<std::uint64_t>(i));
    text += outcome.reset ? 'r' : outcome.stall ? 's' : '.';
  }
  return text;
}

TEST(FaultInjector, PacketsOfOneProcessBringFaultsAboutOnce) {
  EXPECT_EQ(packets(injector_of({"reset,after=3"}), 6), "..r...");
  EXPECT_EQ(packets(injector_of({"reset,after=3"}), 6, 2), "......") << "the first process's";
  EXPECT_EQ(packets(injector_of({"stall-processor,after=2,for=1s,process=2"}), 4, 2), ".s..");
  EXPECT_EQ(packets(injector_of({"stall-processor,after=2,for=1s,count=2"}), 6), ".ss...");
  EXPECT_EQ(packets(injector_of({"stall-processor,at=0s,for=1s", "reset,at=0s"}), 3), "...");
  auto injector = injector_of(
      {"stall-processor,after=1,for=1s", "stall-processor,after=1,for=2s", "reset,after=1,for=3s"});
  const auto outcome = injector.packet_completed(1, 1);
  EXPECT_EQ(outcome.stall, 2s) << "the longest";
  EXPECT_EQ(outcome.reset, 3s);
}

TEST(FaultInjector, WhichPacketsDoItIsTheSeeds) {
  constexpr int many = 2000;
  const auto pattern = [](std::uint64_t seed) {
    return packets(injector_of({"stall-processor,probability=0.3,for=1s,count=5000"}, seed), many);
  };
  const std::string first = pattern(1);
  EXPECT_EQ(pattern(1), first);
  EXPECT_NE(pattern(2), first);
  const auto stalls = std::count(first.begin(), first.end(), 's');
  EXPECT_GT(stalls, many * 25 / 100);
  EXPECT_LT(stalls, many * 35 / 100);
}

/// A letter for each allocation of VRAM: '.' or 'x'.
std::string allocations(FaultInjector&& injector, int count_to) {
  FaultHistory process;
  std::string text;
  for (int i = 0; i < count_to; ++i) {
    text += injector.allocation_fails(process, true) ? 'x' : '.';
    injector.allocation_fails(process, false);  // counted by itself
  }
  return text;
}

TEST(FaultInjector, WhichAllocationsFailIsTheSeeds) {
  EXPECT_EQ(allocations(injector_of({"vram,limit=1B"}), 3), "...") << "that is not by chance";
  EXPECT_EQ(allocations(injector_of({"system-memory,probability=1"}), 3), "...");
  const auto pattern = [](std::uint64_t seed) {
    return allocations(injector_of({"vram,probability=0.5"}, seed), 100);
  };
  EXPECT_EQ(pattern(1), pattern(1));
  EXPECT_NE(pattern(1), pattern(2));
}

TEST(FaultInjector, SummaryCounts) {
  EXPECT_EQ(injector_of({}).summary(), "");
  auto injector = injector_of({"ioctl:any,error=EIO,count=2", "vram,limit=1MiB", "hang-queue"}, 9);
  FaultHistory process;
  calls(injector, process, get_clock, 5);
  injector.memory_ended(true);
  injector.memory_ended(false);
  EXPECT_EQ(injector.summary(),
            "faults injected with seed 9: 2 x ioctl:any,error=EIO,count=2; 1 x vram,limit=1MiB; "
            "0 x hang-queue");
}

}  // namespace
}  // namespace eclip::kfdsim
