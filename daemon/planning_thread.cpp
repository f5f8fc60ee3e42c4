#include "daemon/planning_thread.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "daemon/planner/open_loop_choice.h"
#include "daemon/planner/plan_document.h"
#include "ipc/plan_table.h"

namespace eclip::daemon {
namespace {

/// Host time for the first plan of an order.
constexpr std::chrono::milliseconds first_limit{15};

/// Profiles whose absence is said; clients choose the names.
constexpr std::size_t most_complaints = 64;

/// Rows that there was no time to judge, where the other plan of the same pool has better ones.
void take_better_rows(planner::Plan& plan, const planner::Plan& other,
                      std::span<const planner::Worker> workers) {
  for (planner::WorkerSet active = 1; active <= plan.rows.size(); ++active) {
    planner::Row& row = plan.rows[active - 1];
    if (row.simulated_us.empty() && other.row(active).value < row.value) row = other.row(active);
  }
  planner::sum_up_rows(plan, workers);
}

}  // namespace

PlanningThread::PlanningThread(Settings settings, Done done)
    : settings_(std::move(settings)),
      done_(std::move(done)),
      profiles_(settings_.profile_dirs, settings_.gpu.name),
      thread_([this] { run(); }) {}

PlanningThread::~PlanningThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void PlanningThread::order(PlanOrder order) {
  {
    const std::lock_guard lock(mutex_);
    next_ = std::move(order);
  }
  changed_.notify_one();
}

bool PlanningThread::is_overtaken() {
  const std::lock_guard lock(mutex_);
  return ending_ || (next_ && !is_for_planned(*next_));
}

bool PlanningThread::is_for_planned(const PlanOrder& order) const {
  return std::equal(order.workers.begin(), order.workers.end(), planned_.begin(), planned_.end(),
                    [](const WorkerToPlan& each, WorkerId id) { return each.id == id; });
}

void PlanningThread::run() {
  while (true) {
    PlanOrder order;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return ending_ || next_; });
      if (ending_) return;
      order = std::move(*std::exchange(next_, std::nullopt));
    }
    try {
      plan(order);
    } catch (const std::exception& exception) {  // no memory; all other failures are Results
      done_(order, fail(Errc::device_failed, std::string("planning ended: ") + exception.what()));
    }
  }
}

void PlanningThread::plan(const PlanOrder& order) {
  const auto workers = workers_of(order);
  const auto hand_over = [&](const Result<planner::Plan>& made) {
    done_(order, made ? Result<nlohmann::json>(document_of(*made, order, workers))
                      : tl::unexpected(made.error()));
    return made.has_value();
  };
  // For the same workers the plan in force, which was judged, is likely better than a first one.
  const bool is_new = !is_for_planned(order);
  planned_.clear();
  for (const WorkerToPlan& each : order.workers) planned_.push_back(each.id);
  const auto first = first_plan(workers);
  if (!first || is_new || !settings_.simulate) hand_over(first);
  if (!first || !settings_.simulate || is_overtaken()) return;
  auto judged = judged_plan(workers);
  if (judged) take_better_rows(*judged, *first, workers);
  if (is_overtaken() || !hand_over(judged)) return;
  if (std::any_of(workers.begin(), workers.end(),
                  [](const planner::Worker& worker) { return worker.requests_per_s == 0; }))
    return;
  const auto chosen = planner::choose_rows(settings_.gpu, workers, std::move(*judged),
                                           {.objective = settings_.objective,
                                            .out_of_time = limit(settings_.time_limit),
                                            .stop = [this] { return is_overtaken(); }});
  if (!is_overtaken()) hand_over(chosen);
}

void PlanningThread::scale(planner::Worker& worker, const WorkerToPlan& by) {
  const bool is_profile =
      by.time_factor == 1 && std::all_of(by.kernel_factors.begin(), by.kernel_factors.end(),
                                         [](const KernelFactor& each) { return each.factor == 1; });
  if (is_profile) {
    scaled_.erase(by.id.value);
    return;
  }
  Scaled& scaled = scaled_[by.id.value];
  if (scaled.from != worker.kernels || scaled.time_factor != by.time_factor ||
      scaled.kernel_factors != by.kernel_factors) {
    scaled = {.from = worker.kernels,
              .time_factor = by.time_factor,
              .kernel_factors = by.kernel_factors,
              .to = {}};
    auto next = by.kernel_factors.begin();
    double factor = by.time_factor;
    for (std::size_t k = 0; k < worker.kernels.size(); ++k) {
      for (; next != by.kernel_factors.end() && next->first_kernel <= k; ++next)
        factor = by.time_factor * next->factor;
      scaled.to.push_back(std::make_shared<const model::Kernel>(worker.kernels[k]->scaled(factor)));
    }
  }
  worker.kernels = scaled.to;
}

std::vector<planner::Worker> PlanningThread::workers_of(const PlanOrder& order) {
  std::erase_if(scaled_, [&order](const auto& scaled) {
    return std::none_of(order.workers.begin(), order.workers.end(),
                        [&](const WorkerToPlan& each) { return each.id.value == scaled.first; });
  });
  std::vector<planner::Worker> workers;
  for (const WorkerToPlan& each : order.workers) {
    planner::Worker worker{.unknown = true};
    if (!each.profile.empty()) {
      auto profiled = profiles_.find(each.profile);
      if (profiled) {
        worker = std::move(*profiled);
        scale(worker, each);
      } else if (complained_.size() < most_complaints && complained_.insert(each.profile).second) {
        spdlog::warn("workers of profile '{}' are planned as unknown ones: {}", each.profile,
                     profiled.error().message());
      }
    }
    worker.name = each.name;
    worker.requests_per_s = each.requests_per_s;
    worker.weight = each.weight;
    worker.latency_bound_us = each.latency_bound_us;
    workers.push_back(std::move(worker));
  }
  return workers;
}

planner::PlannerOptions PlanningThread::options_for(
    std::span<const planner::Worker> workers) const {
  planner::PlannerOptions options;
  options.pool = settings_.pool;
  options.search.objective = settings_.objective;
  // No worker has more groups than its table has room for.
  for (const planner::Worker& worker : workers)
    if (!worker.unknown)
      options.group_us = std::max(options.group_us,
                                  planner::service_us(worker, settings_.gpu.geometry.cu_count()) /
                                      (PlanTable::max_groups - 1));
  return options;
}

std::function<bool()> PlanningThread::limit(std::chrono::milliseconds time) {
  return [this, until = Clock::now() + time] { return Clock::now() >= until || is_overtaken(); };
}

Result<planner::Plan> PlanningThread::first_plan(std::span<const planner::Worker> workers) {
  planner::PlannerOptions options = options_for(workers);
  options.search.out_of_time = limit(first_limit);
  if (previous_ && options.group_us == previous_group_us_) options.previous = &*previous_;
  auto made = planner::make_plan(settings_.gpu, workers, options);
  if (made) {
    previous_ = *made;
    previous_group_us_ = options.group_us;
  }
  return made;
}

Result<planner::Plan> PlanningThread::judged_plan(std::span<const planner::Worker> workers) {
  planner::PlannerOptions options = options_for(workers);
  options.search.out_of_time = limit(settings_.time_limit);
  options.judge_by_simulation = true;
  options.keep_up = true;
  return planner::make_plan(settings_.gpu, workers, options);
}

nlohmann::json PlanningThread::document_of(const planner::Plan& plan, const PlanOrder& order,
                                           std::span<const planner::Worker> workers) const {
  auto document = planner::plan_document(plan, workers, settings_.gpu, settings_.objective);
  for (std::size_t w = 0; w < workers.size(); ++w) {
    nlohmann::json& worker = document["workers"][w];
    worker["profile"] = order.workers[w].profile;
    worker["time_factor"] = order.workers[w].time_factor;
    worker["kernel_factors"] = nlohmann::json::array();
    for (const KernelFactor& each : order.workers[w].kernel_factors)
      worker["kernel_factors"].push_back(
          {{"first_kernel", each.first_kernel}, {"factor", each.factor}});
  }
  return document;
}

}  // namespace eclip::daemon
