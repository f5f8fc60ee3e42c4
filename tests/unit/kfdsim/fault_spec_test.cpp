// The syntax of --fault.
#include "tools/kfdsim/fault_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <string>

namespace eclip::kfdsim {
namespace {

using namespace std::chrono_literals;

template <class Fault>
Fault parsed(const std::string& text) {
  const auto spec = parse_fault_spec(text);
  if (!spec) throw std::runtime_error(spec.error().message());
  EXPECT_EQ(spec->text, text);
  return std::get<Fault>(spec->fault);
}

TEST(FaultSpec, IoctlErrorsAndDelays) {
  const auto error = parsed<IoctlFault>("ioctl:create_queue,error=ENOMEM,probability=0.1");
  EXPECT_EQ(error.number, 0x02);
  EXPECT_EQ(error.error, ENOMEM);
  EXPECT_EQ(error.probability, 0.1);
  EXPECT_EQ(error.delay, 0ns);
  EXPECT_EQ(error.after, 0U);
  EXPECT_EQ(error.count, std::nullopt);
  const auto delay = parsed<IoctlFault>("ioctl:any,count=2,after=7,delay=1.5ms");
  EXPECT_EQ(delay.number, std::nullopt);
  EXPECT_EQ(delay.error, 0);
  EXPECT_EQ(delay.delay, 1500us);
  EXPECT_EQ(delay.probability, 1);
  EXPECT_EQ(delay.after, 7U);
  EXPECT_EQ(delay.count, 2U);
}

TEST(FaultSpec, CommandsHaveTheHeadersNames) {
  EXPECT_EQ(parsed<IoctlFault>("ioctl:get_version,error=EIO").number, 0x01);
  EXPECT_EQ(parsed<IoctlFault>("ioctl:acquire_vm,error=EIO").number, 0x15);
  EXPECT_EQ(parsed<IoctlFault>("ioctl:set_cu_mask,error=EIO").number, 0x1a);
  EXPECT_EQ(parsed<IoctlFault>("ioctl:available_memory,error=EIO").number, 0x23);
}

TEST(FaultSpec, Queues) {
  const auto any = parsed<HangFault>("hang-queue");
  EXPECT_EQ(any.queue, std::nullopt);
  EXPECT_EQ(any.after, 0U);
  EXPECT_EQ(any.probability, 1);
  const auto one = parsed<HangFault>("hang-queue,queue=3,after=1000,probability=0.5");
  EXPECT_EQ(one.queue, 3U);
  EXPECT_EQ(one.after, 1000U);
  EXPECT_EQ(one.probability, 0.5);
}

TEST(FaultSpec, StallsMemoryAndResets) {
  const auto stall = parsed<StallFault>("stall-processor,at=2s,for=100ms");
  EXPECT_EQ(stall.trigger.at, 2s);
  EXPECT_EQ(stall.duration, 100ms);
  const auto vram = parsed<MemoryLimit>("vram,limit=64MiB");
  EXPECT_TRUE(vram.vram);
  EXPECT_EQ(vram.limit_bytes, 64ULL << 20);
  EXPECT_EQ(vram.probability, 0);
  const auto system = parsed<MemoryLimit>("system-memory,limit=0.5GiB");
  EXPECT_FALSE(system.vram);
  EXPECT_EQ(system.limit_bytes, 512ULL << 20);
  EXPECT_EQ(parsed<MemoryLimit>("vram,limit=0B").limit_bytes, 0U);
  const auto timed = parsed<ResetFault>("reset,at=1s");
  EXPECT_EQ(timed.trigger.at, 1s);
  EXPECT_EQ(timed.duration, 0ns);
  const auto counted = parsed<ResetFault>("reset,after=10,for=500ms");
  EXPECT_EQ(counted.trigger.at, std::nullopt);
  EXPECT_EQ(counted.trigger.after, 10U);
  EXPECT_EQ(counted.trigger.process, 1U);
  EXPECT_EQ(counted.trigger.probability, 1);
  EXPECT_EQ(counted.trigger.count, 1U);
  EXPECT_EQ(counted.duration, 500ms);
  EXPECT_EQ(parsed<ResetFault>("reset,at=0s").trigger.at, 0ns);
}

TEST(FaultSpec, WhatPacketsAndAllocationsBringAbout) {
  const auto stall =
      parsed<StallFault>("stall-processor,for=1ms,probability=0.5,after=7,process=2,count=3");
  EXPECT_EQ(stall.trigger.at, std::nullopt);
  EXPECT_EQ(stall.trigger.probability, 0.5);
  EXPECT_EQ(stall.trigger.after, 7U);
  EXPECT_EQ(stall.trigger.process, 2U);
  EXPECT_EQ(stall.trigger.count, 3U);
  const auto reset = parsed<ResetFault>("reset,probability=0.25,process=4");
  EXPECT_EQ(reset.trigger.after, 1U);
  EXPECT_EQ(reset.trigger.probability, 0.25);
  EXPECT_EQ(reset.trigger.process, 4U);
  const auto memory = parsed<MemoryLimit>("system-memory,probability=0.75");
  EXPECT_EQ(memory.limit_bytes, std::nullopt);
  EXPECT_EQ(memory.probability, 0.75);
}

struct Bad {
  const char* text;
  const char* part;    ///< that the message names
  const char* remedy;  ///< that it gives
};
class BadFaultSpec : public ::testing::TestWithParam<Bad> {};

TEST_P(BadFaultSpec, IsRefusedWithThePlaceAndTheRemedy) {
  const auto spec = parse_fault_spec(GetParam().text);
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().code, Errc::invalid_argument);
  const std::string message = spec.error().message();
  EXPECT_THAT(message, ::testing::StartsWith(std::string(GetParam().text) + ": "));
  EXPECT_THAT(message, ::testing::HasSubstr(GetParam().part));
  EXPECT_THAT(message, ::testing::HasSubstr(GetParam().remedy));
}

INSTANTIATE_TEST_SUITE_P(
    Texts, BadFaultSpec,
    ::testing::Values(
        Bad{"", "\"\"", "give ioctl:NAME"}, Bad{"ioctl", "\"ioctl\"", "give ioctl:NAME"},
        Bad{"hang,after=1", "\"hang\"", "hang-queue"},
        Bad{"ioctl:,error=EIO", "\"\"", "create_queue"},
        Bad{"ioctl:CREATE_QUEUE,error=EIO", "\"CREATE_QUEUE\"", "create_queue"},
        Bad{"ioctl:create_queue", "ioctl fault", "error=ERRNO, delay=TIME"},
        Bad{"ioctl:create_queue,probability=1", "ioctl fault", "error=ERRNO"},
        Bad{"ioctl:create_queue,error=12", "error=12", "ENOMEM"},
        Bad{"ioctl:create_queue,error=enomem", "error=enomem", "ENOMEM"},
        Bad{"ioctl:create_queue,error=", "error=", "ENOMEM"},
        Bad{"ioctl:any,error=EIO,", "\"\"", "probability=..."},
        Bad{"ioctl:any,error", "\"error\"", "error=..."},
        Bad{"ioctl:any,errno=EIO", "\"errno=EIO\"", "error=..."},
        Bad{"ioctl:any,error=EIO,error=EIO", "error is given twice", "once"},
        Bad{"ioctl:any,error=EIO,probability=1.1", "probability=1.1", "0 to 1"},
        Bad{"ioctl:any,error=EIO,probability=-0.1", "probability=-0.1", "0 to 1"},
        Bad{"ioctl:any,error=EIO,probability=nan", "probability=nan", "0 to 1"},
        Bad{"ioctl:any,error=EIO,probability=10%", "probability=10%", "0 to 1"},
        Bad{"ioctl:any,error=EIO,after=-1", "after=-1", "whole number from 0"},
        Bad{"ioctl:any,error=EIO,after=1.5", "after=1.5", "whole number"},
        Bad{"ioctl:any,error=EIO,count=0", "count=0", "from 1"},
        Bad{"ioctl:any,error=EIO,count=99999999999999999999", "count=9", "whole number"},
        Bad{"ioctl:any,delay=5", "delay=5", "5ms"}, Bad{"ioctl:any,delay=ms", "delay=ms", "5ms"},
        Bad{"ioctl:any,delay=-5ms", "delay=-5ms", "5ms"},
        Bad{"ioctl:any,delay=5 ms", "delay=5 ms", "5ms"},
        Bad{"ioctl:any,delay=infs", "delay=infs", "5ms"},
        Bad{"ioctl:any,delay=1e30s", "delay=1e30s", "5ms"},
        Bad{"ioctl:any,delay=0s", "ioctl fault", "delay=TIME"},
        Bad{"hang-queue,queue=0", "queue=0", "from 1"},
        Bad{"hang-queue,at=1s", "\"at=1s\"", "after=..."},
        Bad{"stall-processor", "stall", "at=TIME, or after=PACKETS"},
        Bad{"stall-processor,for=1s", "stall", "at=TIME"},
        Bad{"stall-processor,for=1s,process=1", "stall", "after=PACKETS"},
        Bad{"stall-processor,for=1s,at=1s,process=1", "stall", "one cause"},
        Bad{"stall-processor,for=1s,at=1s,probability=1", "stall", "one cause"},
        Bad{"stall-processor,at=1s,for=0s", "stall", "for=TIME"},
        Bad{"stall-processor,after=1", "stall", "for=TIME"}, Bad{"vram", "memory", "limit=SIZE"},
        Bad{"vram=64MiB", "\"vram=64MiB\"", "vram"}, Bad{"vram,limit=64", "limit=64", "64MiB"},
        Bad{"vram,limit=64MB", "limit=64MB", "64MiB"},
        Bad{"system-memory,limit=-1B", "limit=-1B", "1GiB"}, Bad{"reset", "reset", "at=TIME, or"},
        Bad{"reset,after=1,count=2", "count=2", "probability="},
        Bad{"reset,after=1,process=0", "process=0", "from 1"},
        Bad{"reset,at=1s,after=5", "reset", "after=PACKETS"},
        Bad{"reset,after=0", "after=0", "from 1"}));

}  // namespace
}  // namespace eclip::kfdsim
