// The life of leases: the queue, revocation, terms, preemption, limits, shares.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <future>
#include <thread>

#include "ipc/control_socket.h"
#include "ipc/lease_ring.h"
#include "ipc/region.h"
#include "ipc/worker_regions.h"
#include "tests/fake/eventually.h"
#include "tests/integration/eclipd/running_eclipd.h"

namespace eclip::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

constexpr milliseconds patience{20'000};

/// errno of what a call throws, and its words.
struct Failure {
  int code = 0;
  std::string words;
};
template <class Call>
Failure failure_of(Call call) {
  try {
    call();
  } catch (const ApiError& error) {
    return {error.code().value(), error.what()};
  }
  return {};
}

eclip_lease_request on_stream(std::uint32_t stream, std::uint32_t wait_ms = 0) {
  eclip_lease_request request{};
  request.stream = stream;
  request.wait_ms = wait_ms;
  return request;
}
eclip_lease_request any_stream(std::uint32_t cu_count) {
  eclip_lease_request request{};
  request.stream = ECLIP_ANY_STREAM;
  request.cu_count = cu_count;
  return request;
}

class EclipdLeaseLife : public EclipdTest {
 protected:
  /// The lease as `eclipctl lease list` shows it; null when it does not.
  [[nodiscard]] nlohmann::json listed(std::uint64_t id) const {
    for (const auto& lease : control({"lease", "list"}))
      if (lease.at("lease") == id) return lease;
    return {};
  }
  [[nodiscard]] std::vector<std::uint64_t> queued() const {
    std::vector<std::pair<std::uint32_t, std::uint64_t>> found;
    for (const auto& lease : control({"lease", "list"}))
      if (lease.at("state") == "queued")
        found.emplace_back(lease.at("position"), lease.at("worker"));
    std::sort(found.begin(), found.end());
    std::vector<std::uint64_t> workers;
    for (const auto& [position, worker] : found) workers.push_back(worker);
    return workers;
  }
  void revoke(std::uint64_t lease, const std::string& grace_ms) const {
    EXPECT_EQ(
        control({"lease", "revoke", std::to_string(lease), "--grace", grace_ms}).at("revoked"),
        true);
  }
};

TEST_F(EclipdLeaseLife, QueuedWorkersAreServedInOrderAsTheStreamBecomesFree) {
  start();
  Connection anna;
  Connection ben;
  Connection carl;
  std::optional<Lease> held(anna.lease_stream(0));
  const auto in_queue = [](Connection& connection, std::int32_t priority) {
    return std::async(std::launch::async, [&connection, priority] {
      eclip_lease_request request = on_stream(0, 60'000);
      request.priority = priority;
      return connection.lease(request);
    });
  };
  auto bens = in_queue(ben, ECLIP_PRIORITY_NORMAL);
  ASSERT_TRUE(eventually([&] { return queued().size() == 1; }));
  auto carls = in_queue(carl, ECLIP_PRIORITY_HIGH);
  ASSERT_TRUE(eventually([&] { return queued().size() == 2; }));
  EXPECT_EQ(queued(), (std::vector<std::uint64_t>{3, 2})) << "the higher priority first";
  EXPECT_EQ(control({"status"}).at("leases_queued"), 2);
  EXPECT_EQ(failure_of([&] { const Lease lease = anna.lease_stream(0); }).code, EBUSY);
  held.reset();
  std::optional<Lease> second(carls.get());
  EXPECT_EQ(queued(), (std::vector<std::uint64_t>{2}));
  second.reset();
  const Lease third = bens.get();
  EXPECT_EQ(third.describe().stream, 0U);
  EXPECT_EQ(control({"status"}).at("leases_queued"), 0);
}

TEST_F(EclipdLeaseLife, AWaitInTheQueueIsBoundedAndLeavesNothing) {
  start();
  Connection anna;
  Connection ben;
  const Lease held = anna.lease_stream(0);
  const auto before = Clock::now();
  EXPECT_EQ(failure_of([&] { const Lease lease = ben.lease(on_stream(0, 200)); }).code, ETIMEDOUT);
  EXPECT_GE(Clock::now() - before, milliseconds(200));
  EXPECT_LT(Clock::now() - before, patience);
  // More often than a worker has places for leases.
  for (std::uint32_t i = 0; i < 2 * max_leases_per_worker; ++i)
    ASSERT_EQ(failure_of([&] { const Lease lease = ben.lease(on_stream(0, 1)); }).code, ETIMEDOUT);
  EXPECT_EQ(control({"lease", "list"}).size(), 1U);
}

TEST_F(EclipdLeaseLife, AQueuedWorkerThatDiesIsOutOfTheQueue) {
  start();
  Connection anna;
  Connection ben;
  std::optional<Lease> held(anna.lease_stream(0));
  {
    auto socket = connect_control(this->socket(), milliseconds(1000));
    ASSERT_TRUE(socket);
    ASSERT_TRUE(
        exchange(socket->get(), make_message(MessageType::hello, 1, Hello{}), {}, patience));
    LeaseAcquire request{};
    request.priority = 2;
    request.wait_ms = 60'000;
    const auto reply =
        exchange(socket->get(), make_message(MessageType::lease_acquire, 2, request), {}, patience);
    ASSERT_TRUE(reply) << reply.error().message();
    EXPECT_EQ(reply->message.header.type, MessageType::lease_queued);
  }
  auto bens = std::async(std::launch::async, [&] { return ben.lease(on_stream(0, 60'000)); });
  ASSERT_TRUE(eventually([&] { return queued() == std::vector<std::uint64_t>{2}; }));
  held.reset();
  EXPECT_EQ(bens.get().describe().stream, 0U);
}

TEST_F(EclipdLeaseLife, AnOfferThatNobodyClaimsGoesToTheNext) {
  start("[leases]\nclaim_ms = 50\n");
  Connection anna;
  std::optional<Lease> held(anna.lease_stream(0));
  auto socket = connect_control(this->socket(), milliseconds(1000));
  ASSERT_TRUE(socket);
  ASSERT_TRUE(exchange(socket->get(), make_message(MessageType::hello, 1, Hello{}), {}, patience));
  LeaseAcquire request{};
  request.priority = 2;
  request.wait_ms = 60'000;
  const auto reply =
      exchange(socket->get(), make_message(MessageType::lease_acquire, 2, request), {}, patience);
  ASSERT_TRUE(reply) << reply.error().message();
  const auto sleeper = payload_of<LeaseQueued>(reply->message).lease;
  Connection ben;
  auto bens = std::async(std::launch::async, [&] { return ben.lease(on_stream(0, 60'000)); });
  ASSERT_TRUE(eventually([&] { return queued().size() == 2; }));
  held.reset();
  const Lease lease = bens.get();
  EXPECT_EQ(listed(sleeper).at("reason"), "not claimed in time");
}

TEST_F(EclipdLeaseLife, ARevocationUnderLoadLetsWhatRunsFinishAndTheWorkerPlansAnew) {
  start();
  Connection connection;
  std::optional<Lease> lease(connection.lease_stream(1));
  const std::uint64_t first = lease->describe().id;
  std::array<Signal, 4> signals{connection.create_signal(), connection.create_signal(),
                                connection.create_signal(), connection.create_signal()};
  std::array<Token, 4> tokens{};
  MixKernel kernel(connection, 50);
  auto revocation = std::async(std::launch::async, [&] {
    EXPECT_TRUE(eventually([&] { return listed(first).at("packets") >= 50; }));
    revoke(first, "60000");
  });
  int refused = 0;
  std::uint32_t after = 0;
  for (std::uint32_t i = 0; after < 200; ++i) {
    Token& token = tokens[i % tokens.size()];
    ASSERT_TRUE(connection.wait(token, patience)) << "what was submitted runs on";
    const eclip_dispatch dispatch = kernel.next(i, ECLIP_PACKET_BARRIER | ECLIP_PACKET_SIGNAL,
                                                signals[i % signals.size()].id());
    const Failure failure = failure_of([&] { ASSERT_TRUE(lease->try_submit(dispatch, &token)); });
    if (failure.code != 0) {
      ASSERT_EQ(failure.code, ESTALE) << failure.words;
      EXPECT_THAT(failure.words, HasSubstr("by the administrator"));
      EXPECT_EQ(lease->describe().state, ECLIP_LEASE_REVOKED);
      EXPECT_EQ(lease->describe().reason, ECLIP_REASON_ADMINISTRATOR);
      EXPECT_FALSE(lease->renew());
      ++refused;
      for (const Token& each : tokens)
        if (&each != &token) {
          ASSERT_TRUE(connection.wait(each, patience));
        }
      lease.reset();
      lease.emplace(connection.lease(on_stream(2, 60'000)));
      ASSERT_TRUE(lease->try_submit(dispatch, &token));
    }
    after += refused > 0 ? 1 : 0;
  }
  revocation.get();
  for (const Token& each : tokens) ASSERT_TRUE(connection.wait(each, patience));
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(kernel.value(), kernel.expected());
  EXPECT_EQ(control({"status"}).at("workers_cut_off"), 0);
  EXPECT_TRUE(eventually([&] { return stream_states()[1] == "free"; }));
}

TEST_F(EclipdLeaseLife, WhatIsNotOnTheGpuWhenTheGraceIsOverIsDroppedAndReportedAsNotDone) {
  start();
  Connection connection;
  Lease lease = connection.lease_stream(4);
  const Signal signal = connection.create_signal();
  const Signal last = connection.create_signal();
  // Far longer than this test: the GPU does not get through them.
  MixKernel kernel(connection, 5000);
  Token first{};
  ASSERT_TRUE(lease.try_submit(kernel.next(0, ECLIP_PACKET_SIGNAL, signal.id()), &first));
  // The hardware queue takes 4096 packets, the lease ring 1024 more, of which this fills half.
  for (std::uint32_t i = 1; i < 4096 + 512; ++i) {
    const eclip_dispatch dispatch = kernel.next(i, ECLIP_PACKET_BARRIER, 0);
    ASSERT_TRUE(eventually([&] { return lease.try_submit(dispatch); }));
  }
  Token token{};
  const eclip_dispatch with_signal = kernel.next(1, ECLIP_PACKET_SIGNAL, last.id());
  ASSERT_TRUE(eventually([&] { return lease.try_submit(with_signal, &token); }));
  revoke(lease.describe().id, "0");
  const Failure failure = failure_of([&] { static_cast<void>(connection.wait(token, patience)); });
  EXPECT_EQ(failure.code, ECANCELED) << failure.words;
  EXPECT_TRUE(connection.wait(first, patience)) << "what the GPU had finishes";
  const auto state = lease.describe();
  EXPECT_EQ(state.state, ECLIP_LEASE_ENDED);
  EXPECT_EQ(state.packets_submitted, 4096U + 513U);
  EXPECT_GE(state.packets_accepted, 4096U);
  EXPECT_LT(state.packets_accepted, state.packets_submitted);
  EXPECT_EQ(failure_of([&] { static_cast<void>(lease.try_submit(kernel.next(1, 0, 0))); }).code,
            ESTALE);
  EXPECT_EQ(control({"status"}).at("workers_cut_off"), 0) << "it did nothing wrong";
}

/// A worker without libeclip, which would not do what these tests do.
class RawWorker {
 public:
  explicit RawWorker(const std::string& path, std::uint32_t stream) {
    auto connected = connect_control(path, patience);
    if (!connected) throw std::runtime_error(connected.error().message());
    socket_ = std::move(*connected);
    auto welcome =
        exchange(socket_.get(), make_message(MessageType::hello, 1, Hello{}), {}, patience);
    state_.emplace(*Region::open(std::move(welcome->fds[1]), RegionKind::worker_state,
                                 sizeof(WorkerState), false));
    LeaseAcquire request{};
    request.stream = stream;
    auto granted =
        exchange(socket_.get(), make_message(MessageType::lease_acquire, 2, request), {}, patience);
    granted_ = payload_of<LeaseGranted>(granted->message);
    ring_.emplace(
        *Region::open(std::move(granted->fds[0]), RegionKind::lease_ring, sizeof(LeaseRing), true));
    writer_.emplace(ring_->payload<LeaseRing>());
  }
  [[nodiscard]] std::uint64_t lease() const { return granted_.lease; }
  [[nodiscard]] const WorkerState& state() const { return state_->payload<WorkerState>(); }
  [[nodiscard]] LeaseState lease_state() const {
    return static_cast<LeaseState>(state().leases[granted_.slot].state.load());
  }
  void push_barrier() {
    LeasePacket packet{};
    packet.type = LeasePacketType::barrier_and;
    static_cast<void>(writer_->push(packet));
  }

 private:
  UniqueFd socket_;
  std::optional<Region> state_;
  std::optional<Region> ring_;
  std::optional<LeaseRingWriter> writer_;
  LeaseGranted granted_{};
};

TEST_F(EclipdLeaseLife, AWorkerThatIgnoresARevocationIsCutOff) {
  start();
  RawWorker worker(socket(), 5);
  revoke(worker.lease(), "300");
  ASSERT_TRUE(eventually([&] { return worker.lease_state() == LeaseState::revoked; }));
  for (int i = 0; i < 3; ++i) worker.push_barrier();
  ASSERT_TRUE(eventually([&] { return worker.state().fault.load() != 0; }));
  EXPECT_EQ(worker.state().fault.load(), static_cast<std::uint32_t>(Errc::lease_ended));
  EXPECT_TRUE(all_streams_become_free());
  EXPECT_EQ(control({"status"}).at("workers_cut_off"), 1);
  EXPECT_EQ(listed(worker.lease()).at("reason"), "its worker was cut off");
}

TEST_F(EclipdLeaseLife, AWorkerThatSleepsThroughARevocationLosesTheLeaseAlone) {
  start();
  RawWorker worker(socket(), 5);
  // One packet may have been on its way when the revocation came.
  revoke(worker.lease(), "300");
  ASSERT_TRUE(eventually([&] { return worker.lease_state() == LeaseState::revoked; }));
  worker.push_barrier();
  ASSERT_TRUE(eventually([&] { return worker.lease_state() == LeaseState::ended; }));
  EXPECT_TRUE(all_streams_become_free());
  EXPECT_EQ(control({"status"}).at("workers_cut_off"), 0);
  EXPECT_EQ(worker.state().fault.load(), 0U);
}

TEST_F(EclipdLeaseLife, ALeaseOfATermLivesWhileItIsRenewedAndEndsWhenNot) {
  start("[leases]\ngrace_ms = 50\n");
  Connection connection;
  eclip_lease_request request = on_stream(3);
  request.duration_ms = 600;
  Lease lease = connection.lease(request);
  std::uint64_t deadline = lease.describe().deadline_ns;
  EXPECT_GT(deadline, 0U);
  for (int term = 0; term < 2; ++term) {
    ASSERT_TRUE(lease.renew());
    ASSERT_TRUE(eventually([&] { return lease.describe().deadline_ns != deadline; }));
    ASSERT_EQ(lease.describe().state, ECLIP_LEASE_ACTIVE);
    deadline = lease.describe().deadline_ns;
  }
  ASSERT_TRUE(eventually([&] { return lease.describe().state == ECLIP_LEASE_ENDED; }));
  EXPECT_EQ(lease.describe().reason, ECLIP_REASON_EXPIRED);
  EXPECT_FALSE(lease.renew());
  EXPECT_TRUE(all_streams_become_free());
}

TEST_F(EclipdLeaseLife, AHigherPriorityTakesAStreamWhereTheConfigurationAllowsIt) {
  start("[leases]\npreempt = true\ngrace_ms = 60000\n");
  Connection anna;
  Connection ben;
  eclip_lease_request low = on_stream(0);
  low.priority = ECLIP_PRIORITY_LOW;
  std::optional<Lease> held(anna.lease(low));
  auto bens = std::async(std::launch::async, [&] {
    eclip_lease_request urgent = any_stream(60);
    urgent.priority = ECLIP_PRIORITY_HIGH;
    urgent.wait_ms = 60'000;
    return ben.lease(urgent);
  });
  ASSERT_TRUE(eventually([&] { return held->describe().state == ECLIP_LEASE_REVOKED; }));
  EXPECT_EQ(held->describe().reason, ECLIP_REASON_PREEMPTED);
  held.reset();
  EXPECT_EQ(bens.get().describe().cu_count, 60U);
}

TEST_F(EclipdLeaseLife, WithoutPreemptionThePriorityWaits) {
  start();
  Connection anna;
  Connection ben;
  eclip_lease_request low = on_stream(0);
  low.priority = ECLIP_PRIORITY_LOW;
  const Lease held = anna.lease(low);
  eclip_lease_request urgent = on_stream(0, 50);
  urgent.priority = ECLIP_PRIORITY_HIGH;
  EXPECT_EQ(failure_of([&] { const Lease lease = ben.lease(urgent); }).code, ETIMEDOUT);
  EXPECT_EQ(held.describe().state, ECLIP_LEASE_ACTIVE);
}

TEST_F(EclipdLeaseLife, AStreamHasAsManyHoldersAsTheConfigurationAllows) {
  start("[leases]\nmax_holders_per_stream = 2\n");
  Connection anna;
  Connection ben;
  const Lease first = anna.lease_stream(2);
  std::optional<Lease> second(ben.lease_stream(2));
  EXPECT_EQ(failure_of([&] { const Lease third = anna.lease_stream(2); }).code, EBUSY);
  EXPECT_EQ(control({"stream", "list"}).at(2).at("holders"), 2);
  EXPECT_EQ(control({"stream", "list"}).at(2).at("lease"), first.describe().id);
  EXPECT_EQ(control({"status"}).at("streams_leased"), 1);
  second.reset();
  EXPECT_TRUE(eventually([&] { return control({"stream", "list"}).at(2).at("holders") == 1; }));
}

TEST_F(EclipdLeaseLife, LimitsOfAUserHoldOverAllItsWorkers) {
  start("[[limits]]\nuid = " + std::to_string(::geteuid()) +
        "\nmax_workers = 2\nmax_leases = 2\nmax_share_percent = 25\nmax_priority = \"normal\"\n");
  Connection anna;
  std::optional<Connection> ben(std::in_place);
  EXPECT_EQ(failure_of([] { const Connection third; }).code, EDQUOT);
  const Lease first = anna.lease_any(60);
  EXPECT_EQ(first.describe().cu_count, 15U);
  EXPECT_EQ(failure_of([&] { const Lease lease = anna.lease_stream(0); }).code, EINVAL);
  eclip_lease_request urgent = any_stream(1);
  urgent.priority = ECLIP_PRIORITY_HIGH;
  EXPECT_EQ(failure_of([&] { const Lease lease = anna.lease(urgent); }).code, EACCES);
  std::optional<Lease> second(ben->lease_any(1));
  EXPECT_EQ(failure_of([&] { const Lease lease = ben->lease_any(1); }).code, EDQUOT);
  second.reset();
  EXPECT_EQ(failure_of([&] { const Lease lease = anna.lease_any(1); }).code, 0);
}

TEST_F(EclipdLeaseLife, EclipShareBoundsAWorkersStreamsAsMpsUsersKnowIt) {
  start();
  Connection connection;
  for (const char* wrong : {"0", "101", "-1", "25%", "half", "4294967297"}) {
    ::setenv("ECLIP_SHARE", wrong, 1);
    const Failure failure = failure_of([&] { const Lease lease = connection.lease_any(1); });
    EXPECT_EQ(failure.code, EINVAL) << wrong;
    EXPECT_THAT(failure.words, HasSubstr("ECLIP_SHARE"));
  }
  ::setenv("ECLIP_SHARE", "50", 1);
  const Lease half = connection.lease_any(60);
  EXPECT_EQ(half.describe().cu_count, 30U);
  EXPECT_EQ(listed(half.describe().id).at("share_percent"), 50);
  eclip_lease_request request = any_stream(60);
  request.share_percent = 100;
  const Lease whole = connection.lease(request);
  ::unsetenv("ECLIP_SHARE");
  EXPECT_EQ(whole.describe().cu_count, 60U) << "what the program says itself counts";
}

TEST_F(EclipdLeaseLife, OnlyRootAndTheWorkersUserMayRevoke) {
  start();
  Connection connection;
  const Lease lease = connection.lease_stream(0);
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(socket().c_str(), 0666), 0);
  constexpr uid_t nobody = 65534;
  if (::seteuid(nobody) != 0) GTEST_SKIP() << "needs root, to be another user";
  auto other = connect_control(socket(), milliseconds(1000));
  ASSERT_EQ(::seteuid(0), 0);
  ASSERT_TRUE(other) << other.error().message();
  const LeaseRevoke request{.lease = lease.describe().id, .grace_ms = 0, .reserved = 0};
  auto reply =
      exchange(other->get(), make_message(MessageType::lease_revoke, 1, request), {}, patience);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, Errc::access_denied);
  EXPECT_EQ(lease.describe().state, ECLIP_LEASE_ACTIVE);
  const LeaseRevoke unknown{.lease = 4711, .grace_ms = 0, .reserved = 0};
  reply = exchange(other->get(), make_message(MessageType::lease_revoke, 2, unknown), {}, patience);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, Errc::not_found);
  revoke(lease.describe().id, "0");
  EXPECT_TRUE(eventually([&] { return lease.describe().state == ECLIP_LEASE_ENDED; }));
}

TEST_F(EclipdLeaseLife, DeviceTimeAndEnergyAreAccountedToWhoUsedThem) {
  start();
  const auto busy = replay({"--requests", "100000", "--streams", "30", "--name", "busy"});
  ASSERT_TRUE(is_running("busy", 300));
  Connection idle;
  const Lease held = idle.lease_any(15);
  nlohmann::json of_busy;
  ASSERT_TRUE(eventually([&] {
    for (const auto& client : control({"client", "list"}))
      if (client.at("name") == "busy") of_busy = client;
    return !of_busy.at("energy_j").is_null() && of_busy.at("energy_j") > 0.0;
  }));
  EXPECT_GT(of_busy.at("device_time_s"), 0.0);
  const double all = control({"status"}).at("energy_j");
  EXPECT_LE(of_busy.at("energy_j"), all);
  for (const auto& client : control({"client", "list"})) {
    if (client.at("name") == "busy") continue;
    EXPECT_EQ(client.at("device_time_s"), 0.0) << "it holds a stream and uses none of it";
  }
  ::kill(busy->pid(), SIGTERM);
}

}  // namespace
}  // namespace eclip::test
