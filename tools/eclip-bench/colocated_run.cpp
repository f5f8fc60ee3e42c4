#include "tools/eclip-bench/colocated_run.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>
#include <stdexcept>

#include "daemon/planner/arrivals.h"
#include "daemon/planner/pool.h"

namespace eclip::bench {
namespace {

using model::DeviceTime;
using planner::Worker;

DeviceTime time_of_us(double us) {
  return DeviceTime(std::llround(us * 1000));
}
double us_of(DeviceTime time) {
  return std::chrono::duration<double, std::micro>(time).count();
}
double seconds_of(DeviceTime time) {
  return std::chrono::duration<double>(time).count();
}

/// Groups of another worker on a stream when this one became active: over when so many of its
/// packets for that stream are complete.
struct Leftover {
  std::size_t worker;
  std::uint32_t stream;
  std::uint64_t until;
};

struct Client {
  std::unique_ptr<Sender> sender;
  std::vector<DeviceTime> arrivals;  // open loop: all, ascending
  std::size_t arrived = 0;
  std::deque<DeviceTime> waiting;        // when they arrived; the running one first
  bool running = false;                  // the first of `waiting`
  std::optional<DeviceTime> next_start;  // of the request that is to run
  std::vector<DeviceTime> completions;
  std::size_t warm_up = 0;  // closed loop: completions that do not count
  std::vector<double> latency_us;

  DeviceTime active_since{};
  DeviceTime active_time{};
  std::vector<Leftover> leftovers;
  std::vector<double> intrusion_us;
  DeviceTime intrusion_time{};
};

class ColocatedRun {
 public:
  ColocatedRun(const model::GpuDescription& gpu, std::span<const Worker> workers,
               const Sharing& sharing, const RunOptions& options, SharedDevice& shared,
               Trace* trace, std::optional<std::size_t> only)
      : gpu_(gpu),
        workers_(workers),
        sharing_(sharing),
        options_(options),
        shared_(shared),
        trace_(trace),
        stalls_(gpu, options.seed),
        clients_(workers.size()) {
    for (std::size_t w = 0; w < workers.size(); ++w) clients_[w].sender = sender(w);
    if (sharing.mechanism == Mechanism::scheduler) {
      for (std::size_t w = 0; w < workers.size(); ++w)
        write_plan(plans_.tables[w], 1, sharing.tables[w]);
      plans_.epoch = 1;
    }
    if (options.open_loop)
      draw_arrivals();
    else
      draw_first_requests();
    for (std::size_t w = 0; w < workers.size(); ++w)
      if (only && w != *only) clients_[w].arrivals.clear();
  }

  RunOutcome run() {
    while (!is_over()) {
      step();
      if (!options_.open_loop && !warm_at_ && all_have(options_.warm_up)) begin_to_count();
    }
    return outcome();
  }

 private:
  void begin_to_count() {
    warm_at_ = shared_.device().now();
    warm_joules_ = shared_.device().energy_joules();
    for (Client& client : clients_) {
      client.warm_up = client.completions.size();
      client.latency_us.clear();
    }
  }

  std::unique_ptr<Sender> sender(std::size_t worker) {
    switch (sharing_.mechanism) {
      case Mechanism::scheduler:
        return std::make_unique<ScheduledSender>(
            shared_, worker, workers_[worker].kernels, plans_,
            options_.backlog == 0 ? plans_.active : plans_.views[worker]);
      case Mechanism::kernelwise:
        return std::make_unique<KernelwiseSender>(shared_, worker,
                                                  sharing_.stream_of_kernel[worker]);
      case Mechanism::mask_ioctl:
        break;
    }
    return std::make_unique<MaskIoctlSender>(shared_, worker, sharing_.stream_of_kernel[worker],
                                             sharing_.pool, stalls_);
  }

  void draw_arrivals() {
    // Until the slowest has had its requests; a worker's arrivals do not depend on the others'.
    DeviceTime end{};
    for (std::size_t w = 0; w < workers_.size(); ++w) {
      planner::Arrivals arrivals(options_.seed, w, workers_[w].requests_per_s);
      DeviceTime last{};
      for (std::uint32_t i = 0; i < options_.requests; ++i) last = arrivals.next();
      end = std::max(end, last);
    }
    for (std::size_t w = 0; w < workers_.size(); ++w) {
      planner::Arrivals arrivals(options_.seed, w, workers_[w].requests_per_s);
      for (DeviceTime at = arrivals.next(); at <= end; at = arrivals.next())
        clients_[w].arrivals.push_back(at);
    }
  }

  void draw_first_requests() {
    std::mt19937_64 random(options_.seed);
    for (std::size_t w = 0; w < workers_.size(); ++w) {
      constexpr double steps = 18446744073709551616.0;  // 2^64
      const double part = static_cast<double>(random()) / steps;
      clients_[w].arrivals.push_back(
          time_of_us(part * planner::service_us(workers_[w], gpu_.geometry.cu_count())));
    }
  }

  [[nodiscard]] bool all_have(std::uint32_t completions) const {
    return std::all_of(clients_.begin(), clients_.end(), [completions](const Client& client) {
      return client.arrivals.empty() || client.completions.size() >= client.warm_up + completions;
    });
  }

  [[nodiscard]] bool is_over() const {
    if (!options_.open_loop) return warm_at_ && all_have(options_.requests);
    return std::all_of(clients_.begin(), clients_.end(), [](const Client& client) {
      return client.completions.size() == client.arrivals.size();
    });
  }

  /// To the next event of the device, arrival, start or end of an ioctl, whichever comes first.
  void step() {
    std::optional<DeviceTime> until = shared_.device().next_event();
    const auto consider = [&until](DeviceTime at) { until = std::min(until.value_or(at), at); };
    for (const Client& client : clients_) {
      if (client.arrived < client.arrivals.size()) consider(client.arrivals[client.arrived]);
      if (client.next_start) consider(*client.next_start);
      if (const auto due = client.sender->due()) consider(*due);
    }
    if (!until) throw std::logic_error("nothing will happen, and requests are not complete");
    shared_.device().advance(*until);
    for (Client& client : clients_) arrive(client);
    note_active();
    // What one worker sends may complete something at the same instant.
    for (bool again = true; again;) {
      again = false;
      for (std::size_t w = 0; w < clients_.size(); ++w) again = go_on(w) || again;
    }
    note_active();
    end_intrusions();
  }

  void arrive(Client& client) {
    const std::size_t before = client.arrived;
    while (client.arrived < client.arrivals.size() &&
           client.arrivals[client.arrived] <= shared_.device().now())
      add_request(client, client.arrivals[client.arrived++]);
    if (client.arrived != before) set_waiting(client);
  }

  static void add_request(Client& client, DeviceTime at) {
    if (client.waiting.empty()) client.next_start = at;
    client.waiting.push_back(at);
  }

  static void set_waiting(Client& client) {
    client.sender->set_waiting(
        static_cast<std::uint32_t>(client.waiting.size() - (client.running ? 1 : 0)));
  }

  /// Whether the worker did something.
  bool go_on(std::size_t worker) {
    Client& client = clients_[worker];
    const DeviceTime now = shared_.device().now();
    const auto due = client.sender->due();
    bool any = false;
    if (shared_.take_news(worker) || (due && *due <= now)) {
      any = true;
      client.sender->go_on();
      if (client.running && client.sender->requests_done() > client.completions.size())
        finish(client);
    }
    if (client.next_start && *client.next_start <= now) {
      any = true;
      client.next_start.reset();
      client.running = true;
      client.sender->start();
      set_waiting(client);
    }
    return any;
  }

  void finish(Client& client) {
    const DeviceTime now = shared_.device().now();
    if (options_.open_loop)
      client.latency_us.push_back(us_of(now - client.waiting.front()));
    else if (!client.completions.empty())
      client.latency_us.push_back(us_of(now - client.completions.back()));
    client.completions.push_back(now);
    client.waiting.pop_front();
    client.running = false;
    if (!options_.open_loop) client.waiting.push_back(now);
    if (!client.waiting.empty()) client.next_start = now + time_of_us(options_.request_overhead_us);
    set_waiting(client);
  }

  void note_active() {
    std::uint32_t active = options_.backlog == 0 ? plans_.active.workers.load() : share_views();
    if (sharing_.mechanism != Mechanism::scheduler) {
      active = 0;
      for (std::size_t w = 0; w < clients_.size(); ++w)
        if (!clients_[w].waiting.empty()) active |= 1U << w;
    }
    if (active == active_) return;
    const DeviceTime now = shared_.device().now();
    if (trace_ != nullptr) trace_->active_set(active, now);
    // Not a comparison of the two bits, which GCC 12 gets wrong with -O2.
    const std::uint32_t changed = std::exchange(active_, active) ^ active;
    for (std::size_t w = 0; w < clients_.size(); ++w) {
      Client& client = clients_[w];
      if ((changed >> w & 1U) == 0) continue;
      if ((active >> w & 1U) != 0) {
        client.active_since = now;
        find_leftovers(w);
      } else {
        client.active_time += now - client.active_since;
        end_intrusion(client);
      }
    }
  }

  /// The set of active workers, from each one's own bit; and what each sees of it.
  std::uint32_t share_views() {
    std::uint32_t active = 0;
    std::uint32_t behind = 0;
    for (std::size_t w = 0; w < clients_.size(); ++w) {
      active |= plans_.views[w].workers.load() & 1U << w;
      if (clients_[w].waiting.size() >= options_.backlog) behind |= 1U << w;
    }
    for (std::size_t w = 0; w < clients_.size(); ++w) {
      const std::uint32_t own = 1U << w;
      const std::uint32_t others = ((behind & own) != 0 ? active & behind : active) & ~own;
      plans_.views[w].workers = (active & own) | others;
    }
    return active;
  }

  void find_leftovers(std::size_t worker) {
    if (sharing_.homes.empty()) return;
    Client& client = clients_[worker];
    for (std::size_t other = 0; other < clients_.size(); ++other) {
      if (other == worker) continue;
      const auto& row = sharing_.tables[other].stream[active_];
      for (std::uint32_t s = 0; s < SharedDevice::stream_count; ++s) {
        const std::uint64_t pushed = shared_.pushed(other, s);
        if (shared_.completed(other, s) == pushed) continue;
        const auto planned =
            s == SharedDevice::unmasked ? PlanTable::no_mask : static_cast<std::uint8_t>(s);
        if (std::find(row.begin(), row.end(), planned) != row.end()) continue;
        if (s == SharedDevice::unmasked || sharing_.pool[s].overlap(sharing_.homes[worker]) > 0)
          client.leftovers.push_back({other, s, pushed});
      }
    }
    if (client.leftovers.empty()) client.intrusion_us.push_back(0);
  }

  void end_intrusions() {
    for (Client& client : clients_) {
      if (client.leftovers.empty()) continue;
      if (std::all_of(client.leftovers.begin(), client.leftovers.end(),
                      [this](const Leftover& left) {
                        return shared_.completed(left.worker, left.stream) >= left.until;
                      }))
        end_intrusion(client);
    }
  }

  void end_intrusion(Client& client) {
    if (client.leftovers.empty()) return;
    client.leftovers.clear();
    const DeviceTime length = shared_.device().now() - client.active_since;
    client.intrusion_us.push_back(us_of(length));
    client.intrusion_time += length;
  }

  RunOutcome outcome() {
    const DeviceTime now = shared_.device().now();
    RunOutcome outcome{.workers = {},
                       .seconds = seconds_of(now - warm_at_.value_or(DeviceTime{})),
                       .joules = shared_.device().energy_joules() - warm_joules_,
                       .disorder = shared_.disorder()};
    for (std::size_t w = 0; w < clients_.size(); ++w) {
      Client& client = clients_[w];
      if (client.arrivals.empty()) {
        outcome.workers.emplace_back();
        continue;
      }
      if ((active_ >> w & 1U) != 0) client.active_time += now - client.active_since;
      // A rate is between completions: from the last of the warm-up, or the beginning.
      const bool open = options_.open_loop;
      const DeviceTime first = open ? DeviceTime{} : client.completions[client.warm_up - 1];
      const auto counted = static_cast<double>(client.completions.size() - client.warm_up);
      const double per_s = counted / seconds_of(client.completions.back() - first);
      outcome.workers.push_back(
          {.latency_us = std::move(client.latency_us),
           .requests_per_s = per_s,
           .counted = open ? counted : per_s * outcome.seconds,
           .arrived = open ? client.arrivals.size() : client.completions.size(),
           .completed = client.completions.size(),
           .kernels = shared_.kernels_run(w),
           .counts = client.sender->counts(),
           .intrusion_us = std::move(client.intrusion_us),
           .intrusion_share =
               client.active_time > DeviceTime{}
                   ? seconds_of(client.intrusion_time) / seconds_of(client.active_time)
                   : 0});
    }
    return outcome;
  }

  const model::GpuDescription& gpu_;
  std::span<const Worker> workers_;
  const Sharing& sharing_;
  const RunOptions& options_;
  SharedDevice& shared_;
  Trace* trace_;
  model::QueueChangeStalls stalls_;
  SharedPlans plans_;
  std::vector<Client> clients_;
  std::uint32_t active_ = 0;
  std::optional<DeviceTime> warm_at_;
  double warm_joules_ = 0;
};

/// `only`: no other worker has requests.
Result<RunOutcome> run_workers(const model::GpuDescription& gpu, std::span<const Worker> workers,
                               const Sharing& sharing, const RunOptions& options, Trace* trace,
                               std::optional<std::size_t> only) {
  std::vector<Kernels> kernels;
  for (const Worker& worker : workers) {
    if (options.open_loop && !(worker.requests_per_s > 0))
      return fail(Errc::invalid_argument,
                  "worker '" + worker.name + "' has no rate of arrival; give requests per second");
    kernels.push_back(worker.kernels);
  }
  const bool queue_each = sharing.mechanism == Mechanism::mask_ioctl;
  auto shared = SharedDevice::create(
      gpu, queue_each ? std::span<const CuMask>() : std::span<const CuMask>(sharing.pool),
      std::move(kernels), trace);
  if (!shared) return tl::unexpected(shared.error());
  return std::make_unique<ColocatedRun>(gpu, workers, sharing, options, **shared, trace, only)
      ->run();
}

}  // namespace

Result<RunOutcome> run_colocated(const model::GpuDescription& gpu, std::span<const Worker> workers,
                                 const Sharing& sharing, const RunOptions& options, Trace* trace) {
  return run_workers(gpu, workers, sharing, options, trace, std::nullopt);
}

Result<RunOutcome> run_apart(const model::GpuDescription& gpu, std::span<const Worker> workers,
                             const Sharing& sharing, const RunOptions& options) {
  RunOutcome all;
  std::vector<double> watts;
  for (std::size_t w = 0; w < workers.size(); ++w) {
    auto run = run_workers(gpu, workers, sharing, options, nullptr, w);
    if (!run) return run;
    all.workers.push_back(std::move(run->workers[w]));
    watts.push_back(run->joules / run->seconds);
    all.seconds = std::max(all.seconds, run->seconds);
    all.disorder += run->disorder;
  }
  for (std::size_t w = 0; w < workers.size(); ++w) {
    all.joules += watts[w] * all.seconds;
    if (!options.open_loop) all.workers[w].counted = all.workers[w].requests_per_s * all.seconds;
  }
  return all;
}

}  // namespace eclip::bench
