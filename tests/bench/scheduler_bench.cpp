// What the runtime scheduler costs its caller: CPU time of a kernel, from the call until its
// packets are in a lease ring.
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "libeclip/scheduler.h"
#include "tests/bench/latencies.h"

namespace eclip::test {
namespace {

using bench::Clock;
using bench::Latencies;

/// Real rings, from which packets vanish; signals that are complete at once, or one use later.
class RingSink : public PacketSink {
 public:
  explicit RingSink(bool late) : late_(late) {
    for (auto& ring : rings_->rings) writers_.emplace_back(ring);
  }
  [[nodiscard]] bool has_stream(std::uint32_t stream) const override {
    return stream < LeaseRings::count;
  }
  Pushed push(std::uint32_t stream, const LeasePacket& packet) override {
    return writers_[stream].push(packet) ? Pushed::yes : Pushed::full;
  }
  std::optional<SignalUse> begin_use(std::uint32_t signal) override {
    last_ = signal;
    return SignalUse{signal, ++begun_[signal]};
  }
  void cancel_use(SignalUse use) override { --begun_[use.signal]; }
  [[nodiscard]] bool is_complete(SignalUse use) const override {
    return !late_ || use.generation == 0 || use.signal != last_;
  }
  [[nodiscard]] std::optional<Times> times(SignalUse /*use*/) const override {
    return std::nullopt;
  }
  void make_room() {
    for (std::size_t i = 0; i < writers_.size(); ++i)
      rings_->rings[i].taken.store(writers_[i].written(), std::memory_order_release);
  }

 private:
  const bool late_;
  std::unique_ptr<LeaseRings> rings_ = std::make_unique<LeaseRings>();
  std::vector<LeaseRingWriter> writers_;
  std::array<std::uint32_t, signal_count> begun_{};
  std::uint32_t last_ = signal_count;
};

/// Requests of so many groups of `kernels` kernels each, on two streams by turns, in one of
/// `programs` programs.
void run(benchmark::State& state, std::uint32_t groups, std::uint32_t kernels, bool late,
         std::uint32_t programs = 1) {
  const auto tables = std::make_unique<PlanTables>();
  std::atomic<std::uint64_t> epoch{1};
  std::atomic<std::uint32_t> active{0};
  SchedulerReport report{};
  WorkerPlan plan;
  plan.workers = 1;
  plan.kernel_count = groups * kernels;
  plan.stream.resize(2);
  LaunchShapes shapes;
  for (std::uint32_t k = 0; k < kernels; ++k) shapes.add(128);
  for (std::uint32_t g = 0; g < groups; ++g) {
    plan.first_kernel.push_back(g * kernels);
    plan.stream[1].push_back(static_cast<std::uint8_t>(g % 2));
    plan.shapes.push_back(shapes.value());
  }
  write_plan(*tables, 1, plan);
  RingSink sink(late);
  Scheduler scheduler(sink, PlanReader(*tables, epoch), report, &active);
  for (std::uint32_t i = 1; i < programs; ++i) scheduler.create_program();
  Program& program = *scheduler.create_program();
  LeaseDispatch dispatch{};
  dispatch.kernel = 7;
  dispatch.grid_size = {8192, 1, 1};
  dispatch.workgroup_size = {64, 1, 1};
  std::uint64_t sent = 0;
  Latencies latencies(state);
  for (auto _ : state) {
    sink.make_room();
    if (scheduler.begin_request(program) != Enqueued::yes)
      return state.SkipWithError("no room for a request");
    const auto start = Clock::now();
    for (std::uint32_t k = 0; k < plan.kernel_count; ++k) scheduler.dispatch(program, dispatch);
    latencies.add(Clock::now() - start, plan.kernel_count);
    scheduler.end_request(program);
    for (int i = 0; i < 3; ++i) scheduler.advance();
    sent += plan.kernel_count;
    if (!scheduler.all_gone(program)) return state.SkipWithError("kernels are left");
  }
  bench::set_throughput(state, static_cast<double>(sent));
  state.counters["barriers"] =
      static_cast<double>(report.barriers.load()) / static_cast<double>(sent);
}

/// 64 kernels of one group, which the plan knows.
void KernelThatStays(benchmark::State& state) {
  run(state, 1, 64, false);
}
BENCHMARK(KernelThatStays)->UseManualTime();

/// The same beside 15 programs in which nothing happens.
void KernelThatStaysAmongPrograms(benchmark::State& state) {
  run(state, 1, 64, false, Scheduler::most_programs);
}
BENCHMARK(KernelThatStaysAmongPrograms)->UseManualTime();

/// Each kernel is a group, on another stream than the one before, which is complete by then.
void KernelThatSwitches(benchmark::State& state) {
  run(state, 64, 1, false);
}
BENCHMARK(KernelThatSwitches)->UseManualTime();

/// The same while the one before still runs: with a barrier packet for each.
void KernelThatSwitchesBehindAnother(benchmark::State& state) {
  run(state, 64, 1, true);
}
BENCHMARK(KernelThatSwitchesBehindAnother)->UseManualTime();

}  // namespace
}  // namespace eclip::test
