// Scheduled workers on the simulated GPU, as their scheduler speaks to eclipd: by messages and
// rings. Kernels mix their salt into a value, so that a wrong order shows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <thread>
#include <vector>

#include "ipc/active_set.h"
#include "ipc/board.h"
#include "ipc/control_socket.h"
#include "ipc/futex.h"
#include "ipc/lease_ring.h"
#include "ipc/region.h"
#include "ipc/worker_regions.h"
#include "tests/fake/eventually.h"
#include "tests/integration/eclipd/running_eclipd.h"
#include "tools/replay/replay_kernel.h"

namespace eclip::test {
namespace {

constexpr std::chrono::seconds request_limit{5};
constexpr std::uint64_t slots_of_arguments = 4096;
constexpr std::uint64_t argument_bytes = sizeof(replay::MixKernarg);

/// A scheduled worker with one mixing kernel.
class ScheduledClient {
 public:
  ScheduledClient(const std::string& name, std::uint32_t kernel_us)
      : socket_(std::move(connect_control(socket_path_from_environment(), request_limit).value())) {
    Hello hello{};
    hello.worker_name.assign(name);
    auto welcome = ask(MessageType::hello, hello);
    worker_ = payload_of<Welcome>(welcome.message).worker;
    board_.emplace(open(welcome, 0, RegionKind::board, sizeof(Board), false));
    state_.emplace(open(welcome, 1, RegionKind::worker_state, sizeof(WorkerState), false));
    request_.emplace(open(welcome, 2, RegionKind::worker_request, sizeof(WorkerRequest), true));
    auto memory =
        ask(MessageType::memory_allocate,
            MemoryAllocate{
                .bytes = argument_bytes * (slots_of_arguments + 1), .flags = 0, .reserved = 0});
    memory_ = payload_of<MemoryAllocated>(memory.message);
    arguments_.emplace(map_memfd(memory.fds.at(0).get(), true, memory_.bytes).value());
    replay::ReplayKernel kernel{.shape = {}, .points = {{.cus = 1, .time_us = 1.0 * kernel_us}}};
    kernel.mixes = true;
    const auto image = replay::build_replay_image({&kernel, 1}).value();
    const auto memfd =
        sealed_memfd_of("code", std::as_bytes(std::span(image.bytes.data(), image.bytes.size())))
            .value();
    const int fd = memfd.get();
    const auto code = ask(MessageType::code_load, Handle{image.bytes.size()}, {&fd, 1});
    const auto registered = ask(
        MessageType::kernel_register,
        KernelRegister{.code = static_cast<std::uint32_t>(payload_of<Handle>(code.message).value),
                       .kernarg_bytes = argument_bytes,
                       .offset = image.kernel_offsets[0]});
    kernel_ = static_cast<std::uint32_t>(payload_of<Handle>(registered.message).value);
    auto scheduled = ask(MessageType::schedule, Schedule{});
    leases_ = payload_of<Scheduled>(scheduled.message);
    active_.emplace(open(scheduled, 0, RegionKind::active_set, sizeof(ActiveSet), true));
    rings_.emplace(open(scheduled, 1, RegionKind::lease_rings, sizeof(LeaseRings), true));
    for (std::uint32_t i = 0; i < leases_.count; ++i)
      writers_.emplace_back(rings_->payload<LeaseRings>().rings[i]);
  }

  [[nodiscard]] const Scheduled& leases() const { return leases_; }
  [[nodiscard]] std::atomic<std::uint32_t>& active() const {
    return active_->payload<ActiveSet>().workers;
  }
  [[nodiscard]] std::uint64_t worker() const { return worker_; }

  /// Mixes into the value, behind what the worker has submitted to this lease.
  SignalUse submit(std::size_t lease, bool group_end) {
    const std::uint64_t slot = 1 + submitted_ % slots_of_arguments;
    auto* const at = static_cast<std::byte*>(arguments_->get_address()) + slot * argument_bytes;
    const auto salt = static_cast<std::uint32_t>(++submitted_);
    const replay::MixKernarg arguments{.output = memory_.gpu_address,
                                       .salt = salt,
                                       .input_count = 1,
                                       .inputs = {memory_.gpu_address}};
    std::memcpy(at, &arguments, sizeof arguments);
    expected_ = replay::mix(salt, {&expected_, 1});
    LeasePacket packet{};
    packet.type = LeasePacketType::dispatch;
    packet.flags = static_cast<std::uint8_t>(LeasePacket::flag_barrier |
                                             (group_end ? LeasePacket::flag_group_end : 0));
    if (group_end) {
      signal_ = (signal_ + 1) % WorkerState::signal_count;
      const auto last = state_->payload<WorkerState>().signals[signal_].generation.load();
      packet.completion = {.signal = signal_, .generation = last + 1};
    }
    packet.dispatch.kernel = kernel_;
    packet.dispatch.grid_size = {1, 1, 1};
    packet.dispatch.workgroup_size = {1, 1, 1};
    packet.dispatch.kernarg_memory = memory_.memory;
    packet.dispatch.kernarg_offset = slot * argument_bytes;
    push(lease, packet);
    return packet.completion;
  }
  /// What comes next on this lease waits for the signal.
  void wait_on(std::size_t lease, SignalUse signal) {
    LeasePacket packet{};
    packet.type = LeasePacketType::barrier_and;
    packet.flags = LeasePacket::flag_barrier;
    packet.barrier.dependencies[0] = signal;
    push(lease, packet);
  }
  [[nodiscard]] bool completes(SignalUse use) const {
    const SignalSlot& slot = state_->payload<WorkerState>().signals[use.signal];
    return eventually([&] {
      return slot.generation.load() == use.generation && slot.value.load() == 0 &&
             slot.cancelled.load() != use.generation;
    });
  }
  [[nodiscard]] std::uint64_t value() const {
    return *static_cast<const volatile std::uint64_t*>(arguments_->get_address());
  }
  [[nodiscard]] std::uint64_t expected() const { return expected_; }
  [[nodiscard]] std::uint64_t submitted() const { return submitted_; }

 private:
  template <class Payload>
  ReceivedMessage ask(MessageType type, const Payload& payload, std::span<const int> fds = {}) {
    auto reply =
        exchange(socket_.get(), make_message(type, ++sequence_, payload), fds, request_limit);
    if (!reply) throw std::runtime_error(reply.error().message());
    return std::move(*reply);
  }
  static Region open(ReceivedMessage& reply, std::size_t fd, RegionKind kind, std::size_t bytes,
                     bool writable) {
    return std::move(Region::open(std::move(reply.fds.at(fd)), kind, bytes, writable).value());
  }
  void push(std::size_t lease, const LeasePacket& packet) {
    while (!writers_[lease].push(packet)) std::this_thread::yield();
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (board_->payload<const Board>().forwarder_asleep.load() == 0) return;
    auto& wake = request_->payload<WorkerRequest>().wake;
    wake.fetch_add(1);
    futex_wake_all(wake);
  }

  UniqueFd socket_;
  std::uint32_t sequence_ = 0;
  std::uint64_t worker_ = 0;
  std::optional<Region> board_;
  std::optional<Region> state_;
  std::optional<Region> request_;
  std::optional<Region> active_;
  std::optional<Region> rings_;
  MemoryAllocated memory_{};
  std::optional<boost::interprocess::mapped_region> arguments_;
  std::uint32_t kernel_ = 0;
  Scheduled leases_{};
  std::vector<LeaseRingWriter> writers_;
  std::uint32_t signal_ = 0;
  std::uint64_t submitted_ = 0;
  std::uint64_t expected_ = 0;
};

class EclipdSchedule : public EclipdTest {
 protected:
  /// A request of a few groups, each on another stream, behind the one before.
  static SignalUse request(ScheduledClient& client, std::uint32_t salt) {
    SignalUse last{};
    for (std::uint32_t group = 0; group < 4; ++group) {
      const std::size_t lease = (salt + group * 3) % client.leases().count;
      if (last.generation != 0) client.wait_on(lease, last);
      for (int kernel = 0; kernel < 4; ++kernel) last = client.submit(lease, kernel == 3);
    }
    return last;
  }
};

TEST_F(EclipdSchedule, WorkersThatMeetOnAllStreamsKeepTheirOrder) {
  start();
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([i] {
      ScheduledClient client("worker", 20);
      EXPECT_EQ(client.leases().count, 8U);
      for (std::uint32_t round = 0; round < 40; ++round) {
        const SignalUse last = request(client, round * 7 + static_cast<std::uint32_t>(i));
        ASSERT_TRUE(client.completes(last)) << "request " << round;
        ASSERT_EQ(client.value(), client.expected()) << "request " << round;
      }
      EXPECT_EQ(client.submitted(), 40U * 16U);
    });
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(eventually([&] { return control({"lease", "list"}).empty(); }));
  EXPECT_EQ(control({"status"}).at("workers_cut_off"), 0);
}

TEST_F(EclipdSchedule, AManualLeaseOnAStreamOfAScheduledWorkerTakesTurnsWithIt) {
  start();
  ScheduledClient client("scheduled", 20);
  Connection connection;
  Lease lease = connection.lease_stream(0);
  const Signal signal = connection.create_signal();
  MixKernel kernel(connection, 20);
  for (int round = 0; round < 20; ++round) {
    SignalUse last{};
    for (int i = 0; i < 8; ++i) last = client.submit(0, i % 4 == 3);
    Token token{};
    for (int i = 0; i < 8; ++i)
      ASSERT_TRUE(
          lease.try_submit(kernel.next(static_cast<std::uint32_t>(round),
                                       ECLIP_PACKET_BARRIER | (i == 7 ? ECLIP_PACKET_SIGNAL : 0),
                                       i == 7 ? signal.id() : 0),
                           i == 7 ? &token : nullptr));
    ASSERT_TRUE(client.completes(last));
    ASSERT_TRUE(connection.wait(token, std::chrono::seconds(20)));
    ASSERT_EQ(client.value(), client.expected());
    ASSERT_EQ(kernel.value(), kernel.expected());
  }
  const auto leases = control({"lease", "list"});
  EXPECT_EQ(leases.size(), 9U);
  EXPECT_EQ(control({"status"}).at("streams_leased"), 1);
  ChildProcess text({ECLIPCTL_PROGRAM, "--socket", socket(), "lease", "list"});
  EXPECT_EQ(text.wait(), 0);
  EXPECT_THAT(text.output(), ::testing::HasSubstr("by plan  8 streams"));
}

TEST_F(EclipdSchedule, AScheduledWorkerThatLeavesInTheMiddleOfARequestDisturbsNobody) {
  start();
  ScheduledClient survivor("survivor", 20);
  for (std::uint32_t round = 0; round < 5; ++round) {
    SignalUse last{};
    {
      ScheduledClient victim("victim", 100);
      for (std::uint32_t i = 0; i < 8; ++i) request(victim, i);
      last = request(survivor, round);
    }
    ASSERT_TRUE(survivor.completes(last)) << "round " << round;
    ASSERT_EQ(survivor.value(), survivor.expected());
    EXPECT_TRUE(eventually([&] { return control({"lease", "list"}).size() == 8; }));
  }
}

}  // namespace
}  // namespace eclip::test
