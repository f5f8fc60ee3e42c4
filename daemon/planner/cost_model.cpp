#include "daemon/planner/cost_model.h"

#include <algorithm>
#include <cmath>

namespace eclip::planner {
namespace {

constexpr int most_rounds = 60;
constexpr int hesitant_rounds = 2;
constexpr double settled = 2e-3;

/// exp(-x), x >= 0, to single precision: the search spends a third of its time here.
double decay(double x) {
  constexpr double nothing_left = 20;
  return x > nothing_left ? 0 : std::exp(static_cast<float>(-x));
}

/// Share of the slots that a kernel wants and does not get beside one that holds `held`.
double missing(double held, double wanted) {
  return std::max(0.0, held + wanted - 1) / wanted;
}

double alone_on_largest_us(const model::GpuDescription& gpu, const CostTables& tables,
                           std::size_t worker, const CostOptions& options) {
  std::uint32_t largest = 0;
  for (std::uint32_t s = 1; s < tables.streams(); ++s)
    if (tables.cus(s) > tables.cus(largest)) largest = s;
  const auto classes = tables.class_of_kernel(worker);
  double time_us = options.request_overhead_us +
                   static_cast<double>(classes.size() - 1) * gpu.timing.launch_gap_us;
  for (const std::uint32_t c : classes) time_us += tables.costs(worker, largest)[c].alone_us;
  return time_us;
}

}  // namespace

void CostModel::StreamUse::add(const KernelCost& cost, double kernels_added) {
  kernels += kernels_added;
  held_us += kernels_added * cost.held_us();
  load_us += kernels_added * cost.load * cost.alone_us;
  held_load_us += kernels_added * cost.load * cost.held_us();
  memory_us += kernels_added * cost.memory * cost.alone_us;
  const double last_us = cost.last_us();
  for (std::size_t level = 0; level < slot_levels; ++level) {
    const double full = missing(cost.slots, slots_of_level(level));
    const double last = missing(cost.last_slots, slots_of_level(level));
    Obstacle& obstacle = obstacles[level];
    obstacle.held_us += kernels_added * (full * cost.full_us + last * last_us);
    obstacle.residual_us2 +=
        kernels_added *
        (full * cost.full_us * (cost.full_us / 2 + last * last_us) + last * last_us * last_us / 2);
    obstacle.starts += kernels_added * full;
  }
}

CostModel::CostModel(const model::GpuDescription& gpu, const CostTables& tables,
                     const Assignment& assignment, const CostOptions& options)
    : gpu_(gpu), tables_(tables), options_(options) {
  for (std::size_t w = 0; w < tables.workers(); ++w)
    workers_.push_back(active_worker(gpu, tables, w, assignment.stream_of_kernel[w], options));
}

CostModel::CostModel(const model::GpuDescription& gpu, const CostTables& tables,
                     std::vector<ActiveWorker> workers, const CostOptions& options)
    : gpu_(gpu), tables_(tables), options_(options), workers_(std::move(workers)) {}

CostModel::ActiveWorker CostModel::active_worker(const model::GpuDescription& gpu,
                                                 const CostTables& tables, std::size_t worker,
                                                 std::span<const std::uint32_t> streams,
                                                 const CostOptions& options) {
  ActiveWorker active;
  active.wait_us.assign(tables.workers(), 0);
  active.in_step.assign(tables.workers(), 0);
  if (streams.empty()) return active;
  active.kernels = static_cast<double>(streams.size());
  active.fixed_us = options.request_overhead_us;
  for (std::size_t k = 1; k < streams.size(); ++k)
    active.fixed_us +=
        streams[k] == streams[k - 1] ? gpu.timing.launch_gap_us : gpu.timing.barrier_us;
  const std::size_t classes = tables.classes(worker);
  std::vector<double> kernels(tables.streams() * classes, 0);
  const auto class_of_kernel = tables.class_of_kernel(worker);
  for (std::size_t k = 0; k < streams.size(); ++k)
    ++kernels[streams[k] * classes + class_of_kernel[k]];
  for (std::uint32_t s = 0; s < tables.streams(); ++s) {
    const auto costs = tables.costs(worker, s);
    StreamUse use{.stream = s};
    for (std::uint32_t c = 0; c < classes; ++c) {
      const double count = kernels[s * classes + c];
      if (count == 0) continue;
      active.shares.push_back({c, s, count});
      active.service_us += count * costs[c].alone_us;
      active.joules +=
          count * gpu.power.cu_active_watts * costs[c].held_us() * tables.cus(s) * 1e-6;
      use.add(costs[c], count);
    }
    if (use.kernels > 0) active.uses.push_back(use);
  }
  active.request_us = active.alone_us();
  active.fastest_us = alone_on_largest_us(gpu, tables, worker, options);
  return active;
}

bool CostModel::past_connections() const {
  bool switches = false;
  std::size_t queues = 0;
  std::vector<bool> used(tables_.streams(), false);
  for (const ActiveWorker& worker : workers_) {
    switches = switches || worker.uses.size() > 1;
    for (const StreamUse& use : worker.uses) {
      if (!used[use.stream] || use.stream == options_.unmasked) ++queues;
      used[use.stream] = true;
    }
  }
  if (options_.queues > 0) queues = options_.queues;
  return switches && queues > gpu_.timing.connections;
}

CostModel::Encounter CostModel::encounter(std::size_t worker, std::size_t other,
                                          const StreamUse& use) const {
  const ActiveWorker& co_runner = workers_[other];
  // As it would be without this worker, since it waits while this one holds the CUs.
  const double time_us =
      options_.form == CostForm::additive
          ? co_runner.fastest_us
          : std::max(co_runner.request_us - co_runner.wait_us[worker], co_runner.alone_us());
  double queued_us = 0;
  for (std::size_t third = 0; third < workers_.size(); ++third)
    if (third != worker) queued_us += co_runner.wait_us[third];
  const double queued = std::min(1.0, queued_us / time_us);
  Encounter met{.worker = other, .stream = use.stream};
  met.held = use.held_us / time_us;
  met.load = use.load_us / time_us;
  met.held_load = use.held_load_us / time_us;
  for (std::size_t level = 0; level < slot_levels; ++level) {
    const Obstacle& obstacle = use.obstacles[level];
    if (obstacle.held_us == 0) continue;
    Meeting& meeting = met.meetings[level];
    meeting.next = obstacle.starts / co_runner.kernels;
    meeting.next_us = obstacle.starts > 0 ? obstacle.held_us / obstacle.starts : 0;
    meeting.random = obstacle.held_us / time_us;
    meeting.left_us = obstacle.residual_us2 / obstacle.held_us;
    meeting.queued_us = queued * meeting.next * meeting.next_us;
    meeting.starts_per_us = obstacle.starts / std::max(time_us - obstacle.held_us, 1e-3);
    meeting.ends_per_us = obstacle.starts / obstacle.held_us;
  }
  return met;
}

std::vector<CostModel::Encounter> CostModel::encounters(
    std::size_t worker, const std::function<bool(const StreamUse&)>& meets) const {
  std::vector<Encounter> met;
  met.reserve(workers_.size());
  for (std::size_t other = 0; other < workers_.size(); ++other)
    if (other != worker)
      for (const StreamUse& use : workers_[other].uses)
        if (meets(use)) met.push_back(encounter(worker, other, use));
  return met;
}

double CostModel::memory_of_others(std::size_t worker) const {
  double memory = 0;
  for (std::size_t other = 0; other < workers_.size(); ++other)
    if (other != worker)
      for (const StreamUse& use : workers_[other].uses)
        memory += use.memory_us / workers_[other].request_us;
  return std::min(1.0, memory);
}

CostModel::Pairing CostModel::pairing(std::size_t worker, std::uint32_t stream,
                                      std::uint32_t other) const {
  return {.costs = tables_.costs(worker, stream),
          .before = tables_.before(worker, stream),
          .beside_us = tables_.beside_us(worker, stream, other),
          .overlap = tables_.overlap(stream, other),
          .overlap_of_other = tables_.overlap(other, stream)};
}

CostModel::Crowd CostModel::crowd(std::span<const Encounter> met, std::uint32_t stream) const {
  Crowd crowd;
  for (const Encounter& other : met) {
    const double overlap = tables_.overlap(stream, other.stream);
    crowd.held += overlap * other.held;
    crowd.load += overlap * other.load;
    crowd.held_load += overlap * other.held_load;
  }
  return crowd;
}

CostModel::Wait CostModel::wait_for(const Encounter& other, const Pairing& pair,
                                    std::uint32_t kernel_class) const {
  const Meeting& meeting = other.meetings[pair.costs[kernel_class].level];
  if (meeting.random == 0) return {};
  const double beside_us = pair.beside_us[kernel_class];
  // Whoever finds other CUs free goes on there, slower.
  const bool elsewhere = beside_us != CostTables::never_us;
  const double lost = pair.loss(kernel_class);
  if (options_.form == CostForm::additive) return {.us = lost * meeting.random * meeting.left_us};
  const bool first = kernel_class == 0;
  const Predecessor& before = pair.before[kernel_class];
  const double before_us = first ? options_.request_overhead_us : before.alone_us;
  const double since_us = gpu_.timing.launch_gap_us + before_us;
  // Did this worker's last kernel keep the co-runner's waiting?
  const double held_up = first ? 0 : before.held * pair.overlap_of_other;
  const double kept = decay(since_us * (meeting.starts_per_us + meeting.ends_per_us));
  const double arrived =
      held_up == 0 ? 0 : held_up * (1 - decay(before_us * meeting.starts_per_us));
  // What changes when the last kernel had waited for the co-runner, whose next one follows.
  const double in_step = first ? 0 : (held_up + (1 - held_up) * kept) * meeting.next - arrived;
  // That the last kernel ran says that nothing kept it away then, unless it ran elsewhere.
  const double forgotten = (1 - held_up) * (elsewhere ? 1 : 1 - kept);
  const double random = forgotten * meeting.random;
  const double left_us =
      elsewhere ? meeting.left_us : kept * meeting.next_us + (1 - kept) * meeting.left_us;
  const double next_us = lost * std::min(meeting.next_us, beside_us);
  return {.us = arrived * next_us + lost * (random * std::min(left_us, beside_us) +
                                            forgotten * std::min(meeting.queued_us, beside_us)),
          .us_in_step = in_step * next_us,
          .chance = pair.overlap * (arrived + random),
          .chance_in_step = pair.overlap * in_step};
}

double CostModel::service_us(const Crowd& crowd, const KernelCost& cost, double memory) const {
  const double contention = 1 + gpu_.timing.memory_contention * memory;
  if (options_.form == CostForm::additive) return cost.alone_us;
  if (options_.form == CostForm::proportional)
    return cost.alone_us *
           (contention + std::max(0.0, cost.held_us() / cost.alone_us + crowd.held - 1));
  const double load = crowd.load - cost.slots * crowd.held_load;
  const double overload = std::max({0.0, cost.load + load - 1, cost.load * load});
  return cost.alone_us * contention * (1 + (1 - gpu_.timing.overlap_gain) * overload);
}

double CostModel::request_time(std::size_t worker) {
  ActiveWorker& active = workers_[worker];
  const std::vector<Encounter> met = encounters(worker, [&](const StreamUse& use) {
    return std::any_of(active.uses.begin(), active.uses.end(), [&](const StreamUse& own) {
      return tables_.overlap(own.stream, use.stream) > 0;
    });
  });
  const double memory = memory_of_others(worker);
  std::vector<Wait> waits(workers_.size());
  double total_us = active.fixed_us;
  // Shares are sorted by stream.
  for (auto first = active.shares.begin(); first != active.shares.end();) {
    const std::uint32_t stream = first->stream;
    const auto end = std::find_if(first, active.shares.end(),
                                  [stream](const Share& share) { return share.stream != stream; });
    const Crowd around = crowd(met, stream);
    const auto costs = tables_.costs(worker, stream);
    for (auto share = first; share != end; ++share)
      total_us += share->kernels * service_us(around, costs[share->kernel_class], memory);
    for (const Encounter& other : met) {
      const Pairing pair = pairing(worker, stream, other.stream);
      if (options_.form == CostForm::proportional || pair.overlap == 0) continue;
      Wait& sum = waits[other.worker];
      for (auto share = first; share != end; ++share) {
        const Wait wait = wait_for(other, pair, share->kernel_class);
        sum.us += share->kernels * wait.us;
        sum.us_in_step += share->kernels * wait.us_in_step;
        sum.chance += share->kernels * wait.chance;
        sum.chance_in_step += share->kernels * wait.chance_in_step;
      }
    }
    first = end;
  }
  for (std::size_t other = 0; other < waits.size(); ++other) {
    const Wait& wait = waits[other];
    // The share in step is that of kernels that waited: chance + in_step x chance_in_step.
    const double others = std::max(active.kernels - wait.chance_in_step, wait.chance);
    active.in_step[other] = others > 0 ? std::min(1.0, wait.chance / others) : 0;
    active.wait_us[other] = wait.us + active.in_step[other] * wait.us_in_step;
    total_us += active.wait_us[other];
  }
  return total_us;
}

Prediction CostModel::solve(const GiveUp& give_up) {
  if (options_.one_at_a_time || past_connections()) {
    double turn_us = 0;
    for (const ActiveWorker& worker : workers_) turn_us += worker.request_us;
    for (ActiveWorker& worker : workers_)
      if (worker.kernels > 0) worker.request_us = turn_us;
    return prediction();
  }
  // In the additive form co-runners stay as fast as alone: one round is exact.
  const int rounds = options_.form == CostForm::additive ? 1 : most_rounds;
  for (int round = 0; round < rounds; ++round) {
    // Half of the way at first: the times of workers alone are far off where all share CUs.
    const double pace = rounds > 1 && round < hesitant_rounds ? 0.5 : 1;
    double change = 0;
    for (std::size_t w = 0; w < workers_.size(); ++w) {
      if (workers_[w].kernels == 0) continue;
      const double step_us = request_time(w) - workers_[w].request_us;
      change = std::max(change, std::abs(step_us / workers_[w].request_us));
      workers_[w].request_us += pace * step_us;
    }
    if (change < settled) break;
    if (give_up && round >= hesitant_rounds && give_up(*this)) break;
  }
  return prediction();
}

Prediction CostModel::prediction() const {
  Prediction prediction;
  prediction.watts = gpu_.power.idle_watts;
  for (const ActiveWorker& worker : workers_) {
    prediction.request_us.push_back(worker.request_us);
    prediction.alone_us.push_back(worker.alone_us());
    prediction.joules.push_back(worker.joules);
    if (worker.kernels > 0) prediction.watts += worker.joules / (worker.request_us * 1e-6);
  }
  return prediction;
}

std::vector<double> CostModel::class_times_us(std::size_t worker, std::uint32_t stream) const {
  const std::vector<Encounter> met = encounters(
      worker, [&](const StreamUse& use) { return tables_.overlap(stream, use.stream) > 0; });
  const double memory = memory_of_others(worker);
  std::vector<double> times;
  const Crowd around = crowd(met, stream);
  for (const KernelCost& cost : tables_.costs(worker, stream))
    times.push_back(service_us(around, cost, memory));
  if (options_.form == CostForm::proportional) return times;
  for (const Encounter& other : met) {
    const Pairing pair = pairing(worker, stream, other.stream);
    for (std::uint32_t c = 0; c < times.size(); ++c) {
      const Wait wait = wait_for(other, pair, c);
      times[c] += wait.us + workers_[worker].in_step[other.worker] * wait.us_in_step;
    }
  }
  return times;
}

std::vector<double> CostModel::class_delays_us(std::size_t worker, std::uint32_t stream,
                                               std::span<const double> weights) const {
  std::array<double, slot_levels> delayed{};  // kernels of others, by the slots that they want
  for (std::size_t other = 0; other < workers_.size(); ++other) {
    if (other == worker) continue;
    for (const Share& share : workers_[other].shares)
      if (tables_.overlap(share.stream, stream) > 0)
        delayed[tables_.costs(other, share.stream)[share.kernel_class].level] +=
            weights[other] * share.kernels *
            pairing(other, share.stream, stream).loss(share.kernel_class);
  }
  const ActiveWorker& active = workers_[worker];
  const double time_us =
      options_.form == CostForm::additive ? active.fastest_us : active.request_us;
  std::vector<double> delays(tables_.classes(worker), 0);
  const auto costs = tables_.costs(worker, stream);
  for (std::size_t c = 0; c < delays.size(); ++c) {
    StreamUse use;
    use.add(costs[c], 1);
    for (std::size_t level = 0; level < slot_levels; ++level)
      delays[c] += delayed[level] * use.obstacles[level].residual_us2 / time_us;
  }
  return delays;
}

Prediction predict(const model::GpuDescription& gpu, const CostTables& tables,
                   const Assignment& assignment, const CostOptions& options) {
  return CostModel(gpu, tables, assignment, options).solve();
}

}  // namespace eclip::planner
