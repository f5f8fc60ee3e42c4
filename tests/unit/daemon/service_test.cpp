// eclipd's service and control server in this process: a client over a socket pair, a GPU of plain
// memory.
#include "daemon/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "daemon/control_server.h"
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
