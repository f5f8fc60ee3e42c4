// The thread that makes plans: they take up to seconds, which neither clients nor packets can wait.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "daemon/planner/planner.h"
#include "daemon/profile_library.h"
#include "ipc/cu_mask.h"
#include "ipc/result.h"
#include "ipc/strong_id.h"

namespace eclip::daemon {

/// Kernels from one on, up to the next factor's, take so many times as long as the profile says.
struct KernelFactor {
  std::uint32_t first_kernel = 0;
  double factor = 1;
  bool operator==(const KernelFactor&) const = default;
};

/// A worker to plan for.
struct WorkerToPlan {
  WorkerId id;
  std::string name;
  std::string profile;          ///< empty: none
  double requests_per_s = 0;    ///< 0: closed loop
  double latency_bound_us = 0;  ///< 0: none
  double weight = 1;
  double time_factor = 1;  ///< of all its kernels, relative to the profile
  /// Of some of them, beside that; ascending, the first is for kernel 0. Empty: 1.
  std::vector<KernelFactor> kernel_factors{};
};

struct PlanOrder {
  std::string reason;
  std::vector<WorkerToPlan> workers;  ///< 1 .. planner::most_workers
};

class PlanningThread {
 public:
  struct Settings {
    model::GpuDescription gpu;
    std::vector<CuMask> pool;
    std::vector<std::filesystem::path> profile_dirs;
    planner::Objective objective = planner::Objective::latency;
    std::chrono::milliseconds time_limit{2000};
    bool simulate = true;
  };
  /// Called on the thread, up to three times for an order: with a plan by the cost model within
  /// some 20 ms; when candidates are to be simulated, with the one that is best there; and, when
  /// all workers have rates, with rows chosen by simulated arrivals. Where these two come, the
  /// first one is left out for the workers of the order before.
  using Done = std::function<void(const PlanOrder& order, Result<nlohmann::json> document)>;

  PlanningThread(Settings settings, Done done);
  /// Gives up what is being planned.
  ~PlanningThread();
  PlanningThread(const PlanningThread&) = delete;
  PlanningThread& operator=(const PlanningThread&) = delete;

  /// Replaces an order that has not been begun. One that has been is given up for other workers.
  void order(PlanOrder order);

 private:
  using Clock = std::chrono::steady_clock;

  void run();
  void plan(const PlanOrder& order);
  [[nodiscard]] bool is_overtaken();
  [[nodiscard]] bool is_for_planned(const PlanOrder& order) const;
  std::vector<planner::Worker> workers_of(const PlanOrder& order);
  /// The worker's kernels with its factors; the same objects as for the last order if nothing has
  /// changed, by which the planner knows workers again.
  void scale(planner::Worker& worker, const WorkerToPlan& by);
  /// By the cost model, fast.
  Result<planner::Plan> first_plan(std::span<const planner::Worker> workers);
  [[nodiscard]] Result<planner::Plan> judged_plan(std::span<const planner::Worker> workers);
  [[nodiscard]] planner::PlannerOptions options_for(std::span<const planner::Worker> workers) const;
  /// Asks whether the time is up, or there is a new order.
  [[nodiscard]] std::function<bool()> limit(std::chrono::milliseconds time);
  [[nodiscard]] nlohmann::json document_of(const planner::Plan& plan, const PlanOrder& order,
                                           std::span<const planner::Worker> workers) const;

  const Settings settings_;
  const Done done_;
  std::vector<WorkerId> planned_;  // of the order that was begun last; the thread's own
  // The last plan by the cost model; the thread's own.
  std::optional<planner::Plan> previous_;
  double previous_group_us_ = 0;
  struct Scaled {
    std::vector<std::shared_ptr<const model::Kernel>> from;
    double time_factor = 1;
    std::vector<KernelFactor> kernel_factors;
    std::vector<std::shared_ptr<const model::Kernel>> to;
  };
  std::map<std::uint64_t, Scaled> scaled_;  // by WorkerId, of the last order; the thread's own
  ProfileLibrary profiles_;                 // likewise
  std::set<std::string> complained_;        // profiles that were not found, likewise
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<PlanOrder> next_;  // guarded by mutex_
  bool ending_ = false;            // guarded by mutex_
  std::thread thread_;             // last
};

}  // namespace eclip::daemon
