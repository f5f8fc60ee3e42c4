#include "ipc/lease_ring.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

namespace eclip {
namespace {

LeasePacket numbered(std::uint32_t number) {
  LeasePacket packet{};
  packet.type = LeasePacketType::dispatch;
  packet.dispatch.kernel = number;
  packet.dispatch.kernarg_offset = std::uint64_t{number} * 3;
  return packet;
}

TEST(LeaseRing, AFullRingTakesNothingUntilAPacketIsTaken) {
  const auto ring = std::make_unique<LeaseRing>();
  LeaseRingWriter writer(*ring);
  LeaseRingReader reader(*ring);
  for (std::uint32_t i = 0; i < LeaseRing::slot_count; ++i) ASSERT_TRUE(writer.push(numbered(i)));
  EXPECT_FALSE(writer.push(numbered(9999)));
  EXPECT_EQ(reader.waiting(), LeaseRing::slot_count);
  EXPECT_EQ(reader.copy_next().dispatch.kernel, 0U);
  reader.pop();
  EXPECT_TRUE(writer.push(numbered(9999)));
  EXPECT_FALSE(writer.push(numbered(1)));
}

TEST(LeaseRing, PacketsArriveWholeAndInOrderBetweenThreads) {
  const auto ring = std::make_unique<LeaseRing>();
  constexpr std::uint32_t count = 200'000;
  std::thread producer([&] {
    LeaseRingWriter writer(*ring);
    for (std::uint32_t i = 1; i <= count;)
      if (writer.push(numbered(i)))
        ++i;
      else
        std::this_thread::yield();
  });
  LeaseRingReader reader(*ring);
  std::uint32_t wrong = 0;
  for (std::uint32_t i = 1; i <= count;) {
    if (reader.waiting() == 0) {
      std::this_thread::yield();
      continue;
    }
    const LeasePacket packet = reader.copy_next();
    if (packet.dispatch.kernel != i || packet.dispatch.kernarg_offset != std::uint64_t{i} * 3)
      ++wrong;
    reader.pop();
    ++i;
  }
  producer.join();
  EXPECT_EQ(wrong, 0U);
  EXPECT_EQ(reader.waiting(), 0U);
}

TEST(LeaseRing, AWriteIndexThatRunsAwayIsVisibleAsMoreThanTheRingHolds) {
  const auto ring = std::make_unique<LeaseRing>();
  const LeaseRingReader reader(*ring);
  ring->written.store(LeaseRing::slot_count + 1);
  EXPECT_GT(reader.waiting(), LeaseRing::slot_count);
  ring->written.store(static_cast<std::uint64_t>(-1));
  EXPECT_GT(reader.waiting(), LeaseRing::slot_count);
}

}  // namespace
}  // namespace eclip
