// Recordings of libeclip: what they say, and what is no recording.
#include "tools/eclip-profile/recording.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace eclip::profile {
namespace {

using ::testing::HasSubstr;

const std::string head = "eclip-record 1\ngpu 60 mi50 simulated\nworker my worker\n";
const std::string objects = "kernel 1 00ff 64 24\nlease 7 3 15\n";

std::string error_of(const std::string& text) {
  const auto recording = parse_recording(text, "run");
  return recording ? "no error" : recording.error().message();
}

TEST(ParseRecording, ReadsAll) {
  const auto recording = parse_recording(
      head + objects + "dispatch 7 1 100 12 1 64 1 1 512 1000 2500\ndropped 7 1\nend\n", "run");
  ASSERT_TRUE(recording) << recording.error().message();
  EXPECT_EQ(recording->gpu, "mi50 simulated");
  EXPECT_EQ(recording->gpu_cus, 60U);
  EXPECT_EQ(recording->worker, "my worker");
  EXPECT_EQ(recording->lease_cus, std::vector<std::uint32_t>{15});
  EXPECT_EQ(recording->dropped, 1U);
  EXPECT_TRUE(recording->ended);
  EXPECT_EQ(recording->trace.cus, 15U);
  ASSERT_EQ(recording->trace.kernels.size(), 1U);
  const model::TracedKernel& kernel = recording->trace.kernels[0];
  EXPECT_EQ(recording->trace.names.at(kernel.name), "code 00ff+0x40");
  EXPECT_EQ(kernel.shape.workgroups, 2U * 12) << "the last workgroup in x is not full";
  EXPECT_EQ(kernel.shape.workgroup_size, 64U);
  EXPECT_EQ(kernel.shape.registers_per_thread, 24U);
  EXPECT_EQ(kernel.shape.local_memory_bytes, 512U);
  EXPECT_EQ(kernel.start_us, 1);
  EXPECT_EQ(kernel.duration_us, 1.5);
}

TEST(ParseRecording, AWorkerThatWasKilledLeavesNoEnd) {
  const auto recording = parse_recording(head, "run");
  ASSERT_TRUE(recording);
  EXPECT_FALSE(recording->ended);
}

TEST(ParseRecording, WhatIsNoneIsNamedByLine) {
  EXPECT_THAT(error_of(""), HasSubstr("run: is empty"));
  EXPECT_THAT(error_of("hello\n"), HasSubstr("run:1: 'hello'"));
  EXPECT_THAT(error_of("eclip-record 2\n"), HasSubstr("run:1: "));
  EXPECT_THAT(error_of(head + "kernel 1"), HasSubstr("run:4: the line is not complete"));
  for (const char* line :
       {"kernel 1 00ff 64", "kernel x 00ff 64 24", "lease 7 3", "lease 7 3 15 4", "other", "",
        "dispatch 7 1 100 12 1 64 1 1 512 1000", "dispatch 7 1 100 12 1 64 1 1 512 1000 2500 1",
        "dispatch 8 1 100 12 1 64 1 1 512 1000 2500", "dispatch 7 2 100 12 1 64 1 1 512 1000 2500",
        "dispatch 7 1 100 12 1 0 1 1 512 1000 2500", "dispatch 7 1 0 12 1 64 1 1 512 1000 2500",
        "dispatch 7 1 100 12 1 64 1 1 512 2500 1000", "dispatch 7 1 -1 12 1 64 1 1 512 1 2"})
    EXPECT_THAT(error_of(head + objects + line + "\n"), HasSubstr("run:6: ")) << line;
}

}  // namespace
}  // namespace eclip::profile
