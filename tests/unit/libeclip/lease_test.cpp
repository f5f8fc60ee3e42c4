// Leases from a worker's side: the queue, terms, shares, the versions of the structs.
#include <cstdlib>
#include <future>

#include "ipc/futex.h"
#include "tests/unit/libeclip/worker.h"

namespace eclip::test {
namespace {

using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

/// Queues every request, in slot 0.
std::optional<std::vector<Message>> queue_all(const Message& request) {
  if (request.header.type != MessageType::lease_acquire) return std::nullopt;
  return std::vector{make_message(MessageType::lease_queued, request.header.sequence,
                                  LeaseQueued{.lease = 101, .slot = 0, .position = 0})};
}

class QueuedLease : public Worker {
 protected:
  QueuedLease() : Worker({.answer = queue_all}) { set(LeaseState::queued); }

  void set(LeaseState state, LeaseEnd reason = LeaseEnd::none) {
    LeaseSlot& slot = daemon.lease_slot(0);
    slot.reason.store(static_cast<std::uint32_t>(reason));
    slot.state.store(static_cast<std::uint32_t>(state));
    futex_wake_all(slot.state);
  }
  struct Outcome {
    int code;
    eclip_lease* lease;
    std::string words;
  };
  std::future<Outcome> acquire_in_background(std::uint32_t wait_ms) {
    auto result = std::async(std::launch::async, [this, wait_ms] {
      eclip_lease_request request{};
      request.struct_size = sizeof request;
      request.stream = ECLIP_ANY_STREAM;
      request.wait_ms = wait_ms;
      Outcome outcome{};
      outcome.code = eclip_lease_acquire(context, &request, &outcome.lease);
      outcome.words = eclip_last_error();
      return outcome;
    });
    EXPECT_TRUE(eventually([this] { return asked(MessageType::lease_acquire) == 1; }));
    return result;
  }
  std::size_t asked(MessageType type) { return daemon.requests(type).size(); }
};

TEST_F(QueuedLease, TheOfferIsClaimedAndTheStreamIsTheWorkers) {
  connect();
  auto result = acquire_in_background(60'000);
  set(LeaseState::offered);
  const Outcome outcome = result.get();
  ASSERT_EQ(outcome.code, 0) << outcome.words;
  EXPECT_EQ(asked(MessageType::lease_claim), 1U);
  EXPECT_EQ(payload_of<Handle>(daemon.requests(MessageType::lease_claim)[0]).value, 101U);
  submit(outcome.lease, some_dispatch());
}

TEST_F(QueuedLease, WhileItWaitsItAsksNothingOfEclipd) {
  connect();
  auto result = acquire_in_background(60'000);
  // Wakes without a reason: it looks, and sleeps again.
  for (int i = 0; i < 100; ++i) futex_wake_all(daemon.lease_slot(0).state);
  EXPECT_EQ(result.wait_for(std::chrono::milliseconds(250)), std::future_status::timeout);
  EXPECT_EQ(asked(MessageType::lease_claim) + asked(MessageType::lease_release), 0U);
  set(LeaseState::offered);
  EXPECT_EQ(result.get().code, 0);
}

TEST_F(QueuedLease, TheEndOfTheWaitIsATimeOutAndTheSlotIsGivenBack) {
  connect();
  auto result = acquire_in_background(60'000);
  set(LeaseState::ended, LeaseEnd::wait_over);
  const Outcome outcome = result.get();
  EXPECT_EQ(outcome.code, -ETIMEDOUT);
  EXPECT_THAT(outcome.words, HasSubstr("no stream became free in time"));
  EXPECT_EQ(outcome.lease, nullptr);
  EXPECT_EQ(asked(MessageType::lease_release), 1U);
}

TEST_F(QueuedLease, AnAdministratorsRevocationIsNoTimeOut) {
  connect();
  auto result = acquire_in_background(60'000);
  set(LeaseState::ended, LeaseEnd::administrator);
  EXPECT_EQ(result.get().code, -ESTALE);
}

TEST_F(QueuedLease, AnEclipdThatStopsDoesNotHoldTheWorkerForEver) {
  const std::string path = daemon.path();
  const eclip_connect_options options = options_for(path, 100);
  ASSERT_EQ(eclip_connect(&options, &context), 0);
  const auto before = Clock::now();
  EXPECT_EQ(acquire_in_background(50).get().code, -ETIMEDOUT);
  EXPECT_GE(Clock::now() - before, std::chrono::milliseconds(150));
  EXPECT_LT(Clock::now() - before, deadline);
}

TEST_F(QueuedLease, AnEclipdThatDiesEndsTheWait) {
  connect();
  auto result = acquire_in_background(60'000);
  daemon.die();
  EXPECT_EQ(result.get().code, -ECONNRESET);
}

class LeaseTerms : public Worker {
 protected:
  LeaseAcquire asked() {
    return payload_of<LeaseAcquire>(daemon.requests(MessageType::lease_acquire).back());
  }
  int acquire_with(eclip_lease_request request) {
    eclip_lease* lease = nullptr;
    return eclip_lease_acquire(context, &request, &lease);
  }
  static eclip_lease_request some_request() {
    eclip_lease_request request{};
    request.struct_size = sizeof request;
    request.stream = ECLIP_ANY_STREAM;
    request.cu_count = 7;
    return request;
  }
};

TEST_F(LeaseTerms, ARequestOfTheFirstVersionHasNormalPriorityAndDoesNotWait) {
  connect();
  eclip_lease_request request = some_request();
  request.struct_size = 12;
  request.priority = ECLIP_PRIORITY_HIGH;  // not of that version: not read
  request.wait_ms = 5;
  ASSERT_EQ(acquire_with(request), 0) << eclip_last_error();
  EXPECT_EQ(asked().cu_count, 7U);
  EXPECT_EQ(asked().priority, static_cast<std::uint32_t>(LeasePriority::normal));
  EXPECT_EQ(asked().wait_ms, 0U);
  request.struct_size = 11;
  EXPECT_EQ(acquire_with(request), -EINVAL);
}

TEST_F(LeaseTerms, EveryTermReachesEclipd) {
  connect();
  eclip_lease_request request = some_request();
  request.priority = ECLIP_PRIORITY_LOW;
  request.share_percent = 33;
  request.wait_ms = 44;
  request.duration_ms = 55;
  ASSERT_EQ(acquire_with(request), 0) << eclip_last_error();
  EXPECT_EQ(asked().priority, static_cast<std::uint32_t>(LeasePriority::low));
  EXPECT_EQ(asked().share_percent, 33U);
  EXPECT_EQ(asked().wait_ms, 44U);
  EXPECT_EQ(asked().duration_ms, 55U);
  request.priority = 2;
  EXPECT_EQ(acquire_with(request), -EINVAL);
  request.priority = 0;
  request.share_percent = 101;
  EXPECT_EQ(acquire_with(request), -EINVAL);
}

TEST_F(LeaseTerms, TheSharesVariableCountsWhereTheRequestNamesNone) {
  connect();
  ::setenv("ECLIP_SHARE", "25", 1);
  EXPECT_EQ(acquire_with(some_request()), 0);
  EXPECT_EQ(asked().share_percent, 25U);
  ::setenv("ECLIP_SHARE", "25.5", 1);
  EXPECT_EQ(acquire_with(some_request()), -EINVAL);
  EXPECT_THAT(eclip_last_error(), HasSubstr("ECLIP_SHARE is \"25.5\""));
  ::setenv("ECLIP_SHARE", "", 1);
  EXPECT_EQ(acquire_with(some_request()), 0);
  EXPECT_EQ(asked().share_percent, 0U);
  ::unsetenv("ECLIP_SHARE");
}

TEST_F(LeaseTerms, ARenewalIsAStoreAndTheStateShowsWhatEclipdSays) {
  connect();
  eclip_lease* lease = acquire();
  const std::size_t messages = daemon.requests(MessageType::lease_acquire).size();
  const std::uint32_t before = daemon.request().leases[0].renewals;
  ASSERT_EQ(eclip_lease_renew(lease), 0);
  EXPECT_NE(daemon.request().leases[0].renewals, before);
  EXPECT_EQ(daemon.requests(MessageType::lease_acquire).size(), messages);
  LeaseSlot& slot = daemon.lease_slot(0);
  slot.reason = static_cast<std::uint32_t>(LeaseEnd::preempted);
  slot.deadline_ns = 12345;
  slot.accepted = 6;
  slot.state = static_cast<std::uint32_t>(LeaseState::revoked);
  EXPECT_EQ(eclip_lease_renew(lease), -ESTALE);
  eclip_lease_state state{};
  state.struct_size = sizeof state;
  ASSERT_EQ(eclip_lease_describe(lease, &state), 0);
  EXPECT_EQ(state.state, ECLIP_LEASE_REVOKED);
  EXPECT_EQ(state.reason, ECLIP_REASON_PREEMPTED);
  EXPECT_EQ(state.deadline_ns, 12345U);
  EXPECT_EQ(state.packets_accepted, 6U);
  state.struct_size = 32;  // of the first version: what follows is not the library's to write
  state.state = 77;
  ASSERT_EQ(eclip_lease_describe(lease, &state), 0);
  EXPECT_EQ(state.state, 77U);
  const eclip_dispatch dispatch = some_dispatch();
  EXPECT_EQ(eclip_submit_dispatch(lease, &dispatch, nullptr), -ESTALE);
  EXPECT_THAT(eclip_last_error(), HasSubstr("higher priority"));
}

}  // namespace
}  // namespace eclip::test
