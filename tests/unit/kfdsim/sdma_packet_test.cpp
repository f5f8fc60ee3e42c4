// SDMA packets by the words that the ROCm runtime writes.
#include "tools/kfdsim/sdma_packet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace eclip::kfdsim {
namespace {

using Words = std::vector<std::uint32_t>;

std::variant<SdmaPacket, QueueFault> decode(const Words& words) {
  return decode_sdma_packet(words, words.size() * sizeof(std::uint32_t));
}

/// The packet in the words, which must be as long as it is and have this body.
template <class Body>
Body body_of(const Words& words) {
  const auto decoded = decode(words);
  const auto* packet = std::get_if<SdmaPacket>(&decoded);
  EXPECT_NE(packet, nullptr) << std::get<QueueFault>(decoded).text;
  if (packet == nullptr) return {};
  EXPECT_EQ(packet->bytes, words.size() * sizeof(std::uint32_t));
  const auto* body = std::get_if<Body>(&packet->body);
  EXPECT_NE(body, nullptr) << "variant " << packet->body.index();
  return body == nullptr ? Body{} : *body;
}

std::string fault_of(const Words& words) {
  const auto decoded = decode(words);
  const auto* fault = std::get_if<QueueFault>(&decoded);
  return fault == nullptr ? "no fault" : fault->text;
}

const Words copy_words{0x00000001, 0x0000ffff, 0, 0x89abc000, 0x00007f01, 0x12345678, 0x00007f02};
const Words rect_words{(1U << 29) | 0x00000401,
                       0x10000000,
                       0x00007f00,
                       (3U << 16) | 5,
                       (99U << 13) | 2,
                       999,
                       0x20000000,
                       0x00007f11,
                       (1U << 16) | 7,
                       (49U << 13) | 1,
                       1999,
                       (10U << 16) | 39,
                       4};
const Words fill_words{0x8000000b, 0x1000, 0x00007f00, 0xdeadbeef, 0xffc};
const Words fence_words{0x00000005, 0x2000, 0x00007f00, 77};
const Words trap_words{0x00000006, 0x12};
const Words poll_words{0xb0000008, 0x3000, 0x00007f00, 0, 0xffffffff, 0x0fff0004};
const Words atomic_words{(47U << 25) | 10, 0x4000, 0x00007f00, 0xffffffff, 0xffffffff, 0, 0, 0};
const Words timestamp_words{0x0000020d, 0x5000, 0x00007f00};

TEST(SdmaPacketTest, Copy) {
  const auto copy = body_of<SdmaCopy>(copy_words);
  EXPECT_EQ(copy.bytes, 0x10000U);
  EXPECT_EQ(copy.source, 0x7f0189abc000U);
  EXPECT_EQ(copy.destination, 0x7f0212345678U);
}

TEST(SdmaPacketTest, LargestCopyHas4MiB) {
  Words words = copy_words;
  words[1] = 0x3fffff;
  EXPECT_EQ(body_of<SdmaCopy>(words).bytes, 1U << 22);
}

TEST(SdmaPacketTest, RectLargerThanAnyMemoryIsAFault) {
  Words words = rect_words;
  words[0] |= 7U << 29;
  words[11] = words[12] = 0xffffffff;
  EXPECT_TRUE(std::holds_alternative<QueueFault>(decode(words)));
}

TEST(SdmaPacketTest, CopyRect) {
  const auto rect = body_of<SdmaCopyRect>(rect_words);
  // Elements of two bytes; pitches, slices and extents are stored less one.
  EXPECT_EQ(rect.source.pitch, 200U);
  EXPECT_EQ(rect.source.slice, 2000U);
  EXPECT_EQ(rect.source.first, 0x7f0010000000U + 5 * 2 + 3 * 200 + 2 * 2000);
  EXPECT_EQ(rect.destination.pitch, 100U);
  EXPECT_EQ(rect.destination.slice, 4000U);
  EXPECT_EQ(rect.destination.first, 0x7f1120000000U + 7 * 2 + 1 * 100 + 1 * 4000);
  EXPECT_EQ(rect.width, 80U);
  EXPECT_EQ(rect.rows, 11U);
  EXPECT_EQ(rect.slices, 5U);
}

TEST(SdmaPacketTest, CopyRectOfEachElementSize) {
  for (std::uint32_t power = 0; power <= 4; ++power) {
    Words words = rect_words;
    words[0] = power << 29 | 0x401;
    const auto rect = body_of<SdmaCopyRect>(words);
    EXPECT_EQ(rect.width, 40U << power);
    EXPECT_EQ(rect.source.pitch, 100U << power);
    EXPECT_EQ(rect.destination.slice, 2000U << power);
  }
}

TEST(SdmaPacketTest, FillOfWords) {
  const auto fill = body_of<SdmaFill>(fill_words);
  EXPECT_EQ(fill.destination, 0x7f0000001000U);
  EXPECT_EQ(fill.value, 0xdeadbeefU);
  EXPECT_EQ(fill.bytes, 0x1000U);
}

TEST(SdmaPacketTest, Fence) {
  const auto fence = body_of<SdmaFence>(fence_words);
  EXPECT_EQ(fence.address, 0x7f0000002000U);
  EXPECT_EQ(fence.value, 77U);
}

TEST(SdmaPacketTest, Trap) {
  EXPECT_EQ(body_of<SdmaTrap>(trap_words).event_id, 0x12U);
  // The event id has 28 bits.
  EXPECT_EQ(body_of<SdmaTrap>({6, 0xf0000001}).event_id, 1U);
}

TEST(SdmaPacketTest, AtomicAdd) {
  const auto add = body_of<SdmaAtomicAdd>(atomic_words);
  EXPECT_EQ(add.address, 0x7f0000004000U);
  EXPECT_EQ(static_cast<std::int64_t>(add.addend), -1);
}

TEST(SdmaPacketTest, Timestamp) {
  EXPECT_EQ(body_of<SdmaTimestamp>(timestamp_words).address, 0x7f0000005000U);
}

TEST(SdmaPacketTest, PollOfMemory) {
  const auto poll = body_of<SdmaPoll>(poll_words);
  EXPECT_EQ(poll.address, 0x7f0000003000U);
  EXPECT_EQ(poll.reference, 0U);
  EXPECT_EQ(poll.mask, 0xffffffffU);
  EXPECT_EQ(poll.function, 3);
}

TEST(SdmaPacketTest, HostDataPathFlushIsNoPoll) {
  body_of<SdmaNop>({0x04000008, 0, 0, 0, 0, 0});
  body_of<SdmaNop>({0x84000008, 0, 0, 0, 0, 0});
}

struct Function {
  std::uint8_t number;
  bool below;
  bool equal;
  bool above;
};

class SdmaPollFunction : public ::testing::TestWithParam<Function> {};

INSTANTIATE_TEST_SUITE_P(
    All, SdmaPollFunction,
    ::testing::Values(Function{0, true, true, true}, Function{1, true, false, false},
                      Function{2, true, true, false}, Function{3, false, true, false},
                      Function{4, true, false, true}, Function{5, false, true, true},
                      Function{6, false, false, true}, Function{7, true, true, true}),
    [](const auto& function) { return std::to_string(function.param.number); });

TEST_P(SdmaPollFunction, ComparesTheMaskedValueWithoutSign) {
  SdmaPoll poll;
  poll.function = GetParam().number;
  poll.mask = 0xffffff00;
  poll.reference = 0x80000100;
  EXPECT_EQ(poll.holds(0x800000ff), GetParam().below);
  EXPECT_EQ(poll.holds(0x800001aa), GetParam().equal);
  EXPECT_EQ(poll.holds(0x80000200), GetParam().above);
  EXPECT_EQ(poll.holds(0x00000200), GetParam().below);
}

TEST(SdmaPacketTest, NopSkipsItsWords) {
  body_of<SdmaNop>({0});
  body_of<SdmaNop>({3U << 16, 1, 2, 3});
  // Longer than any other packet: only its first words are given.
  const auto decoded = decode_sdma_packet(Words{99U << 16}, 400);
  ASSERT_TRUE(std::holds_alternative<SdmaPacket>(decoded));
  EXPECT_EQ(std::get<SdmaPacket>(decoded).bytes, 400U);
  EXPECT_TRUE(std::holds_alternative<QueueFault>(decode_sdma_packet(Words{99U << 16}, 396)));
}

TEST(SdmaPacketTest, CutOffPacketsAreFaults) {
  for (const Words& whole : {copy_words, rect_words, fill_words, fence_words, trap_words,
                             poll_words, atomic_words, timestamp_words, Words{1U << 16, 0}}) {
    for (std::size_t words = 1; words < whole.size(); ++words) {
      const Words part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(words));
      EXPECT_THAT(fault_of(part), ::testing::HasSubstr("cut off")) << std::hex << whole[0];
    }
  }
}

TEST(SdmaPacketTest, NothingIsAFault) {
  EXPECT_THAT(fault_of({}), ::testing::HasSubstr("cut off"));
}

TEST(SdmaPacketTest, WhatIsNotSimulatedIsNamed) {
  EXPECT_THAT(fault_of({2, 0, 0, 0}), ::testing::HasSubstr("operation 2"));
  EXPECT_THAT(fault_of({0xff}), ::testing::HasSubstr("operation 255"));
  Words words = copy_words;
  words[0] |= 1U << 8;
  EXPECT_THAT(fault_of(words), ::testing::HasSubstr("kind 1"));
  words = fill_words;
  words[0] = 0x0000000b;
  EXPECT_THAT(fault_of(words), ::testing::HasSubstr("bytes"));
  words = atomic_words;
  words[0] = 15U << 25 | 10;
  EXPECT_THAT(fault_of(words), ::testing::HasSubstr("atomic operation 15"));
  words = timestamp_words;
  words[0] = 0x0000010d;
  EXPECT_THAT(fault_of(words), ::testing::HasSubstr("timestamp packets of kind 1"));
}

}  // namespace
}  // namespace eclip::kfdsim
