#include "daemon/planning_thread.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "daemon/planner/plan_document.h"
#include "ipc/plan_table.h"

namespace eclip::daemon {
namespace {

/// Host time for the first plan of an order.
constexpr std::chrono::milliseconds first_limit{15};

/// Profiles whose absence is said; clients choose the names.
constexpr std::size_t most_complaints = 64;

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
  return ending_ || next_.has_value();
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
      const auto workers = workers_of(order);
      done_(order, plan(order, workers, false));
      if (!settings_.simulate || is_overtaken()) continue;
      auto judged = plan(order, workers, true);
      if (!is_overtaken()) done_(order, std::move(judged));
    } catch (const std::exception& exception) {  // no memory; all other failures are Results
      done_(order, fail(Errc::device_failed, std::string("planning ended: ") + exception.what()));
    }
  }
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

Result<nlohmann::json> PlanningThread::plan(const PlanOrder& order,
                                            const std::vector<planner::Worker>& workers,
                                            bool simulate) {
  planner::PlannerOptions options;
  options.pool = settings_.pool;
  options.judge_by_simulation = simulate;
  options.search.objective = settings_.objective;
  const auto until = Clock::now() + (simulate ? settings_.time_limit : first_limit);
  options.search.out_of_time = [this, until] { return Clock::now() >= until || is_overtaken(); };
  // No worker has more groups than its table has room for.
  for (const planner::Worker& worker : workers)
    if (!worker.unknown)
      options.group_us = std::max(options.group_us,
                                  planner::service_us(worker, settings_.gpu.geometry.cu_count()) /
                                      (PlanTable::max_groups - 1));
  if (!simulate && previous_ && options.group_us == previous_group_us_)
    options.previous = &*previous_;
  auto made = planner::make_plan(settings_.gpu, workers, options);
  if (!made) return tl::unexpected(made.error());
  auto document = planner::plan_document(*made, workers, settings_.gpu, settings_.objective);
  for (std::size_t w = 0; w < workers.size(); ++w) {
    nlohmann::json& worker = document["workers"][w];
    worker["profile"] = order.workers[w].profile;
    worker["time_factor"] = order.workers[w].time_factor;
    worker["kernel_factors"] = nlohmann::json::array();
    for (const KernelFactor& each : order.workers[w].kernel_factors)
      worker["kernel_factors"].push_back(
          {{"first_kernel", each.first_kernel}, {"factor", each.factor}});
  }
  if (!simulate) {
    previous_ = std::move(*made);
    previous_group_us_ = options.group_us;
  }
  return document;
}

}  // namespace eclip::daemon
