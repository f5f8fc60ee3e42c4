// The forwarder against a packet processor made of plain memory: the test plays the hardware.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/daemon/fake_hardware.h"

namespace eclip::daemon {

class ForwarderTest : public ::testing::Test {
 protected:
  struct Fault {
    WorkerId worker;
    LeaseId lease;
    std::uint64_t packet;
    std::string text;
  };

  LeaseRing& open_lease(FakeWorker& worker, std::uint64_t lease, std::uint32_t stream,
                        std::function<void()> on_closed = {}) {
    auto region = Region::create("test-ring", RegionKind::lease_ring, sizeof(LeaseRing),
                                 RegionWriter::both, 1);
    LeaseRing& ring = region->payload<LeaseRing>();
    forwarder_.open_lease(worker.forwarded,
                          std::make_unique<ForwardedLease>(ForwardedLease{
                              .id = LeaseId{lease},
                              .stream = StreamId{stream},
                              .region = std::make_shared<const Region>(std::move(*region)),
                              .reader = LeaseRingReader(ring),
                              .slot = &worker.state->leases[lease],
                              .on_closed = std::move(on_closed)}));
    return ring;
  }
  /// Turns until nothing moves any more.
  Forwarder::Activity settle() {
    Forwarder::Activity activity{};
    do activity = forwarder_.turn();
    while (activity == Forwarder::Activity::progress);
    return activity;
  }

  std::array<FakeQueue, 2> queues_;
  std::vector<SignalSlot> own_slots_ = std::vector<SignalSlot>(64);
  Board board_{};
  std::vector<Fault> faults_;
  std::vector<std::pair<LeaseId, LeaseEnd>> ends_;  ///< that nobody asked for
  FakeWorker anna_{1};
  FakeWorker ben_{2};
  Forwarder forwarder_{
      {.spin = std::chrono::microseconds(1), .nap = std::chrono::microseconds(100)},
      {&queues_[0].ring, &queues_[1].ring},
      {.slots = own_slots_, .gpu_address = reinterpret_cast<std::uint64_t>(own_slots_.data())},
      board_,
      [this](WorkerId worker, LeaseId lease, std::uint64_t packet, const Error& error) {
        faults_.push_back({worker, lease, packet, error.message()});
      },
      [this](WorkerId, LeaseId lease, LeaseEnd reason) { ends_.emplace_back(lease, reason); }};
};

}  // namespace eclip::daemon
