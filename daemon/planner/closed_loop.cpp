#include "daemon/planner/closed_loop.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

namespace eclip::planner {
namespace {

using model::Device;
using model::DeviceTime;
using model::Packet;
using model::PacketKind;
using model::SignalAddress;

/// One worker's progress. Its switches' signals and the signal of its last kernel are numbered in
/// one list of all workers.
struct Runner {
  const LoopWorker* worker = nullptr;
  std::vector<model::QueueId> queues;
  SignalAddress first_signal = 0;
  SignalAddress done_signal = 0;
  std::optional<DeviceTime> next_request;
  std::vector<DeviceTime> completions;
};

class ClosedLoop final : public model::Host {
 public:
  ClosedLoop(const model::GpuDescription& gpu, const LoopOptions& options)
      : options_(options), device_(gpu, *this) {}

  Result<void> add(const LoopWorker& worker) {
    Runner runner;
    runner.worker = &worker;
    for (const CuMask& mask : worker.streams) {
      const auto queue = device_.create_queue(mask);
      if (!queue) return tl::unexpected(queue.error());
      runner.queues.push_back(*queue);
    }
    runner.first_signal = signals_.size();
    for (std::size_t i = 1; i < worker.stream_of_kernel.size(); ++i)
      if (worker.stream_of_kernel[i] != worker.stream_of_kernel[i - 1]) signals_.push_back(0);
    runner.done_signal = signals_.size();
    signals_.push_back(0);
    runners_.push_back(std::move(runner));
    return {};
  }

  Result<LoopOutcome> run() {
    for (Runner& runner : runners_)
      if (!options_.serial || &runner == runners_.data()) runner.next_request = DeviceTime{};
    double warm_joules = 0;
    DeviceTime warm_at{};
    bool warm = false;
    constexpr std::uint32_t steps_between_questions = 1024;
    for (std::uint32_t steps = 0; !all_have(options_.warm_up + options_.requests); ++steps) {
      if (options_.stop && steps % steps_between_questions == 0 && options_.stop())
        return fail(Errc::timed_out, "the simulation was stopped");
      step();
      if (!warm && all_have(options_.warm_up)) {
        warm = true;
        warm_at = device_.now();
        warm_joules = device_.energy_joules();
      }
    }
    LoopOutcome outcome;
    for (const Runner& runner : runners_) {
      std::vector<double> times_us;
      for (std::size_t i = options_.warm_up; i < runner.completions.size(); ++i)
        times_us.push_back(
            static_cast<double>((runner.completions[i] - runner.completions[i - 1]).count()) /
            1000.0);
      outcome.mean_us.push_back(std::accumulate(times_us.begin(), times_us.end(), 0.0) /
                                static_cast<double>(times_us.size()));
      outcome.request_us.push_back(std::move(times_us));
    }
    const std::chrono::duration<double> seconds = device_.now() - warm_at;
    outcome.watts = (device_.energy_joules() - warm_joules) / seconds.count();
    return outcome;
  }

  std::int64_t signal_value(SignalAddress signal) override { return signals_[signal]; }
  void packet_started(model::QueueId, const Packet&, DeviceTime) override {}
  void packet_completed(model::QueueId, const Packet& packet, DeviceTime, DeviceTime at) override {
    if (packet.cookie == model::no_signal) return;
    --signals_[packet.cookie];
    for (std::size_t i = 0; i < runners_.size(); ++i) {
      if (runners_[i].done_signal != packet.cookie) continue;
      runners_[i].completions.push_back(at);
      Runner& next = options_.serial ? runners_[(i + 1) % runners_.size()] : runners_[i];
      next.next_request = at + DeviceTime(std::llround(options_.request_overhead_us * 1000));
    }
  }

 private:
  [[nodiscard]] bool all_have(std::uint32_t completions) const {
    return std::all_of(runners_.begin(), runners_.end(), [completions](const Runner& runner) {
      return runner.completions.size() >= completions;
    });
  }

  /// To the next event of the device or the next request, whichever comes first.
  void step() {
    std::optional<DeviceTime> until = device_.next_event();
    for (const Runner& runner : runners_)
      if (runner.next_request)
        until = std::min(until.value_or(*runner.next_request), *runner.next_request);
    device_.advance(until.value_or(device_.now()));
    for (Runner& runner : runners_)
      if (runner.next_request && *runner.next_request <= device_.now()) send(runner);
  }

  void send(Runner& runner) {
    runner.next_request.reset();
    const LoopWorker& worker = *runner.worker;
    std::fill(signals_.begin() + static_cast<std::ptrdiff_t>(runner.first_signal),
              signals_.begin() + static_cast<std::ptrdiff_t>(runner.done_signal) + 1, 1);
    SignalAddress signal = runner.first_signal;
    for (std::size_t i = 0; i < worker.kernels.size(); ++i) {
      const std::uint32_t stream = worker.stream_of_kernel[i];
      const bool is_last = i + 1 == worker.kernels.size();
      const bool switches = !is_last && worker.stream_of_kernel[i + 1] != stream;
      Packet dispatch{.barrier = true, .kernel = worker.kernels[i]};
      if (switches) dispatch.cookie = signal;
      if (is_last) dispatch.cookie = runner.done_signal;
      device_.submit(runner.queues[stream], std::move(dispatch), device_.now());
      if (!switches) continue;
      Packet barrier{.kind = PacketKind::barrier_and, .barrier = true};
      barrier.dependencies[0] = signal++;
      device_.submit(runner.queues[worker.stream_of_kernel[i + 1]], std::move(barrier),
                     device_.now());
    }
  }

  const LoopOptions& options_;
  Device device_;
  std::vector<Runner> runners_;
  std::vector<std::int64_t> signals_{0};  // index 0 is no_signal
};

}  // namespace

std::vector<std::shared_ptr<const model::Kernel>> kernels_of(const model::Profile& profile) {
  std::vector<std::shared_ptr<const model::Kernel>> kernels;
  kernels.reserve(profile.kernels.size());
  for (const model::ProfiledKernel& profiled : profile.kernels)
    kernels.push_back(std::make_shared<const model::Kernel>(profiled.kernel));
  return kernels;
}

Result<LoopOutcome> run_closed_loop(const model::GpuDescription& gpu,
                                    const std::vector<LoopWorker>& workers,
                                    const LoopOptions& options) {
  ClosedLoop loop(gpu, options);
  for (const LoopWorker& worker : workers)
    if (auto added = loop.add(worker); !added) return tl::unexpected(added.error());
  return loop.run();
}

}  // namespace eclip::planner
