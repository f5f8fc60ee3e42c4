#include "daemon/packet_vetting.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <random>

namespace eclip::daemon {
namespace {

using ::testing::HasSubstr;

class PacketVetting : public ::testing::Test {
 protected:
  PacketVetting() {
    objects_.kernels = {{.object = 0x1000, .kernarg_bytes = 64, .group_segment_bytes = 128},
                        {.object = 0x2000, .kernarg_bytes = 0, .group_segment_bytes = 0}};
    objects_.memory[5] = {.gpu_address = 0x700000, .bytes = 4096};
    objects_.signal_slots = slots_->data();
    objects_.signals_gpu_address = 0x900000;
  }
  static LeasePacket dispatch() {
    LeasePacket packet{};
    packet.type = LeasePacketType::dispatch;
    packet.flags = LeasePacket::flag_barrier;
    packet.dispatch = {.kernel = 1,
                       .grid_size = {256, 2, 1},
                       .workgroup_size = {64, 2, 1},
                       .reserved = 0,
                       .group_segment_bytes = 1024,
                       .kernarg_memory = 5,
                       .kernarg_offset = 4096 - 64};
    return packet;
  }
  static LeasePacket barrier(LeasePacketType type, std::array<SignalUse, 5> dependencies) {
    LeasePacket packet{};
    packet.type = type;
    packet.barrier.dependencies = dependencies;
    return packet;
  }
  void forwarded(std::uint32_t signal, std::uint32_t generation, std::int64_t value) {
    objects_.signals[signal].generation = generation;
    (*slots_)[signal].value = value;
  }
  std::string error(const std::function<void(LeasePacket&)>& change) {
    LeasePacket packet = dispatch();
    change(packet);
    const auto vetted = vet_packet(packet, objects_);
    return vetted ? "passed" : vetted.error().message();
  }

  std::unique_ptr<std::array<SignalSlot, WorkerState::signal_count>> slots_ =
      std::make_unique<std::array<SignalSlot, WorkerState::signal_count>>();
  WorkerObjects objects_;
};

TEST_F(PacketVetting, HandlesAndOffsetsBecomeAddresses) {
  LeasePacket packet = dispatch();
  packet.completion = {.signal = 3, .generation = 1};
  const auto vetted = vet_packet(packet, objects_);
  ASSERT_TRUE(vetted) << vetted.error().message();
  EXPECT_FALSE(vetted->hold);
  const auto& to = vetted->image.dispatch;
  EXPECT_EQ(to.header & 0xff, HSA_PACKET_TYPE_KERNEL_DISPATCH);
  EXPECT_EQ(to.header >> HSA_PACKET_HEADER_BARRIER & 1, 1);
  EXPECT_EQ(to.setup, 3);
  EXPECT_EQ(to.grid_size_x, 256U);
  EXPECT_EQ(to.workgroup_size_y, 2U);
  EXPECT_EQ(to.group_segment_size, 1024U);
  EXPECT_EQ(to.private_segment_size, 0U);
  EXPECT_EQ(to.kernel_object, 0x1000U);
  EXPECT_EQ(reinterpret_cast<std::uint64_t>(to.kernarg_address), 0x700000U + 4096 - 64);
  EXPECT_EQ(to.completion_signal.handle, 0x900000U + 3 * sizeof(SignalSlot));
  EXPECT_EQ(vetted->completion, (SignalUse{3, 1}));
}

TEST_F(PacketVetting, EveryFieldOfADispatchIsChecked) {
  EXPECT_THAT(error([](auto& p) { p.dispatch.kernel = 0; }), HasSubstr("kernel handle 0"));
  EXPECT_THAT(error([](auto& p) { p.dispatch.kernel = 3; }), HasSubstr("kernel handle 3"));
  EXPECT_THAT(error([](auto& p) { p.dispatch.grid_size[1] = 0; }), HasSubstr("axis 1"));
  EXPECT_THAT(error([](auto& p) { p.dispatch.workgroup_size[2] = 0; }), HasSubstr("axis 2"));
  EXPECT_THAT(error([](auto& p) {
                p.dispatch.workgroup_size = {65535, 65535, 65535};
              }),
              HasSubstr("at most 1024"));
  EXPECT_THAT(error([](auto& p) { p.dispatch.group_segment_bytes = 127; }), HasSubstr("128 to"));
  EXPECT_THAT(error([](auto& p) { p.dispatch.group_segment_bytes = 65537; }), HasSubstr("65536"));
  EXPECT_THAT(error([](auto& p) { p.dispatch.kernarg_memory = 4; }), HasSubstr("memory handle 4"));
  EXPECT_THAT(error([](auto& p) { p.dispatch.kernarg_memory = 0; }), HasSubstr("memory handle 0"));
  EXPECT_THAT(error([](auto& p) { p.dispatch.kernarg_offset = 4096 - 48; }), HasSubstr("outside"));
  EXPECT_THAT(error([](auto& p) { p.dispatch.kernarg_offset = UINT64_MAX - 15; }),
              HasSubstr("outside"));
  EXPECT_THAT(error([](auto& p) { p.dispatch.kernarg_offset = 8; }), HasSubstr("misaligned"));
  EXPECT_THAT(error([](auto& p) { p.completion = {1024, 1}; }), HasSubstr("there are 1024"));
  EXPECT_THAT(error([](auto& p) { p.flags = 2; }), HasSubstr("flags"));
  EXPECT_THAT(error([](auto& p) { p.type = LeasePacketType::none; }), HasSubstr("type 0"));
  EXPECT_THAT(error([](auto& p) { p.type = static_cast<LeasePacketType>(9); }),
              HasSubstr("type 9"));
}

TEST_F(PacketVetting, AKernelWithoutArgumentsNeedsNoMemory) {
  LeasePacket packet = dispatch();
  packet.dispatch.kernel = 2;
  packet.dispatch.kernarg_memory = 0;
  const auto vetted = vet_packet(packet, objects_);
  ASSERT_TRUE(vetted);
  EXPECT_EQ(vetted->image.dispatch.kernarg_address, nullptr);
}

TEST_F(PacketVetting, ASignalMayBeUsedAgainOnlyAfterItsLastUseHasCompleted) {
  forwarded(3, 7, 1);
  const auto use = [](std::uint32_t generation) {
    return [generation](LeasePacket& p) { p.completion = {3, generation}; };
  };
  EXPECT_THAT(error(use(8)), HasSubstr("before its last use has completed"));
  (*slots_)[3].value = 0;
  EXPECT_EQ(error(use(8)), "passed");
  EXPECT_THAT(error(use(7)), HasSubstr("used again"));
  EXPECT_EQ(error(use(9)), "passed") << "use 8 was dropped with its lease";
}

TEST_F(PacketVetting, GenerationsWrapAroundPastZero) {
  forwarded(3, UINT32_MAX, 0);
  EXPECT_EQ(error([](auto& p) { p.completion = {3, 1}; }), "passed");
}

TEST_F(PacketVetting, ABarrierIsHeldUntilItsDependencyHasBeenForwarded) {
  const auto packet = barrier(LeasePacketType::barrier_and, {SignalUse{2, 1}});
  auto vetted = vet_packet(packet, objects_);
  ASSERT_TRUE(vetted);
  EXPECT_TRUE(vetted->hold);
  forwarded(2, 1, 1);
  vetted = vet_packet(packet, objects_);
  ASSERT_TRUE(vetted);
  EXPECT_FALSE(vetted->hold);
  ASSERT_EQ(vetted->wait_count, 1U);
  EXPECT_EQ(vetted->image.barrier.dep_signal[0].handle, 0x900000U + 2 * sizeof(SignalSlot));
}

TEST_F(PacketVetting, ADependencyThatHasCompletedIsLeftOut) {
  forwarded(2, 1, 0);
  forwarded(4, 9, 1);
  const auto vetted = vet_packet(
      barrier(LeasePacketType::barrier_and, {SignalUse{2, 1}, {4, 8}, {4, 9}}), objects_);
  ASSERT_TRUE(vetted);
  EXPECT_EQ(vetted->wait_count, 1U);
  EXPECT_EQ(vetted->image.barrier.dep_signal[0].handle, 0x900000U + 4 * sizeof(SignalSlot));
  EXPECT_EQ(vetted->image.barrier.dep_signal[1].handle, 0U);
}

TEST_F(PacketVetting, AnOrIsFulfilledByOneAndHeldWhileOneIsMissing) {
  forwarded(2, 1, 1);
  const auto packet = barrier(LeasePacketType::barrier_or, {SignalUse{2, 1}, {6, 1}});
  EXPECT_TRUE(vet_packet(packet, objects_)->hold);
  forwarded(6, 1, 1);
  auto vetted = vet_packet(packet, objects_);
  EXPECT_FALSE(vetted->hold);
  EXPECT_EQ(vetted->wait_count, 2U);
  EXPECT_EQ(vetted->image.barrier.header & 0xff, HSA_PACKET_TYPE_BARRIER_OR);
  forwarded(6, 1, 0);
  vetted = vet_packet(packet, objects_);
  EXPECT_EQ(vetted->wait_count, 0U);
  EXPECT_EQ(vetted->image.barrier.header & 0xff, HSA_PACKET_TYPE_BARRIER_AND);
}

TEST_F(PacketVetting, ADroppedDependencySpoilsAnAndAndNotAnOrThatSomethingElseCanFulfil) {
  forwarded(2, 2, 1);  // used again since
  objects_.signals[2].cancelled = 1;
  forwarded(4, 1, 1);
  const std::array<SignalUse, 5> both{SignalUse{2, 1}, {4, 1}};
  EXPECT_TRUE(vet_packet(barrier(LeasePacketType::barrier_and, both), objects_)->cancelled);
  const auto vetted = vet_packet(barrier(LeasePacketType::barrier_or, both), objects_);
  EXPECT_FALSE(vetted->cancelled);
  EXPECT_EQ(vetted->wait_count, 1U);
  EXPECT_TRUE(
      vet_packet(barrier(LeasePacketType::barrier_or, {SignalUse{2, 1}}), objects_)->cancelled);
}

TEST_F(PacketVetting, RandomBytesNeverReachMemoryThatTheWorkerDoesNotHave) {
  std::mt19937_64 random(20261122);
  std::uint32_t passed = 0;
  for (int round = 0; round < 500'000; ++round) {
    LeasePacket packet = dispatch();
    // A valid packet with a few random bytes gets deeper than noise alone.
    auto* bytes = reinterpret_cast<unsigned char*>(&packet);
    for (int change = 0; change < 3; ++change)
      bytes[random() % sizeof packet] = static_cast<unsigned char>(random());
    const auto vetted = vet_packet(packet, objects_);
    if (!vetted || vetted->hold) continue;
    if ((vetted->image.dispatch.header & 0xff) != HSA_PACKET_TYPE_KERNEL_DISPATCH) continue;
    ++passed;
    const auto& to = vetted->image.dispatch;
    const auto kernarg = reinterpret_cast<std::uint64_t>(to.kernarg_address);
    ASSERT_TRUE(to.kernel_object == 0x1000 || to.kernel_object == 0x2000);
    ASSERT_TRUE(kernarg == 0 || (kernarg >= 0x700000 && kernarg <= 0x700000 + 4096 - 64));
    ASSERT_LE(to.group_segment_size, 65536U);
    ASSERT_EQ(to.private_segment_size, 0U);
  }
  EXPECT_GT(passed, 1000U);
}

}  // namespace
}  // namespace eclip::daemon
