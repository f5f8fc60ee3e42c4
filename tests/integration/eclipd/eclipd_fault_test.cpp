// Workers and daemons that die, lie or misunderstand each other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "ipc/control_socket.h"
#include "ipc/lease_ring.h"
#include "ipc/region.h"
#include "tests/fake/eventually.h"
#include "tests/integration/eclipd/running_eclipd.h"
#include "tools/replay/replay_kernel.h"

namespace eclip::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr milliseconds patience{20'000};

class EclipdFault : public EclipdTest {
 protected:
  void SetUp() override {
    EclipdTest::SetUp();
    if (!IsSkipped()) start();
  }
  /// A worker that keeps two streams busy and checks its results.
  [[nodiscard]] std::unique_ptr<ChildProcess> survivor() const {
    return replay({"--requests", "200", "--streams", "15,15", "--switch-every", "7", "--mix",
                   "--name", "survivor"});
  }
  static void expect_right_results(ChildProcess& worker) {
    ASSERT_EQ(worker.wait(), 0) << worker.errors();
    EXPECT_TRUE(nlohmann::json::parse(worker.output()).at("mix").at("matches"));
  }
};

TEST_F(EclipdFault, AWorkerKilledMidRequestGivesItsStreamsBackAndOthersResultsStayRight) {
  const auto other = survivor();
  ASSERT_TRUE(is_running("survivor"));
  for (int round = 0; round < 5; ++round) {
    const auto victim = replay({"--requests", "100000", "--streams", "30,60", "--switch-every", "3",
                                "--name", "victim" + std::to_string(round)});
    ASSERT_TRUE(is_running("victim" + std::to_string(round), 300));
    ASSERT_EQ(::kill(victim->pid(), SIGKILL), 0);
    EXPECT_EQ(victim->wait(), 128 + SIGKILL);
  }
  expect_right_results(*other);
  EXPECT_TRUE(all_streams_become_free());
  EXPECT_EQ(control({"client", "list"}).size(), 0U);
}

TEST_F(EclipdFault, AWorkerStoppedMidRequestDisturbsNobodyAndGoesWhenItDies) {
  const auto victim = replay({"--requests", "100000", "--streams", "30", "--name", "victim"});
  ASSERT_TRUE(is_running("victim", 300));
  ASSERT_EQ(::kill(victim->pid(), SIGSTOP), 0);
  const auto other = survivor();
  expect_right_results(*other);
  EXPECT_EQ(control({"client", "list"}).size(), 1U);
  ASSERT_EQ(::kill(victim->pid(), SIGKILL), 0);
  EXPECT_TRUE(all_streams_become_free());
}

TEST_F(EclipdFault, ARefusedPacketCutsOnlyItsWorkerOffWhoseWaitsEndWithAReason) {
  const auto other = survivor();
  ASSERT_TRUE(is_running("survivor"));
  Connection connection;
  Lease lease = connection.lease_stream(0);
  const Signal signal = connection.create_signal();
  eclip_dispatch dispatch{};
  dispatch.flags = ECLIP_PACKET_SIGNAL;
  dispatch.kernel = 12345;
  dispatch.signal = signal.id();
  for (auto& size : dispatch.grid_size) size = 1;
  for (auto& size : dispatch.workgroup_size) size = 1;
  Token token{};
  ASSERT_TRUE(lease.try_submit(dispatch, &token));
  try {
    static_cast<void>(connection.wait(token, patience));
    FAIL() << "the wait succeeded";
  } catch (const ApiError& error) {
    EXPECT_EQ(error.code().value(), EPROTO);
    EXPECT_THAT(error.what(), HasSubstr("packet 0"));
  }
  EXPECT_EQ(control({"status"}).at("workers_cut_off"), 1);
  expect_right_results(*other);
}

TEST_F(EclipdFault, ARingWhoseIndexRunsAwayIsCutOff) {
  auto socket = connect_control(this->socket(), milliseconds(1000));
  ASSERT_TRUE(socket);
  ASSERT_TRUE(exchange(socket->get(), make_message(MessageType::hello, 1, Hello{}), {}, patience));
  auto granted = exchange(
      socket->get(),
      make_message(MessageType::lease_acquire, 2, LeaseAcquire{.stream = 5, .cu_count = 0}), {},
      patience);
  ASSERT_TRUE(granted) << granted.error().message();
  auto region =
      Region::open(std::move(granted->fds[0]), RegionKind::lease_ring, sizeof(LeaseRing), true);
  ASSERT_TRUE(region);
  // Somebody must be awake to see it: any other worker's packets do that.
  region->payload<LeaseRing>().written.store(1'000'000);
  const auto other = survivor();
  expect_right_results(*other);
  EXPECT_EQ(control({"status"}).at("workers_cut_off"), 1);
}

TEST_F(EclipdFault, AClientOfAnotherProtocolVersionIsToldBothVersions) {
  auto socket = connect_control(this->socket(), milliseconds(1000));
  ASSERT_TRUE(socket);
  Message message = make_message(MessageType::hello, 1, Hello{});
  message.header.major = 9;
  const auto reply = exchange(socket->get(), message, {}, patience);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, Errc::version_mismatch);
  EXPECT_THAT(reply.error().message(),
              HasSubstr("9." + std::to_string(MessageHeader::protocol_minor)));
}

TEST_F(EclipdFault, RequestsWithoutAWorkerAndUnknownOnesAreRefusedAndTheConnectionGoesOn) {
  auto socket = connect_control(this->socket(), milliseconds(1000));
  ASSERT_TRUE(socket);
  std::uint32_t sequence = 0;
  const auto ask = [&](MessageType type) {
    const auto reply =
        exchange(socket->get(), make_message(type, ++sequence, Handle{77}), {}, patience);
    return reply ? std::error_code() : reply.error().code;
  };
  for (const auto type :
       {MessageType::lease_acquire, MessageType::lease_release, MessageType::memory_allocate,
        MessageType::memory_free, MessageType::kernel_register})
    EXPECT_EQ(ask(type), Errc::invalid_argument) << static_cast<int>(type);
  EXPECT_EQ(ask(MessageType::code_load), Errc::malformed);
  EXPECT_EQ(ask(static_cast<MessageType>(9999)), Errc::malformed);
  EXPECT_EQ(ask(MessageType::get_status), std::error_code());
}

TEST_F(EclipdFault, AMessageOfTheWrongSizeClosesOnlyItsConnection) {
  auto socket = connect_control(this->socket(), milliseconds(1000));
  ASSERT_TRUE(socket);
  ASSERT_EQ(::send(socket->get(), "half", 4, 0), 4);
  const auto reply = await_message(socket->get(), patience);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, Errc::gone);
  EXPECT_EQ(control({"status"}).at("workers"), 0);
}

TEST_F(EclipdFault, AWorkerThatWaitsNoticesThatTheDaemonDied) {
  Connection connection;
  Lease lease = connection.lease_stream(3);
  const Signal signal = connection.create_signal();
  MixKernel kernel(connection, 4'000'000);
  Token token{};
  ASSERT_TRUE(lease.try_submit(kernel.next(1, ECLIP_PACKET_SIGNAL, signal.id()), &token));
  std::thread killer([&] {
    while (control({"status"}).at("packets_forwarded") == 0) std::this_thread::yield();
    ::kill(daemon().pid(), SIGKILL);
  });
  int error = 0;
  try {
    static_cast<void>(connection.wait(token, patience));
  } catch (const ApiError& thrown) {
    error = thrown.code().value();
  }
  killer.join();
  EXPECT_EQ(error, ECONNRESET);
}

TEST_F(EclipdFault, AKernelThatReachesForUnmappedMemoryIsSaidAndEclipdServesAgain) {
  Connection connection;
  Lease lease = connection.lease_any(15);
  const Signal signal = connection.create_signal();
  MixKernel kernel(connection, 1);
  const Memory lies = connection.allocate(4096);
  *lies.host<replay::MixKernarg>() = {.output = 0x40000, .salt = 1, .input_count = 0, .inputs = {}};
  eclip_dispatch dispatch = kernel.next(1, ECLIP_PACKET_SIGNAL, signal.id());
  dispatch.kernarg_memory = lies.handle();
  dispatch.kernarg_offset = 0;
  Token token{};
  ASSERT_TRUE(lease.try_submit(dispatch, &token));
  int error = 0;
  try {
    static_cast<void>(connection.wait(token, patience));
  } catch (const ApiError& thrown) {
    error = thrown.code().value();
  }
  EXPECT_EQ(error, ECONNRESET);
  EXPECT_EQ(control({"status"}).at("workers"), 0) << "a new serving process";
  ::kill(daemon().pid(), SIGTERM);
  EXPECT_EQ(daemon().wait(), 0);
  EXPECT_THAT(daemon().errors(), HasSubstr("memory at 0x40000 that is not mapped on the GPU"));
}

TEST_F(EclipdFault, TenThousandConnectionsAreRefusedAndOthersServedAgainWhenTheyGo) {
  constexpr int many = 10'000;
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_max < many + 100) GTEST_SKIP() << "not so many descriptors allowed (ulimit -Hn)";
  limit.rlim_cur = limit.rlim_max;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  Connection early;
  {
    std::vector<UniqueFd> sockets;
    for (int i = 0; i < many; ++i) {
      auto socket = connect_control(this->socket(), milliseconds(5000));
      ASSERT_TRUE(socket) << socket.error().message();
      sockets.push_back(std::move(*socket));
    }
    // The last one is closed by eclipd; a worker that is connected goes on.
    EXPECT_EQ(await_message(sockets.back().get(), patience).error().code, Errc::gone);
    const Memory memory = early.allocate(4096);
  }
  EXPECT_EQ(control({"status"}).at("workers"), 1);
}

TEST_F(EclipdFault, ANameWithControlCharactersIsShownWithoutThem) {
  eclip_connect_options options{};
  options.struct_size = sizeof options;
  options.worker_name = "evil\n\x1b[2J\xc2\x9b name";
  const Connection connection(&options);
  EXPECT_EQ(control({"client", "list"}).at(0).at("name"), "evil??[2J?? name");
}

TEST_F(EclipdFault, ManyComingAndGoingWorkersLeaveNothingBehindInTheDaemon) {
  const auto descriptors = [&] {
    const auto path = "/proc/" + std::to_string(serving_pid()) + "/fd";
    return std::distance(std::filesystem::directory_iterator(path), {});
  };
  const auto come_and_go = [&] {
    Connection connection;
    Lease lease = connection.lease_any(15);
    const Signal signal = connection.create_signal();
    MixKernel kernel(connection, 1);
    Token token{};
    ASSERT_TRUE(lease.try_submit(kernel.next(1, ECLIP_PACKET_SIGNAL, signal.id()), &token));
    ASSERT_TRUE(connection.wait(token, patience));
  };
  // eclipd opens files now and then, for a moment.
  auto before = descriptors();
  for (int i = 0; i < 100; ++i) before = std::min(before, descriptors());
  for (int i = 0; i < 100; ++i) come_and_go();
  ASSERT_TRUE(all_streams_become_free());
  // A worker's memory goes a moment after its streams.
  EXPECT_TRUE(eventually([&] { return descriptors() == before; }))
      << descriptors() << " descriptors, " << before << " before";
}

}  // namespace
}  // namespace eclip::test
