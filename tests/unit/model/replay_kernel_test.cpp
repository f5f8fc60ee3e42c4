// Replay images: what is written can be read back, by the layout that real GPUs and the simulated
// one agree on.
#include "tools/replay/replay_kernel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace eclip::replay {
namespace {

using ::testing::HasSubstr;

template <class T>
T read(const ReplayImage& image, std::size_t offset) {
  T value;
  EXPECT_LE(offset + sizeof(T), image.bytes.size());
  std::memcpy(&value, image.bytes.data() + offset, sizeof(T));
  return value;
}

ReplayKernel kernel(double time_us = 12.5) {
  return {.shape = {.workgroups = 640,
                    .workgroup_size = 256,
                    .registers_per_thread = 32,
                    .local_memory_bytes = 4096},
          .points = {{15, time_us * 2}, {60, time_us}},
          .mixes = false};
}

std::string message_for(const std::vector<ReplayKernel>& kernels) {
  const auto image = build_replay_image(kernels);
  if (image) return "no error";
  EXPECT_EQ(image.error().code, Errc::invalid_argument);
  return image.error().message();
}

TEST(ReplayImage, EveryRecordReadsBackAsItsKernel) {
  std::vector<ReplayKernel> kernels;
  for (int i = 1; i <= 5; ++i) kernels.push_back(kernel(i * 1.5));
  kernels[3].mixes = true;
  const auto image = build_replay_image(kernels);
  ASSERT_TRUE(image) << image.error().message();
  ASSERT_EQ(image->kernel_offsets.size(), kernels.size());
  for (std::size_t i = 0; i < kernels.size(); ++i) {
    const std::size_t offset = image->kernel_offsets[i];
    EXPECT_EQ(offset % kernel_alignment, 0U);
    const auto record = read<ReplayRecord>(*image, offset + record_offset);
    EXPECT_EQ(record.flags, i == 3 ? ReplayRecord::flag_mix : 0U);
    const auto decoded = decode_replay_record(record);
    ASSERT_TRUE(decoded) << decoded.error().message();
    EXPECT_EQ(decoded->shape().workgroups, 640U);
    EXPECT_EQ(decoded->shape().workgroup_size, 256U);
    EXPECT_EQ(decoded->shape().registers_per_thread, 32U);
    EXPECT_EQ(decoded->shape().local_memory_bytes, 4096U);
    EXPECT_DOUBLE_EQ(decoded->time_us(60), kernels[i].points[1].time_us);
    EXPECT_DOUBLE_EQ(decoded->time_us(15), kernels[i].points[0].time_us);
  }
}

TEST(ReplayImage, DescriptorsFollowTheAmdhsaLayout) {
  std::vector<ReplayKernel> kernels{kernel(), kernel(), kernel()};
  kernels[1].mixes = true;
  const auto image = build_replay_image(kernels);
  ASSERT_TRUE(image);
  std::set<std::int64_t> entries;
  for (std::size_t i = 0; i < kernels.size(); ++i) {
    const std::size_t offset = image->kernel_offsets[i];
    EXPECT_EQ(read<std::uint32_t>(*image, offset + 0), 0U) << "the code needs no LDS";
    EXPECT_EQ(read<std::uint32_t>(*image, offset + 4), 0U);
    EXPECT_EQ(read<std::uint32_t>(*image, offset + 8), i == 1 ? 64U : 0U);
    EXPECT_EQ(read<std::uint32_t>(*image, offset + 48), 0x00AF0000U);
    EXPECT_EQ(read<std::uint32_t>(*image, offset + 52), 0x84U);
    EXPECT_EQ(read<std::uint16_t>(*image, offset + 56), 8U);
    const auto entry = static_cast<std::int64_t>(offset) + read<std::int64_t>(*image, offset + 16);
    entries.insert(entry);
    EXPECT_EQ(entry % 256, 0);
    EXPECT_EQ(read<std::uint32_t>(*image, static_cast<std::size_t>(entry)), 0xBF810000U);
  }
  EXPECT_EQ(entries.size(), 1U) << "all kernels share one code block";
}

TEST(ReplayImage, OfNothingIsOnlyCode) {
  const auto image = build_replay_image({});
  ASSERT_TRUE(image);
  EXPECT_TRUE(image->kernel_offsets.empty());
  EXPECT_EQ(read<std::uint32_t>(*image, 0), 0xBF810000U);
}

TEST(ReplayImage, NamesTheKernelThatCannotBeEncoded) {
  std::vector<ReplayKernel> kernels{kernel(), kernel()};
  kernels[1].points.clear();
  EXPECT_THAT(message_for(kernels),
              HasSubstr("replay kernel 1: a kernel needs at least one point"));
  kernels[1].points.clear();
  for (std::uint32_t i = 1; i <= 17; ++i) kernels[1].points.push_back({i, 1.0});
  EXPECT_THAT(message_for(kernels), HasSubstr("replay kernel 1 has 17 points"));
  kernels[1].points.resize(16);
  EXPECT_EQ(message_for(kernels), "no error");
  kernels[1].points = {{8, 5e6}};
  EXPECT_THAT(message_for(kernels), HasSubstr("replay kernel 1: point 0 takes 5000000"));
  kernels[1].points = {{8, 0.0001}};
  EXPECT_THAT(message_for(kernels), HasSubstr("replay kernel 1: point 0"));
  kernels[1].points = {{8, 1}, {8, 1}};
  EXPECT_THAT(message_for(kernels), HasSubstr("replay kernel 1: point 1"));
}

TEST(ReplayRecord, RefusesWhatIsNotARecord) {
  const auto image = build_replay_image(std::vector<ReplayKernel>{kernel()});
  ASSERT_TRUE(image);
  const auto good = read<ReplayRecord>(*image, record_offset);
  ASSERT_TRUE(decode_replay_record(good));
  const auto refused = [&good](auto spoil) {
    ReplayRecord record = good;
    spoil(record);
    const auto decoded = decode_replay_record(record);
    return !decoded && decoded.error().code == Errc::malformed;
  };
  EXPECT_TRUE(refused([](ReplayRecord& record) { record.magic[7] = '2'; }));
  EXPECT_TRUE(refused([](ReplayRecord& record) { record.flags = 2; }));
  EXPECT_TRUE(refused([](ReplayRecord& record) { record.point_count = 0; }));
  EXPECT_TRUE(refused([](ReplayRecord& record) { record.point_count = 17; }));
  EXPECT_TRUE(refused([](ReplayRecord& record) { record.point_count = 0xFFFFFFFF; }));
  EXPECT_TRUE(refused([](ReplayRecord& record) { record.points[1].cus = 3; }));
  EXPECT_TRUE(refused([](ReplayRecord& record) { record.points[0].time_ns = 0; }));
}

TEST(Mix, DependsOnEveryInputTheirOrderAndTheSalt) {
  const std::vector<std::uint64_t> inputs{1, 2, 3, 4, 5, 6};
  std::set<std::uint64_t> values{mix(1, inputs)};
  values.insert(mix(2, inputs));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    std::vector<std::uint64_t> other = inputs;
    other[i] ^= 1ULL << 63U;
    values.insert(mix(1, other));
    std::swap(other = inputs, other);
    std::swap(other[i], other[(i + 1) % inputs.size()]);
    values.insert(mix(1, other));
    values.insert(mix(1, std::span(inputs).first(i)));
  }
  EXPECT_EQ(values.size(), 2 + 3 * inputs.size());
}

TEST(Mix, ChangesHalfOfTheBitsForOneInputBit) {
  double flipped = 0;
  for (unsigned bit = 0; bit < 64; ++bit) {
    const std::uint64_t a[] = {42, 7};
    const std::uint64_t b[] = {42 ^ (1ULL << bit), 7};
    flipped += __builtin_popcountll(mix(3, a) ^ mix(3, b));
  }
  EXPECT_NEAR(flipped / 64, 32, 2);
}

TEST(Mix, NeverChangesItsValues) {
  // Hosts and the simulated GPU may come from different builds.
  const std::uint64_t inputs[] = {1, 2};
  EXPECT_EQ(mix(0, {}), 16294208416658607535U);
  EXPECT_EQ(mix(7, inputs), 6913256195493046584U);
}

}  // namespace
}  // namespace eclip::replay
