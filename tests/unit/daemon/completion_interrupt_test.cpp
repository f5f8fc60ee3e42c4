// A forwarder that runs, with packets that stay in the hardware: it naps while its worker is busy,
// then sleeps until the GPU interrupts it.
#include <gtest/gtest.h>

#include <chrono>

#include "tests/fake/eventually.h"
#include "tests/unit/daemon/forwarder_fixture.h"

namespace eclip::daemon {
namespace {

using namespace std::chrono_literals;
using test::eventually;

class CompletionInterruptTest : public ForwarderTest {
 protected:
  /// What would wake the forwarder if no interrupt did: nothing, within a test.
  static constexpr auto never = 1h;

  void start(std::chrono::nanoseconds patience, bool interrupts = true) {
    forwarder_.emplace(
        Forwarder::Options{.spin = 1us, .nap = 100us, .patience = patience, .longest_sleep = never},
        std::vector<AqlRing*>{&queues_[0].ring, &queues_[1].ring},
        Forwarder::OwnSignals{.slots = own_slots_, .gpu_address = address_of(own_slots_.data())},
        board_, [](WorkerId, LeaseId, std::uint64_t, const Error&) {},
        [](WorkerId, LeaseId, LeaseEnd) {});
    forwarder_->attach(anna_.forwarded);
    auto region = Region::create("test-ring", RegionKind::lease_ring, sizeof(LeaseRing),
                                 RegionWriter::both, 1);
    LeaseRing& ring = region->payload<LeaseRing>();
    forwarder_->open_lease(anna_.forwarded,
                           std::make_unique<ForwardedLease>(ForwardedLease{
                               .id = LeaseId{1},
                               .stream = StreamId{0},
                               .region = std::make_shared<const Region>(std::move(*region)),
                               .reader = LeaseRingReader(ring),
                               .slot = &anna_.state->leases[1],
                               .on_closed = [this] { closed_.store(true); }}));
    std::optional<CompletionInterrupt> interrupt;
    if (interrupts)
      interrupt = {.event_mailbox_ptr = address_of(&mailbox_),
                   .event_id = 1,
                   .raised = queues_[0].interrupts};
    forwarder_->start(interrupt);
    writer_ = LeaseRingWriter(ring);
  }
  void submit(const LeasePacket& packet) {
    const std::uint64_t before = queues_[0].rung();
    ASSERT_TRUE(writer_.push(packet));
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (board_.forwarder_asleep.load() != 0) {
      ++wakes_;
      anna_.request.wake.fetch_add(1);
      futex_wake_all(anna_.request.wake);
    }
    ASSERT_TRUE(eventually([&] { return queues_[0].rung() > before; }));
  }
  bool sleeps() {
    return eventually([this] { return board_.forwarder_asleep.load() != 0; });
  }
  template <class T>
  static std::uint64_t address_of(const T* object) {
    return reinterpret_cast<std::uint64_t>(object);
  }

  std::uint64_t mailbox_ = 0;
  int wakes_ = 0;
  std::atomic<bool> closed_{false};
  std::unique_ptr<LeaseRing> none_ = std::make_unique<LeaseRing>();
  LeaseRingWriter writer_{*none_};
  std::optional<Forwarder> forwarder_;  // first to go
};

TEST_F(CompletionInterruptTest, WakesTheForwarderWhichWakesTheWaiter) {
  start(0us);
  submit(dispatch({.signal = 5, .generation = 1}));
  anna_.request.waiters[5].fetch_add(1);
  ASSERT_TRUE(sleeps());
  EXPECT_EQ(anna_.state->signals[5].wakes.load(), 0U);
  queues_[0].complete_one();
  EXPECT_TRUE(eventually([this] { return anna_.state->signals[5].wakes.load() == 1; }));
}

TEST_F(CompletionInterruptTest, IsCarriedByPacketsWhoseWorkerGaveThemNoSignal) {
  start(0us);
  submit(dispatch());
  ASSERT_TRUE(sleeps());
  queues_[0].complete_one(100, 150);
  EXPECT_TRUE(eventually([this] { return queues_[0].interrupts->load() == 1; }));
  EXPECT_TRUE(sleeps());
  forwarder_->stop();
  EXPECT_TRUE(forwarder_->unfinished().empty()) << "seen";
}

TEST_F(CompletionInterruptTest, EndsADrain) {
  start(0us);
  submit(dispatch());
  ASSERT_TRUE(sleeps());
  forwarder_->close_lease(anna_.forwarded, LeaseId{1}, LeaseEnd::released, false);
  ASSERT_TRUE(eventually([this] { return queues_[0].rung() == 2; })) << "the drain's barrier";
  EXPECT_TRUE(eventually([this] { return queues_[0].interrupts_host(1); }));
  EXPECT_FALSE(closed_.load());
  queues_[0].complete_all();
  EXPECT_TRUE(eventually([this] { return closed_.load(); }));
}

TEST_F(CompletionInterruptTest, IsNotAskedForWhilePacketsCome) {
  start(never);
  for (std::uint32_t i = 1; i <= 20; ++i) {
    submit(dispatch({.signal = 5, .generation = i}));
    EXPECT_FALSE(eventually([&] { return board_.forwarder_asleep.load() != 0; }, 1ms))
        << "a packet runs and others may come";
    queues_[0].complete_one();
    // Only with nothing under way does it sleep.
    ASSERT_TRUE(sleeps());
  }
  EXPECT_EQ(queues_[0].interrupts->load(), 0U);
}

TEST_F(CompletionInterruptTest, IsTakenBackWhenTheForwarderIsAwake) {
  start(0us);
  for (std::uint32_t i = 0; i < 4; ++i) submit(dispatch({.signal = i, .generation = 1}));
  ASSERT_TRUE(eventually([this] { return queues_[0].interrupts_host(3); }));
  forwarder_->stop();
  for (std::uint64_t i = 0; i < 4; ++i) EXPECT_FALSE(queues_[0].interrupts_host(i));
}

TEST_F(CompletionInterruptTest, DoesNotWaitForAFenceThatIsWantedBeforeItSleeps) {
  start(0us);
  submit(dispatch());
  ASSERT_TRUE(sleeps());
  auto region =
      Region::create("test-ring", RegionKind::lease_ring, sizeof(LeaseRing), RegionWriter::both, 1);
  LeaseRing& ring = region->payload<LeaseRing>();
  forwarder_->attach(ben_.forwarded);
  forwarder_->open_lease(ben_.forwarded,
                         std::make_unique<ForwardedLease>(ForwardedLease{
                             .id = LeaseId{2},
                             .stream = StreamId{0},
                             .region = std::make_shared<const Region>(std::move(*region)),
                             .reader = LeaseRingReader(ring),
                             .slot = &ben_.state->leases[2]}));
  ASSERT_TRUE(eventually([this] { return queues_[0].rung() == 2; })) << "the fence";
  EXPECT_TRUE(eventually([this] { return queues_[0].interrupts_host(1); }));
}

TEST_F(CompletionInterruptTest, WithoutOneTheForwarderNapsUntilThePacketsAreDone) {
  start(0us, false);
  submit(dispatch({.signal = 5, .generation = 1}));
  EXPECT_FALSE(eventually([&] { return board_.forwarder_asleep.load() != 0; }, 5ms));
  queues_[0].complete_one();
  EXPECT_TRUE(sleeps());
}

TEST_F(CompletionInterruptTest, ANewPacketWakesAForwarderThatWaitsForOne) {
  start(0us);
  ASSERT_TRUE(sleeps());
  submit(in_order(dispatch()));
  ASSERT_TRUE(sleeps());
  submit(in_order(dispatch()));
  EXPECT_EQ(wakes_, 2) << "at the beginning, and while the first packet ran";
}

}  // namespace
}  // namespace eclip::daemon
