#include "daemon/planner/cost_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace eclip::planner {
namespace {

/// What keeps a kernel of one level of slots from running at once: sums over the kernels of one
/// worker on one stream, per request.
struct Obstacle {
  double held_us = 0;       ///< time in which such a kernel is kept away
  double residual_us2 = 0;  ///< the same times the mean of what is left of it
  double starts = 0;        ///< kernels that keep it away when they come first
};

/// Kernels of one worker on one stream, as a co-runner meets them. Sums are per request.
struct StreamUse {
  std::size_t stream = 0;
  double busy_us = 0;       ///< time in service
  double held_us = 0;       ///< slots x time
  double load_us = 0;       ///< load x time
  double held_load_us = 0;  ///< slots x load x time
  double memory_us = 0;     ///< share of the bandwidth x time
  std::array<Obstacle, slot_levels> obstacles{};
};

/// Share of the slots that a kernel wants and does not get beside one that holds `held`.
double missing(double held, double wanted) {
  return std::max(0.0, held + wanted - 1) / wanted;
}

void add(StreamUse& use, const KernelCost& cost) {
  const double last_us = cost.alone_us - cost.full_us;
  use.busy_us += cost.alone_us;
  use.held_us += cost.held_us();
  use.load_us += cost.load * cost.alone_us;
  use.held_load_us += cost.load * cost.held_us();
  use.memory_us += cost.memory * cost.alone_us;
  for (std::size_t level = 0; level < slot_levels; ++level) {
    const double full = missing(cost.slots, slots_of_level(level));
    const double last = missing(cost.last_slots, slots_of_level(level));
    Obstacle& obstacle = use.obstacles[level];
    obstacle.held_us += full * cost.full_us + last * last_us;
    obstacle.residual_us2 +=
        full * cost.full_us * (cost.full_us / 2 + last * last_us) + last * last_us * last_us / 2;
    obstacle.starts += full;
  }
}

/// A worker's own time and its use of streams, independent of others.
struct Alone {
  double service_us = 0;
  double fixed_us = 0;  ///< gaps, switches, the host's part
  double joules = 0;
  std::vector<StreamUse> uses;
};

Alone alone_of(const model::GpuDescription& gpu, const CostTables& tables, std::size_t worker,
               const std::vector<std::uint32_t>& streams, const CostOptions& options) {
  Alone alone;
  alone.fixed_us = options.request_overhead_us;
  std::vector<StreamUse> uses(tables.streams());
  for (std::size_t k = 0; k < streams.size(); ++k) {
    const std::uint32_t s = streams[k];
    const KernelCost& cost = tables.costs(worker, s)[k];
    if (k > 0)
      alone.fixed_us += streams[k - 1] == s ? gpu.timing.launch_gap_us : gpu.timing.barrier_us;
    alone.service_us += cost.alone_us;
    alone.joules += gpu.power.cu_active_watts * cost.held_us() * tables.cus(s) * 1e-6;
    StreamUse& use = uses[s];
    add(use, cost);
  }
  for (std::size_t s = 0; s < uses.size(); ++s)
    if (uses[s].busy_us > 0) {
      uses[s].stream = s;
      alone.uses.push_back(uses[s]);
    }
  return alone;
}

/// What a kernel of one level of slots meets of a co-runner on one of its streams.
struct Meeting {
  double random = 0;     ///< chance that it has to wait, at a random time
  double left_us = 0;    ///< how long it waits then
  double queued_us = 0;  ///< mean wait at a random time behind kernels that wait themselves
  double next = 0;       ///< chance that it has to wait when the co-runner's next kernel goes first
  double next_us = 0;    ///< how long it waits then
  double starts_per_us = 0;  ///< such kernels per time in which none keeps it away
  double ends_per_us = 0;    ///< and ends per time in which one does
};

struct Encounter {
  std::size_t worker = 0;
  std::size_t stream = 0;
  double in_step = 0;    ///< share of the kernels that meet the next kernel, not a random one
  double held = 0;       ///< mean slots
  double load = 0;       ///< mean load
  double held_load = 0;  ///< mean of slots x load
  std::array<Meeting, slot_levels> meetings{};
};

class ClosedForm {
 public:
  ClosedForm(const model::GpuDescription& gpu, const CostTables& tables,
             const Assignment& assignment, const CostOptions& options)
      : gpu_(gpu), tables_(tables), assignment_(assignment), options_(options) {
    const std::size_t count = tables.workers();
    for (std::size_t w = 0; w < count; ++w)
      alone_.push_back(alone_of(gpu, tables, w, assignment.stream_of_kernel[w], options));
    waits_.assign(count, std::vector<double>(count, 0));
    in_step_ = waits_;
    request_us_.resize(count);
    for (std::size_t w = 0; w < count; ++w)
      request_us_[w] = active(w) ? alone_[w].service_us + alone_[w].fixed_us : 0;
  }

  Prediction solve() {
    Prediction prediction;
    prediction.alone_us = request_us_;
    if (options_.one_at_a_time || past_connections()) {
      const double turn = std::accumulate(request_us_.begin(), request_us_.end(), 0.0);
      for (double& time : request_us_)
        if (time > 0) time = turn;
    } else {
      for (int round = 0; round < most_rounds; ++round) {
        double change = 0;
        std::vector<double> next(request_us_);
        for (std::size_t w = 0; w < next.size(); ++w) {
          if (!active(w)) continue;
          const double found = request_time(w);
          next[w] = (request_us_[w] + found) / 2;
          change = std::max(change, std::abs(found / request_us_[w] - 1));
        }
        request_us_ = next;
        if (change < 1e-3) break;
      }
    }
    prediction.request_us = request_us_;
    prediction.watts = gpu_.power.idle_watts;
    for (std::size_t w = 0; w < alone_.size(); ++w) {
      prediction.joules.push_back(alone_[w].joules);
      if (active(w)) prediction.watts += alone_[w].joules / (request_us_[w] * 1e-6);
    }
    return prediction;
  }

 private:
  static constexpr int most_rounds = 60;

  [[nodiscard]] bool active(std::size_t worker) const {
    return !assignment_.stream_of_kernel[worker].empty();
  }

  /// Beyond the hardware connections, requests that switch streams follow each other.
  [[nodiscard]] bool past_connections() const {
    std::size_t queues = 0;
    bool switches = false;
    for (const Alone& alone : alone_) {
      queues += alone.uses.size();
      switches = switches || alone.uses.size() > 1;
    }
    if (options_.queues > 0) queues = options_.queues;
    return switches && queues > gpu_.timing.connections;
  }

  [[nodiscard]] std::vector<Encounter> encounters(std::size_t worker) const {
    std::vector<Encounter> found;
    for (std::size_t j = 0; j < alone_.size(); ++j) {
      if (j == worker || !active(j)) continue;
      // As it would be without this worker, since it waits while this one holds the CUs.
      const double time =
          std::max(request_us_[j] - waits_[j][worker], alone_[j].service_us + alone_[j].fixed_us);
      const double count = static_cast<double>(assignment_.stream_of_kernel[j].size());
      double queued_us = 0;
      for (std::size_t other = 0; other < alone_.size(); ++other)
        if (other != worker) queued_us += waits_[j][other];
      for (std::size_t u = 0; u < alone_[j].uses.size(); ++u) {
        const StreamUse& use = alone_[j].uses[u];
        Encounter met{.worker = j, .stream = use.stream};
        for (std::size_t level = 0; level < slot_levels; ++level) {
          const Obstacle& obstacle = use.obstacles[level];
          if (obstacle.held_us == 0) continue;
          Meeting& meeting = met.meetings[level];
          meeting.next = obstacle.starts / count;
          meeting.next_us = obstacle.starts > 0 ? obstacle.held_us / obstacle.starts : 0;
          meeting.random = obstacle.held_us / time;
          meeting.left_us = obstacle.residual_us2 / obstacle.held_us;
          meeting.queued_us = std::min(1.0, queued_us / time) * meeting.next * meeting.next_us;
          const double free_us = std::max(time - obstacle.held_us, 1e-3);
          meeting.starts_per_us = obstacle.starts / free_us;
          meeting.ends_per_us = obstacle.starts / obstacle.held_us;
        }
        met.held = use.held_us / time;
        met.in_step = in_step_[worker][j];
        met.load = use.load_us / time;
        met.held_load = use.held_load_us / time;
        found.push_back(met);
      }
    }
    return found;
  }

  [[nodiscard]] double memory_of_others(std::size_t worker) const {
    double memory = 0;
    for (std::size_t j = 0; j < alone_.size(); ++j)
      if (j != worker && active(j))
        for (const StreamUse& use : alone_[j].uses) memory += use.memory_us / request_us_[j];
    return std::min(1.0, memory);
  }

  double request_time(std::size_t worker) {
    const auto& streams = assignment_.stream_of_kernel[worker];
    const std::vector<Encounter> met = encounters(worker);
    const double memory = 1 + gpu_.timing.memory_contention * memory_of_others(worker);
    const double exposed = 1 - gpu_.timing.overlap_gain;
    std::fill(waits_[worker].begin(), waits_[worker].end(), 0);
    double total = alone_[worker].fixed_us;
    std::vector<double> waited(alone_.size(), 0);
    for (std::size_t k = 0; k < streams.size(); ++k) {
      const std::uint32_t s = streams[k];
      const KernelCost& cost = tables_.costs(worker, s)[k];
      const KernelCost& before = tables_.costs(worker, s)[k > 0 ? k - 1 : k];
      if (options_.form == CostForm::proportional) {
        double occupancy = cost.slots;
        for (const Encounter& other : met)
          occupancy += tables_.overlap(s, other.stream) * other.held;
        total += cost.alone_us * (memory + std::max(0.0, occupancy - 1));
        continue;
      }
      double load = 0;
      for (const Encounter& other : met) {
        const double overlap = tables_.overlap(s, other.stream);
        if (overlap == 0) continue;
        const double beside_us = tables_.beside_us(worker, s, other.stream)[k];
        const double loss = beside_us == CostTables::never_us ? 1 : 1 - cost.alone_us / beside_us;
        const Meeting& meeting = other.meetings[cost.level];
        if (meeting.random > 0) {
          // This worker's last kernel kept the co-runner's waiting, or both ran.
          const double held_up =
              k > 0 ? before.held_us() / before.alone_us * tables_.overlap(other.stream, s) : 0;
          const double before_us = k > 0 ? before.alone_us : options_.request_overhead_us;
          const double since_us = gpu_.timing.launch_gap_us + before_us;
          const double kept = std::exp(-since_us * (meeting.starts_per_us + meeting.ends_per_us));
          const double arrived = 1 - std::exp(-before_us * meeting.starts_per_us);
          const double in_step = k > 0 ? other.in_step : 0;
          const double next = held_up * (in_step * meeting.next + (1 - in_step) * arrived) +
                              (1 - held_up) * in_step * meeting.next * kept;
          // The last kernel's start says that nothing kept it away then, unless it had other CUs.
          const double forgotten = beside_us == CostTables::never_us ? 1 - kept : 1;
          const double random = (1 - held_up) * forgotten * meeting.random;
          const double left_us = (1 - forgotten) * meeting.next_us + forgotten * meeting.left_us;
          const double wait =
              loss *
              (next * std::min(meeting.next_us, beside_us) + random * std::min(left_us, beside_us) +
               (1 - held_up) * forgotten * std::min(meeting.queued_us, beside_us));
          waited[other.worker] += overlap * (next + random);
          waits_[worker][other.worker] += wait;
          total += wait;
        }
        load += overlap * (other.load - cost.slots * other.held_load);
      }
      const double overload = std::max(cost.load + load - 1, cost.load * load);
      total += cost.alone_us * memory * (1 + exposed * std::max(0.0, overload));
    }
    for (std::size_t j = 0; j < waited.size(); ++j)
      in_step_[worker][j] = std::min(1.0, waited[j] / static_cast<double>(streams.size()));
    return total;
  }

  const model::GpuDescription& gpu_;
  const CostTables& tables_;
  const Assignment& assignment_;
  const CostOptions& options_;
  std::vector<Alone> alone_;
  std::vector<double> request_us_;
  std::vector<std::vector<double>> waits_;    // [worker][for whom], us of a request
  std::vector<std::vector<double>> in_step_;  // [worker][with whom], share of its kernels
};

}  // namespace

Prediction predict(const model::GpuDescription& gpu, const CostTables& tables,
                   const Assignment& assignment, const CostOptions& options) {
  return ClosedForm(gpu, tables, assignment, options).solve();
}

}  // namespace eclip::planner
