// The forwarder between fake workers and hardware queues made of plain memory: latencies and
// packets per second. Beside them a round trip over a Unix socket, for the ratio.
#include <benchmark/benchmark.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "ipc/futex.h"
#include "tests/bench/latencies.h"
#include "tests/unit/daemon/fake_hardware.h"

namespace eclip::daemon {
namespace {

using bench::Clock;
using bench::Latencies;

/// A forwarder that runs, with one stream and one lease for each worker.
class Pool {
 public:
  Pool(std::size_t workers, std::chrono::nanoseconds spin) : queues_(workers) {
    std::vector<AqlRing*> rings;
    for (auto& queue : queues_) rings.push_back(&queue.ring);
    forwarder_ = std::make_unique<Forwarder>(
        Forwarder::Options{.spin = spin, .nap = std::chrono::microseconds(50)}, std::move(rings),
        Forwarder::OwnSignals{.slots = own_slots_,
                              .gpu_address = reinterpret_cast<std::uint64_t>(own_slots_.data())},
        board_, [](WorkerId, LeaseId, std::uint64_t, const Error&) {},
        [](WorkerId, LeaseId, LeaseEnd) {});
    for (std::uint32_t i = 0; i < workers; ++i) {
      workers_.emplace_back(i + 1);
      forwarder_->attach(workers_.back().forwarded);
      auto region = Region::create("bench-ring", RegionKind::lease_ring, sizeof(LeaseRing),
                                   RegionWriter::both, 1);
      LeaseRing& ring = region->payload<LeaseRing>();
      rings_.push_back(&ring);
      writers_.emplace_back(ring);
      forwarder_->open_lease(workers_.back().forwarded,
                             std::make_unique<ForwardedLease>(ForwardedLease{
                                 .id = LeaseId{i + 1},
                                 .stream = StreamId{i},
                                 .region = std::make_shared<const Region>(std::move(*region)),
                                 .reader = LeaseRingReader(ring),
                                 .slot = &workers_.back().state->leases[0]}));
    }
    bench::run_on_cpu(1);
    forwarder_->start();
    bench::run_on_cpu(0);
  }

  /// As libeclip does it.
  void submit(std::size_t worker, const LeasePacket& packet) {
    while (!writers_[worker].push(packet)) __builtin_ia32_pause();
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (board_.forwarder_asleep.load(std::memory_order_relaxed) == 0) return;
    workers_[worker].request.wake.fetch_add(1);
    futex_wake_all(workers_[worker].request.wake);
  }
  bool try_push(std::size_t worker, const LeasePacket& packet) {
    return writers_[worker].push(packet);
  }
  void wait_for_doorbell(std::size_t stream, std::uint64_t packets) {
    while (queues_[stream].rung() < packets) __builtin_ia32_pause();
  }
  void complete_all() {
    for (auto& queue : queues_) queue.complete_all();
  }
  [[nodiscard]] bool asleep() const { return board_.forwarder_asleep.load() != 0; }
  [[nodiscard]] std::uint64_t packets(std::uint32_t stream) const {
    return forwarder_->packets(StreamId{stream});
  }

 private:
  std::deque<FakeQueue> queues_;
  std::deque<FakeWorker> workers_;
  std::vector<LeaseRing*> rings_;
  std::vector<LeaseRingWriter> writers_;
  std::vector<SignalSlot> own_slots_ = std::vector<SignalSlot>(1024);
  Board board_{};
  std::unique_ptr<Forwarder> forwarder_;
};

/// From a worker's store to the doorbell's store, as a thread on another core sees it. The
/// forwarder spins for so long, and `ready` says when it is as the measurement wants it.
template <class Ready>
void measure_store_to_doorbell(benchmark::State& state, std::chrono::microseconds spin,
                               Ready ready) {
  Pool pool(1, spin);
  const LeasePacket packet = dispatch();
  std::uint64_t packets = 0;
  Latencies latencies(state);
  for (auto _ : state) {
    while (!ready(pool)) std::this_thread::yield();
    const auto start = Clock::now();
    pool.submit(0, packet);
    pool.wait_for_doorbell(0, ++packets);
    latencies.add(Clock::now() - start);
    pool.complete_all();
  }
  bench::set_throughput(state, static_cast<double>(packets));
}

/// With a forwarder that is awake.
void StoreToDoorbell(benchmark::State& state) {
  measure_store_to_doorbell(state, std::chrono::seconds(1), [](const Pool&) { return true; });
}
BENCHMARK(StoreToDoorbell)->UseManualTime();

/// With one that sleeps when the packet comes.
void WakeFromIdle(benchmark::State& state) {
  measure_store_to_doorbell(state, std::chrono::microseconds(1),
                            [](const Pool& pool) { return pool.asleep(); });
}
BENCHMARK(WakeFromIdle)->UseManualTime();

/// Full rings for the given number of workers; one thread plays all workers and the hardware.
/// `jain`: how equal the workers' shares are, 1 for equal ones.
void Throughput(benchmark::State& state) {
  const auto workers = static_cast<std::size_t>(state.range(0));
  Pool pool(workers, std::chrono::seconds(1));
  const LeasePacket packet = dispatch();
  const auto all_packets = [&] {
    std::uint64_t sum = 0;
    for (std::uint32_t i = 0; i < workers; ++i) sum += pool.packets(i);
    return sum;
  };
  constexpr std::uint64_t block = 100'000;
  std::uint64_t reached = 0;
  Latencies per_packet(state);
  for (auto _ : state) {
    const std::uint64_t begin = all_packets();
    const auto start = Clock::now();
    do {
      for (std::size_t i = 0; i < workers; ++i)
        while (pool.try_push(i, packet)) {
        }
      pool.complete_all();
      reached = all_packets();
    } while (reached - begin < block);
    per_packet.add(Clock::now() - start, static_cast<double>(reached - begin));
  }
  double sum = 0;
  double squares = 0;
  for (std::uint32_t i = 0; i < workers; ++i) {
    const auto share = static_cast<double>(pool.packets(i));
    sum += share;
    squares += share * share;
  }
  state.counters["jain"] = sum * sum / (static_cast<double>(workers) * squares);
  bench::set_throughput(state, static_cast<double>(reached));
}
BENCHMARK(Throughput)->Arg(1)->Arg(7)->UseManualTime();

/// A look of the forwarder at which nothing has happened, with so many workers that have so many
/// leases each; all workers' first leases are on the first stream, and so on.
void IdleTurn(benchmark::State& state) {
  const auto worker_count = static_cast<std::uint32_t>(state.range(0));
  const auto leases = static_cast<std::uint32_t>(state.range(1));
  std::deque<FakeQueue> queues(leases);
  std::vector<AqlRing*> rings;
  for (auto& queue : queues) rings.push_back(&queue.ring);
  std::vector<SignalSlot> own_slots(1024);
  Board board{};
  Forwarder forwarder(
      {.spin = std::chrono::seconds(1), .nap = std::chrono::microseconds(50)}, rings,
      {.slots = own_slots, .gpu_address = reinterpret_cast<std::uint64_t>(own_slots.data())}, board,
      [](WorkerId, LeaseId, std::uint64_t, const Error&) {}, [](WorkerId, LeaseId, LeaseEnd) {});
  std::deque<FakeWorker> workers;
  for (std::uint32_t w = 0; w < worker_count; ++w) {
    forwarder.attach(workers.emplace_back(w + 1).forwarded);
    for (std::uint32_t i = 0; i < leases; ++i) {
      auto region = Region::create("bench-ring", RegionKind::lease_ring, sizeof(LeaseRing),
                                   RegionWriter::both, 1);
      LeaseRing& ring = region->payload<LeaseRing>();
      forwarder.open_lease(workers.back().forwarded,
                           std::make_unique<ForwardedLease>(ForwardedLease{
                               .id = LeaseId{w * leases + i + 1},
                               .stream = StreamId{i},
                               .region = std::make_shared<const Region>(std::move(*region)),
                               .reader = LeaseRingReader(ring),
                               .slot = &workers.back().state->leases[i],
                               .scheduled = leases > 1}));
    }
  }
  for (int i = 0; i < 100; ++i) forwarder.turn();
  for (auto _ : state) forwarder.turn();
}
BENCHMARK(IdleTurn)->Args({1, 1})->Args({1, 8})->Args({7, 1})->Args({7, 8});

/// One message of the control protocol's size to another thread and back.
void UnixSocketRoundTrip(benchmark::State& state) {
  std::array<int, 2> sockets{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets.data()) != 0)
    return state.SkipWithError("no socket pair");
  bench::run_on_cpu(1);
  std::thread echo([fd = sockets[1]] {
    std::array<char, 256> message{};
    while (::read(fd, message.data(), message.size()) > 0)
      if (::write(fd, message.data(), message.size()) < 0) break;
  });
  bench::run_on_cpu(0);
  std::array<char, 256> message{};
  double count = 0;
  {
    Latencies latencies(state);
    for (auto _ : state) {
      const auto start = Clock::now();
      if (::write(sockets[0], message.data(), message.size()) < 0 ||
          ::read(sockets[0], message.data(), message.size()) < 0) {
        state.SkipWithError("the echo is gone");
        break;
      }
      latencies.add(Clock::now() - start);
      ++count;
    }
  }
  ::close(sockets[0]);
  echo.join();
  ::close(sockets[1]);
  bench::set_throughput(state, count);
}
BENCHMARK(UnixSocketRoundTrip)->UseManualTime();

}  // namespace
}  // namespace eclip::daemon
