#include "daemon/planner/open_loop.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>
#include <utility>

#include "daemon/model/device.h"
#include "daemon/planner/arrivals.h"

namespace eclip::planner {
namespace {

using model::Device;
using model::DeviceTime;
using model::Packet;
using model::PacketKind;
using model::SignalAddress;

constexpr std::uint32_t steps_between_questions = 1024;
/// Times of arrival at lower rates do not fit into a DeviceTime for long.
constexpr double least_rate = 1e-4;

DeviceTime of_us(double us) {
  return DeviceTime(std::llround(us * 1000));
}

/// One worker's progress.
struct OpenRunner {
  OpenRunner(const Worker& of, const Groups& groups_of, const OpenLoopOptions& options,
             std::size_t number)
      : worker(&of),
        groups(&groups_of),
        arrivals(options.seed, number, of.requests_per_s),
        next_arrival(arrivals.next()) {}

  const Worker* worker;
  const Groups* groups;
  Arrivals arrivals;
  DeviceTime next_arrival;
  std::deque<DeviceTime> waiting;        // when the requests arrived, the running one too
  std::optional<DeviceTime> next_start;  // of the request that is to run
  std::vector<model::QueueId> queues;    // of each stream
  SignalAddress first_signal = 0;        // one for each group
  std::size_t sent = 0;                  // groups of the running request
  std::size_t completed = 0;
  std::uint32_t last_stream = 0;
  std::vector<double> latency_us;
};

class OpenLoop final : public model::Host {
 public:
  OpenLoop(const model::GpuDescription& gpu, std::span<const CuMask> streams,
           const StreamTable& table, const OpenLoopOptions& options)
      : streams_(streams), table_(table), options_(options), device_(gpu, *this) {}

  Result<void> add(const Worker& worker, const Groups& groups) {
    if (!std::isfinite(worker.requests_per_s) || worker.requests_per_s < least_rate)
      return fail(Errc::invalid_argument, "worker '" + worker.name +
                                              "' has no rate of arrival; give at least " +
                                              std::to_string(least_rate) + " requests per second");
    OpenRunner& runner = runners_.emplace_back(worker, groups, options_, runners_.size());
    for (const CuMask& mask : streams_) {
      const auto queue = device_.create_queue(mask);
      if (!queue) return tl::unexpected(queue.error());
      runner.queues.push_back(*queue);
    }
    runner.first_signal = signals_.size();
    signals_.resize(signals_.size() + groups.size(), 0);
    return {};
  }

  Result<OpenLoopOutcome> run() {
    for (std::uint32_t steps = 0; !is_done(); ++steps) {
      if (options_.stop && steps % steps_between_questions == 0 && options_.stop())
        return fail(Errc::timed_out, "the simulation was stopped");
      if (options_.most_requests != 0 && completed_ >= options_.most_requests)
        return fail(Errc::timed_out, "all workers together have " + std::to_string(completed_) +
                                         " requests, and one has fewer than " +
                                         std::to_string(options_.requests));
      step();
    }
    OpenLoopOutcome outcome;
    for (OpenRunner& runner : runners_) outcome.latency_us.push_back(std::move(runner.latency_us));
    outcome.seconds = std::chrono::duration<double>(device_.now()).count();
    return outcome;
  }

  std::int64_t signal_value(SignalAddress signal) override { return signals_[signal]; }
  void packet_started(model::QueueId, const Packet&, DeviceTime) override {}
  void packet_completed(model::QueueId, const Packet& packet, DeviceTime, DeviceTime) override {
    if (packet.cookie == model::no_signal) return;
    --signals_[packet.cookie];
    for (OpenRunner& runner : runners_)
      if (packet.cookie >= runner.first_signal &&
          packet.cookie < runner.first_signal + runner.groups->size())
        ++runner.completed;
  }

 private:
  [[nodiscard]] bool is_done() const {
    return std::all_of(runners_.begin(), runners_.end(), [this](const OpenRunner& runner) {
      return runner.latency_us.size() >= options_.requests;
    });
  }

  /// To the next event of the device, arrival or start, whichever comes first.
  void step() {
    std::optional<DeviceTime> until = device_.next_event();
    for (const OpenRunner& runner : runners_) {
      until = std::min(until.value_or(runner.next_arrival), runner.next_arrival);
      if (runner.next_start) until = std::min(*until, *runner.next_start);
    }
    device_.advance(*until);
    for (OpenRunner& runner : runners_) arrive(runner);
    for (OpenRunner& runner : runners_) finish(runner);
    // Who is active is settled now: everybody decides by the same.
    for (std::size_t w = 0; w < runners_.size(); ++w) go_on(w);
  }

  void arrive(OpenRunner& runner) {
    while (runner.next_arrival <= device_.now()) {
      if (runner.waiting.empty()) runner.next_start = runner.next_arrival;
      runner.waiting.push_back(runner.next_arrival);
      runner.next_arrival = runner.arrivals.next();
    }
  }

  void finish(OpenRunner& runner) {
    if (runner.completed < runner.groups->size()) return;
    const std::chrono::duration<double, std::micro> latency =
        device_.now() - runner.waiting.front();
    runner.latency_us.push_back(latency.count());
    ++completed_;
    runner.waiting.pop_front();
    runner.sent = 0;
    runner.completed = 0;
    if (!runner.waiting.empty())
      runner.next_start = device_.now() + of_us(options_.request_overhead_us);
  }

  /// Sends the groups whose time has come: two of a request that starts, else one for each that is
  /// complete.
  void go_on(std::size_t worker) {
    OpenRunner& runner = runners_[worker];
    if (runner.next_start) {
      if (*runner.next_start > device_.now()) return;
      runner.next_start.reset();
    } else if (runner.sent == 0) {
      return;
    }
    while (runner.sent < runner.groups->size() && runner.sent < runner.completed + 2)
      send_group(worker);
  }

  [[nodiscard]] WorkerSet active() const {
    WorkerSet active = 0;
    for (std::size_t w = 0; w < runners_.size(); ++w)
      if (!runners_[w].waiting.empty()) active |= WorkerSet{1} << w;
    return active;
  }

  void send_group(std::size_t worker) {
    OpenRunner& runner = runners_[worker];
    const std::size_t group = runner.sent;
    const auto& kernels = runner.worker->kernels;
    const std::size_t end =
        group + 1 < runner.groups->size() ? (*runner.groups)[group + 1] : kernels.size();
    const SignalAddress done = runner.first_signal + group;
    const std::uint32_t stream = table_(worker, group, active());
    const model::QueueId queue = runner.queues[stream];
    if (group > 0 && stream != runner.last_stream) {
      Packet barrier{.kind = PacketKind::barrier_and, .barrier = true};
      barrier.dependencies[0] = done - 1;
      device_.submit(queue, std::move(barrier), device_.now());
    }
    signals_[done] = 1;
    for (std::size_t k = (*runner.groups)[group]; k < end; ++k) {
      Packet dispatch{.barrier = true, .kernel = kernels[k]};
      if (k + 1 == end) dispatch.cookie = done;
      device_.submit(queue, std::move(dispatch), device_.now());
    }
    runner.last_stream = stream;
    ++runner.sent;
  }

  std::span<const CuMask> streams_;
  const StreamTable& table_;
  const OpenLoopOptions& options_;
  Device device_;
  std::vector<OpenRunner> runners_;
  std::uint64_t completed_ = 0;           // requests of all
  std::vector<std::int64_t> signals_{0};  // index 0 is no_signal
};

}  // namespace

Result<OpenLoopOutcome> run_open_loop(const model::GpuDescription& gpu,
                                      std::span<const Worker> workers,
                                      std::span<const Groups> groups,
                                      std::span<const CuMask> streams, const StreamTable& table,
                                      const OpenLoopOptions& options) {
  OpenLoop loop(gpu, streams, table, options);
  for (std::size_t w = 0; w < workers.size(); ++w)
    if (auto added = loop.add(workers[w], groups[w]); !added) return tl::unexpected(added.error());
  return loop.run();
}

}  // namespace eclip::planner
