// The layouts of shared memory and messages, stated a second time. A failure here means: an eclipd
// and a libeclip of different builds no longer understand each other. Bump
// RegionHeader::layout_major or MessageHeader::protocol_major, and then change these numbers.
#include <gtest/gtest.h>

#include "ipc/board.h"
#include "ipc/lease_ring.h"
#include "ipc/messages.h"
#include "ipc/region.h"
#include "ipc/worker_regions.h"

namespace eclip {
namespace {

constexpr const char* bump = "bump the version, then restate the layout";

TEST(Layout, RegionHeader) {
  EXPECT_EQ(RegionHeader::layout_major, 4) << bump;
  EXPECT_EQ(offsetof(RegionHeader, major), 8U) << bump;
  EXPECT_EQ(offsetof(RegionHeader, header_bytes), 12U) << bump;
  EXPECT_EQ(offsetof(RegionHeader, region_bytes), 16U) << bump;
  EXPECT_EQ(offsetof(RegionHeader, boot_id), 24U) << bump;
  EXPECT_EQ(offsetof(RegionHeader, epoch), 40U) << bump;
  EXPECT_EQ(offsetof(RegionHeader, kind), 48U) << bump;
  EXPECT_EQ(offsetof(RegionHeader, state), 52U) << bump;
}

TEST(Layout, LeaseRing) {
  EXPECT_EQ(sizeof(LeaseRing), 128U + 1024U * 64U) << bump;
  EXPECT_EQ(offsetof(LeasePacket, type), 0U) << bump;
  EXPECT_EQ(offsetof(LeasePacket, flags), 1U) << bump;
  EXPECT_EQ(offsetof(LeasePacket, completion), 4U) << bump;
  EXPECT_EQ(offsetof(LeasePacket, dispatch), 16U) << bump;
  EXPECT_EQ(offsetof(LeasePacket, barrier), 16U) << bump;
  EXPECT_EQ(offsetof(LeaseDispatch, grid_size), 4U) << bump;
  EXPECT_EQ(offsetof(LeaseDispatch, workgroup_size), 16U) << bump;
  EXPECT_EQ(offsetof(LeaseDispatch, group_segment_bytes), 24U) << bump;
  EXPECT_EQ(offsetof(LeaseDispatch, kernarg_memory), 28U) << bump;
  EXPECT_EQ(offsetof(LeaseDispatch, kernarg_offset), 32U) << bump;
}

TEST(Layout, WorkerRegionsAndBoard) {
  EXPECT_EQ(sizeof(SignalSlot), 128U) << bump;
  EXPECT_EQ(offsetof(SignalSlot, cancelled), 68U) << bump;
  EXPECT_EQ(offsetof(SignalSlot, wakes), 72U) << bump;
  EXPECT_EQ(sizeof(LeaseSlot), 64U) << bump;
  EXPECT_EQ(offsetof(LeaseSlot, reason), 4U) << bump;
  EXPECT_EQ(offsetof(LeaseSlot, lease), 8U) << bump;
  EXPECT_EQ(offsetof(LeaseSlot, deadline_ns), 16U) << bump;
  EXPECT_EQ(offsetof(LeaseSlot, accepted), 24U) << bump;
  EXPECT_EQ(sizeof(PlanTable), 22080U) << bump;
  EXPECT_EQ(offsetof(PlanTable, seat), 8U) << bump;
  EXPECT_EQ(offsetof(PlanTable, first_kernel), 24U) << bump;
  EXPECT_EQ(offsetof(PlanTable, stream), 1048U) << bump;
  EXPECT_EQ(offsetof(WorkerState, plans), 64U + 16U * 64U + 1024U * 128U) << bump;
  EXPECT_EQ(sizeof(WorkerState), 64U + 16U * 64U + 1024U * 128U + 2U * 22080U) << bump;
  EXPECT_EQ(offsetof(WorkerState, fault), 0U) << bump;
  EXPECT_EQ(offsetof(WorkerState, fault_lease), 8U) << bump;
  EXPECT_EQ(offsetof(WorkerState, fault_packet), 16U) << bump;
  EXPECT_EQ(offsetof(WorkerState, leases), 64U) << bump;
  EXPECT_EQ(offsetof(WorkerRequest, leases), 4U) << bump;
  EXPECT_EQ(offsetof(WorkerRequest, waiters), 128U) << bump;
  EXPECT_EQ(offsetof(WorkerRequest, requests_per_1000_s), 128U + 1024U * 2U) << bump;
  EXPECT_EQ(offsetof(WorkerRequest, time_permille), 132U + 1024U * 2U) << bump;
  EXPECT_EQ(offsetof(WorkerRequest, scheduler), 192U + 1024U * 2U) << bump;
  EXPECT_EQ(sizeof(WorkerRequest), 576U + 1024U * 2U) << bump;
  EXPECT_EQ(offsetof(Board, plan_epoch), 144U) << bump;
  EXPECT_EQ(offsetof(Board, heartbeat_ns), 64U) << bump;
  EXPECT_EQ(offsetof(Board, device_time_rate), 136U) << bump;
  EXPECT_EQ(offsetof(Board, gpu_counter_hz), 152U) << bump;
  EXPECT_EQ(offsetof(Board, gpu_name), 168U) << bump;
  EXPECT_EQ(offsetof(Board, streams), 240U) << bump;
  EXPECT_EQ(sizeof(Board), 1280U) << bump;
}

TEST(Layout, MessagePayloads) {
  EXPECT_EQ(MessageHeader::protocol_major, 2) << bump;
  EXPECT_EQ(sizeof(Message), 256U) << bump;
  EXPECT_EQ(sizeof(MessageHeader), 16U) << bump;
  EXPECT_EQ(sizeof(Hello), 136U) << bump;
  EXPECT_EQ(sizeof(Welcome), 16U) << bump;
  EXPECT_EQ(sizeof(LeaseAcquire), 24U) << bump;
  EXPECT_EQ(sizeof(LeaseGranted), 24U) << bump;
  EXPECT_EQ(sizeof(LeaseQueued), 16U) << bump;
  EXPECT_EQ(sizeof(LeaseRevoke), 16U) << bump;
  EXPECT_EQ(sizeof(MemoryAllocate), 16U) << bump;
  EXPECT_EQ(sizeof(MemoryAllocated), 24U) << bump;
  EXPECT_EQ(sizeof(KernelRegister), 16U) << bump;
  EXPECT_EQ(sizeof(PlanChoice), 16U) << bump;
  EXPECT_EQ(sizeof(PlanPart), 236U) << bump;
  EXPECT_EQ(sizeof(PlanRecord), 232U) << bump;
  EXPECT_EQ(sizeof(ErrorReply), 228U) << bump;
  EXPECT_EQ(sizeof(StatusReply), 224U) << bump;
  EXPECT_EQ(sizeof(StreamRecord), 232U) << bump;
  EXPECT_EQ(sizeof(ClientRecord), 168U) << bump;
  EXPECT_EQ(sizeof(LeaseRecord), 88U) << bump;
  EXPECT_EQ(sizeof(IoctlRecord), 208U) << bump;
  EXPECT_EQ(sizeof(KfdProcessRecord), 88U) << bump;
  EXPECT_EQ(sizeof(BudgetReply), 232U) << bump;
  EXPECT_EQ(sizeof(DenialRecord), 72U) << bump;
}

TEST(Messages, AnErrorSurvivesTheJourneyAndLongTextIsCut) {
  const Error error{make_error_code(Errc::no_stream), std::string(500, 'x')};
  const Error back = error_of(make_error(7, error));
  EXPECT_EQ(back.code, Errc::no_stream);
  EXPECT_EQ(back.message(), std::string(223, 'x'));
  EXPECT_EQ(make_error(7, error).header.sequence, 7U);
}

TEST(Messages, AHeaderOfAnotherVersionIsRefusedWithBothVersions) {
  Message message = make_message(MessageType::hello, 1, Hello{});
  EXPECT_TRUE(check_header(message.header));
  message.header.major = 9;
  const auto checked = check_header(message.header);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, Errc::version_mismatch);
  EXPECT_NE(checked.error().message().find("9." + std::to_string(MessageHeader::protocol_minor)),
            std::string::npos);
  message.header.magic = 1;
  EXPECT_EQ(check_header(message.header).error().code, Errc::malformed);
}

}  // namespace
}  // namespace eclip
