// eclipd's service and control server in this process: a client over a socket pair, a GPU of plain
// memory.
#include "daemon/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "daemon/control_server.h"
#include "ipc/active_set.h"
#include "ipc/control_socket.h"
#include "tests/fake/fake_device.h"

namespace eclip::daemon {
namespace {

using ::testing::HasSubstr;

constexpr std::chrono::seconds patience{20};

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() {
    auto device = std::make_unique<test::FakeDevice>();
    device_ = device.get();
    device_->on_bad_packet = [](const std::string& what) { ADD_FAILURE() << what; };
    auto service = Service::create(config(), std::move(device));
    service_ = std::move(service.value());
    server_.emplace(*service_, -1, -1);
  }
  static Config config() {
    Config config;
    config.workers.max_memory_bytes = std::uint64_t{16} << 20;
    return config;
  }
  UniqueFd connect() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    server_->take(UniqueFd(ends[0]));
    return UniqueFd(ends[1]);
  }
  /// Sends a request and serves until its reply is there.
  Result<ReceivedMessage> ask(const UniqueFd& client, const Message& request,
                              std::span<const int> fds = {}) {
    if (auto sent = send_message(client.get(), request, fds); !sent)
      return tl::unexpected(sent.error());
    std::optional<ReceivedMessage> reply;
    const bool replied = serve_until([&] {
      auto received = receive_message(client.get());
      if (received && *received) reply = std::move(**received);
      return reply.has_value() || !received;
    });
    if (!replied || !reply) return fail(Errc::gone, "no reply");
    if (reply->message.header.type == MessageType::error)
      return tl::unexpected(error_of(reply->message));
    return std::move(*reply);
  }
  template <class Condition>
  bool serve_until(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      if (auto turned = server_->turn(1); !turned) failure_ = turned.error().message();
      device_->run_queues();
    }
    return true;
  }

  test::FakeDevice* device_;
  std::unique_ptr<Service> service_;
  std::optional<ControlServer> server_;
  std::string failure_;
};

TEST_F(ServiceTest, AWorkersLeaseAndMemoryAreGivenBackWhenItsConnectionCloses) {
  const std::size_t objects = device_->memory_objects();
  {
    const UniqueFd client = connect();
    const auto welcome = ask(client, make_message(MessageType::hello, 1, Hello{}));
    ASSERT_TRUE(welcome) << welcome.error().message();
    EXPECT_EQ(welcome->fds.size(), 3U);
    LeaseAcquire acquire{};
    acquire.stream = LeaseAcquire::any_stream;
    acquire.cu_count = 15;
    ASSERT_TRUE(ask(client, make_message(MessageType::lease_acquire, 2, acquire)));
    ASSERT_TRUE(
        ask(client, make_message(MessageType::memory_allocate, 3,
                                 MemoryAllocate{.bytes = 5000, .flags = 0, .reserved = 0})));
    EXPECT_EQ(service_->status().streams_leased, 1U);
    EXPECT_GT(device_->memory_objects(), objects);
  }
  EXPECT_TRUE(serve_until([&] { return device_->memory_objects() == objects; }));
  EXPECT_EQ(service_->status().workers, 0U);
  for (const auto& stream : service_->streams()) EXPECT_EQ(stream.draining, 0U);
}

class ScheduledWorker : public ServiceTest {
 protected:
  UniqueFd hello() {
    UniqueFd client = connect();
    EXPECT_TRUE(ask(client, make_message(MessageType::hello, 1, Hello{})));
    return client;
  }
  Result<ReceivedMessage> schedule(const UniqueFd& client) {
    return ask(client, make_message(MessageType::schedule, 2, Schedule{}));
  }
  [[nodiscard]] std::size_t scheduled_leases() const {
    const auto leases = service_->leases();
    return static_cast<std::size_t>(std::count_if(
        leases.begin(), leases.end(), [](const auto& lease) { return lease.scheduled != 0; }));
  }
};

TEST_F(ScheduledWorker, HasALeaseOnEachStreamAndOnAQueueWithoutAMask) {
  const UniqueFd client = hello();
  const auto reply = schedule(client);
  ASSERT_TRUE(reply) << reply.error().message();
  const auto scheduled = payload_of<Scheduled>(reply->message);
  ASSERT_EQ(scheduled.count, 8U);
  for (std::uint32_t i = 0; i < 7; ++i) {
    EXPECT_EQ(scheduled.leases[i].stream, i);
    EXPECT_EQ(scheduled.leases[i].cu_count, service_->streams()[i].cu_count);
  }
  EXPECT_EQ(scheduled.leases[7].stream, Scheduled::no_mask);
  EXPECT_EQ(scheduled.leases[7].cu_count, 60U);
  ASSERT_EQ(reply->fds.size(), 2U);
  EXPECT_TRUE(Region::open(UniqueFd(::dup(reply->fds[0].get())), RegionKind::active_set,
                           sizeof(ActiveSet), true));
  EXPECT_TRUE(Region::open(UniqueFd(::dup(reply->fds[1].get())), RegionKind::lease_rings,
                           sizeof(LeaseRings), true));
  EXPECT_EQ(schedule(client).error().code, Errc::already_in_use);
  EXPECT_EQ(service_->status().streams_leased, 0U);
  EXPECT_EQ(service_->clients()[0].leases, 1U);
  EXPECT_EQ(service_->streams().size(), 8U) << "with the queue that it has";
  EXPECT_EQ(service_->streams()[3].scheduled, 1U);
}

TEST_F(ScheduledWorker, TakesNoStreamFromOthersWhoLeaseOne) {
  const UniqueFd scheduled = hello();
  ASSERT_TRUE(schedule(scheduled));
  const UniqueFd other = hello();
  for (std::uint32_t i = 0; i < 7; ++i) {
    LeaseAcquire acquire{};
    acquire.stream = i;
    const auto granted = ask(other, make_message(MessageType::lease_acquire, 3, acquire));
    ASSERT_TRUE(granted) << granted.error().message();
  }
  EXPECT_EQ(service_->status().streams_leased, 7U);
  EXPECT_TRUE(schedule(other)) << "the streams that it leases do not matter either";
}

TEST_F(ScheduledWorker, GivesItsLeasesBackOneByOneAndMayBeScheduledAgain) {
  const UniqueFd client = hello();
  for (int round = 0; round < 3; ++round) {
    const auto reply = schedule(client);
    ASSERT_TRUE(reply) << reply.error().message();
    const auto scheduled = payload_of<Scheduled>(reply->message);
    EXPECT_EQ(scheduled.count, 8U);
    for (std::uint32_t i = 0; i < scheduled.count; ++i) {
      EXPECT_EQ(schedule(client).error().code, Errc::already_in_use);
      ASSERT_TRUE(ask(
          client, make_message(MessageType::lease_release, 4, Handle{scheduled.leases[i].lease})));
    }
    ASSERT_TRUE(serve_until([&] { return scheduled_leases() == 0; }));
  }
}

TEST_F(ScheduledWorker, LeavesNothingBehindAndItsQueueWithoutAMaskIsAnothers) {
  for (int round = 0; round < 10; ++round) {
    {
      const UniqueFd client = hello();
      const auto reply = schedule(client);
      ASSERT_TRUE(reply) << reply.error().message();
      ASSERT_EQ(payload_of<Scheduled>(reply->message).count, 8U);
    }
    ASSERT_TRUE(serve_until([&] { return scheduled_leases() == 0; }));
    EXPECT_EQ(service_->status().workers, 0U);
    EXPECT_EQ(service_->streams().size(), 7U);
  }
}

TEST_F(ScheduledWorker, TheEighthDoesWithoutAQueueOfItsOwn) {
  std::vector<UniqueFd> clients;
  for (std::uint32_t i = 0; i < 8; ++i) {
    clients.push_back(hello());
    const auto reply = schedule(clients.back());
    ASSERT_TRUE(reply) << reply.error().message();
    EXPECT_EQ(payload_of<Scheduled>(reply->message).count, i < 7 ? 8U : 7U);
  }
}

TEST_F(ScheduledWorker, ARevokedLeaseEndsAfterItsGraceAndTheOthersGoOn) {
  const UniqueFd client = hello();
  const auto reply = schedule(client);
  ASSERT_TRUE(reply);
  const auto revoked = payload_of<Scheduled>(reply->message).leases[2];
  ASSERT_TRUE(ask(client, make_message(MessageType::lease_revoke, 5,
                                       LeaseRevoke{.lease = revoked.lease, .grace_ms = 1})));
  const auto state_of = [&](std::uint64_t id) {
    for (const auto& lease : service_->leases())
      if (lease.lease == id) return static_cast<LeaseState>(lease.state);
    return LeaseState::none;
  };
  EXPECT_TRUE(serve_until([&] { return state_of(revoked.lease) == LeaseState::ended; }));
  EXPECT_EQ(state_of(revoked.lease + 1), LeaseState::active);
}

/// With limits for each user.
class ScheduledWithLimits : public ::testing::Test {
 protected:
  static std::unique_ptr<Service> service(const Config& config) {
    return std::move(Service::create(config, std::make_unique<test::FakeDevice>()).value());
  }
};

TEST_F(ScheduledWithLimits, CountsAsOneLeaseAndNeedsTheWholeGpu) {
  Config config;
  config.leases.limits.max_leases = 2;
  config.limits[7].max_share_percent = 50;
  const auto with_limits = service(config);
  Peer peer;
  peer.uid = 5;
  const WorkerId first = with_limits->add_worker(peer, Hello{})->id;
  ASSERT_TRUE(with_limits->schedule(first, {}));
  const LeaseAcquire any{.stream = LeaseAcquire::any_stream,
                         .cu_count = 0,
                         .share_percent = 0,
                         .priority = 1,
                         .wait_ms = 0,
                         .duration_ms = 0};
  EXPECT_TRUE(with_limits->acquire_lease(first, any));
  EXPECT_EQ(with_limits->acquire_lease(first, any).error().code, Errc::quota_exceeded);
  const WorkerId second = with_limits->add_worker(peer, Hello{})->id;
  EXPECT_EQ(with_limits->schedule(second, {}).error().code, Errc::quota_exceeded);
  peer.uid = 7;
  const WorkerId half = with_limits->add_worker(peer, Hello{})->id;
  EXPECT_EQ(with_limits->schedule(half, {}).error().code, Errc::access_denied);
  EXPECT_EQ(with_limits->schedule(half, {.latency_class = 2}).error().code, Errc::invalid_argument);
}

TEST_F(ServiceTest, PlansAreForAdministrators) {
  Peer stranger;
  stranger.uid = ::geteuid() + 1;
  const auto refused = service_->choose_plan(stranger, {.action = PlanChoice::unpin});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::access_denied);
  EXPECT_EQ(service_->apply_plan(stranger, 10, -1).error().code, Errc::access_denied);
  Peer self;
  self.uid = ::geteuid();
  EXPECT_TRUE(service_->choose_plan(self, {.action = PlanChoice::unpin}));
  EXPECT_EQ(service_->apply_plan(self, UINT64_MAX, -1).error().code, Errc::invalid_argument);
  EXPECT_EQ(service_->apply_plan(self, 10, -1).error().code, Errc::malformed);
}

TEST_F(ServiceTest, SaysOfAWorkerWhoLeasesStreamsItselfThatItIsNotScheduled) {
  const UniqueFd client = connect();
  const auto welcome = ask(client, make_message(MessageType::hello, 1, Hello{}));
  ASSERT_TRUE(welcome) << welcome.error().message();
  const UniqueFd tool = connect();
  const auto of = [&](std::uint64_t worker) {
    return ask(tool, make_message(MessageType::get_schedule, 2, Handle{worker}));
  };
  const std::uint64_t worker = payload_of<Welcome>(welcome->message).worker;
  const auto reply = of(worker);
  ASSERT_TRUE(reply) << reply.error().message();
  ASSERT_EQ(reply->message.header.type, MessageType::schedule_record);
  const auto record = payload_of<ScheduleRecord>(reply->message);
  EXPECT_EQ(record.worker, worker);
  EXPECT_EQ(record.is_scheduled, 0U);
  EXPECT_EQ(record.requests, 0U);
  const auto missing = of(worker + 1);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::not_found);
  EXPECT_THAT(missing.error().message(), HasSubstr("eclipctl client list shows who is"));
}

TEST_F(ServiceTest, AFailureOfTheGpuEndsTheServer) {
  device_->fail("the GPU was reset");
  EXPECT_TRUE(serve_until([&] { return !failure_.empty(); }));
  EXPECT_THAT(failure_, HasSubstr("the GPU was reset"));
}

}  // namespace
}  // namespace eclip::daemon
