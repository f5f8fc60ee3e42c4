// What libeclip costs its caller, against a fake daemon.
#include <benchmark/benchmark.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "eclip/eclip.h"
#include "tests/bench/latencies.h"
#include "tests/unit/libeclip/fake_daemon.h"

namespace eclip::test {
namespace {

using bench::Clock;
using bench::Latencies;

/// A connection with a lease.
struct Connected {
  Connected() {
    const std::string path = daemon.path();
    eclip_connect_options options{};
    options.struct_size = sizeof options;
    options.timeout_ms = 5000;
    options.socket_path = path.c_str();
    eclip_lease_request request{};
    request.struct_size = sizeof request;
    request.stream = ECLIP_ANY_STREAM;
    request.cu_count = 15;
    ok = eclip_connect(&options, &context) == 0 &&
         eclip_lease_acquire(context, &request, &lease) == 0;
  }
  Connected(const Connected&) = delete;
  Connected& operator=(const Connected&) = delete;
  ~Connected() { eclip_disconnect(context); }

  FakeDaemon daemon;
  eclip_context* context = nullptr;
  eclip_lease* lease = nullptr;
  bool ok = false;
};

eclip_dispatch some_dispatch() {
  eclip_dispatch dispatch{};
  dispatch.struct_size = sizeof dispatch;
  dispatch.flags = ECLIP_PACKET_BARRIER;
  dispatch.kernel = 7;
  for (int i = 0; i < 3; ++i) dispatch.grid_size[i] = dispatch.workgroup_size[i] = 1;
  dispatch.grid_size[0] = dispatch.workgroup_size[0] = 64;
  return dispatch;
}

/// CPU time of one eclip_submit_dispatch, measured in blocks of 64.
void Dispatch(benchmark::State& state) {
  Connected worker;
  if (!worker.ok) return state.SkipWithError(eclip_last_error());
  const eclip_dispatch dispatch = some_dispatch();
  constexpr int block = 64;
  std::uint64_t submitted = 0;
  Latencies latencies(state);
  for (auto _ : state) {
    worker.daemon.ring(0).taken = submitted;
    const auto start = Clock::now();
    for (int i = 0; i < block; ++i)
      if (eclip_submit_dispatch(worker.lease, &dispatch, nullptr) != 0)
        return state.SkipWithError(eclip_last_error());
    latencies.add(Clock::now() - start, block);
    submitted += block;
  }
  bench::set_throughput(state, static_cast<double>(submitted));
}
BENCHMARK(Dispatch)->UseManualTime();

/// As Dispatch, each with a completion signal.
void DispatchWithSignal(benchmark::State& state) {
  Connected worker;
  if (!worker.ok) return state.SkipWithError(eclip_last_error());
  constexpr int block = 64;
  std::vector<eclip_dispatch> dispatches(block, some_dispatch());
  for (auto& dispatch : dispatches) {
    dispatch.flags |= ECLIP_PACKET_SIGNAL;
    eclip_signal_create(worker.context, &dispatch.signal);
  }
  std::vector<eclip_token> tokens(block);
  std::uint64_t submitted = 0;
  Latencies latencies(state);
  for (auto _ : state) {
    worker.daemon.ring(0).taken = submitted;
    const auto start = Clock::now();
    for (std::size_t i = 0; i < block; ++i)
      if (eclip_submit_dispatch(worker.lease, &dispatches[i], &tokens[i]) != 0)
        return state.SkipWithError(eclip_last_error());
    latencies.add(Clock::now() - start, block);
    for (const eclip_token token : tokens) {
      SignalSlot& slot = worker.daemon.state().signals[token.signal];
      slot.value = 0;
      slot.generation = token.generation;
    }
    submitted += block;
  }
  bench::set_throughput(state, static_cast<double>(submitted));
}
BENCHMARK(DispatchWithSignal)->UseManualTime();

/// From a completion to the return of the eclip_wait of the one thread that it concerns, while the
/// given number of threads wait for signals of their own.
void ManyWaiters(benchmark::State& state) {
  Connected worker;
  if (!worker.ok) return state.SkipWithError(eclip_last_error());
  const auto count = static_cast<std::size_t>(state.range(0));
  struct Waiter {
    std::atomic<std::uint32_t> waits{0};  ///< generation that it waits for
    std::atomic<std::uint32_t> woken{0};
    eclip_token token{};
    std::thread thread;
  };
  std::vector<Waiter> waiters(count);
  std::atomic<bool> stop{false};
  eclip_dispatch dispatch = some_dispatch();
  dispatch.flags |= ECLIP_PACKET_SIGNAL;
  const auto submit = [&](Waiter& waiter) {
    dispatch.signal = waiter.token.signal;
    worker.daemon.ring(0).taken = worker.daemon.ring(0).written.load();
    eclip_submit_dispatch(worker.lease, &dispatch, &waiter.token);
    waiter.waits.store(waiter.token.generation, std::memory_order_release);
    waiter.waits.notify_one();
  };
  for (auto& waiter : waiters) {
    eclip_signal_create(worker.context, &waiter.token.signal);
    waiter.thread = std::thread([&] {
      for (std::uint32_t done = 0;; ++done) {
        waiter.waits.wait(done);
        if (stop.load()) return;
        eclip_wait(worker.context, waiter.token, UINT64_MAX);
        waiter.woken.store(done + 1, std::memory_order_release);
      }
    });
    submit(waiter);
  }
  {
    Latencies latencies(state);
    std::size_t next = 0;
    for (auto _ : state) {
      Waiter& waiter = waiters[next++ % count];
      const SignalUse use{waiter.token.signal, waiter.token.generation};
      while (worker.daemon.request().waiters[use.signal].load() == 0) std::this_thread::yield();
      const auto start = Clock::now();
      worker.daemon.complete(use);
      while (waiter.woken.load(std::memory_order_acquire) != use.generation)
        std::this_thread::yield();
      latencies.add(Clock::now() - start);
      submit(waiter);
    }
    bench::set_throughput(state, static_cast<double>(state.iterations()));
  }
  stop.store(true);
  for (auto& waiter : waiters) {
    worker.daemon.complete({waiter.token.signal, waiter.token.generation});
    waiter.waits.fetch_add(1);
    waiter.waits.notify_one();
    waiter.thread.join();
  }
}
BENCHMARK(ManyWaiters)->Arg(1)->Arg(64)->UseManualTime();

}  // namespace
}  // namespace eclip::test
