// What eclipd knows of plans: for whom to plan and when, which plan is in force, and what came
// before. How a plan is made: docs/planner.md.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/config.h"
#include "daemon/mailbox.h"
#include "daemon/plan_history.h"
#include "daemon/planner/plan_document.h"
#include "daemon/planning_thread.h"
#include "ipc/messages.h"
#include "ipc/plan_table.h"
#include "ipc/worker_regions.h"

namespace eclip::daemon {

/// The description of the GPU that plans reckon with: planner.gpu of the configuration, else the
/// one with the GPU's shader engines and CUs, else MI50's numbers in the GPU's shape, which is
/// said. The loader's errors; Errc::unsupported for a GPU that no description can have the shape
/// of.
Result<model::GpuDescription> describe_for_plans(const Config& config, const GpuTopology& gpu);

/// Of the control thread. Plans come from a thread of its own through the mailbox.
class PlanKeeper {
 public:
  /// A worker, as the service knows it. What the pointers point to lives until remove().
  struct Client {
    WorkerId id;
    std::string name;
    std::string profile;        ///< that it names; empty: none
    double requests_per_s = 0;  ///< that it expects; 0: not known
    PlanTables* tables = nullptr;
    const WorkerRequest* request = nullptr;
  };

  /// A pinned plan of the history is in force at once, if it is for this pool. `plan_epoch` is the
  /// board's; it and the mailbox must outlive the keeper.
  PlanKeeper(const Config& config, model::GpuDescription gpu, std::vector<CuMask> pool,
             std::atomic<std::uint64_t>& plan_epoch, PlanHistory history, Mailbox& mailbox);

  void add(Client client);
  void remove(WorkerId id);
  /// The worker's bit in sets of active workers (PlanTable::seat), as long as it is connected.
  [[nodiscard]] std::optional<std::uint32_t> seat_of(WorkerId id) const;
  /// Plans anew when what a worker says of its rate or its times has changed enough. To be called
  /// about once a second.
  void look_at_loads();

  /// The plan of an epoch, or the one in force (0), as its document with what eclipd knows of it.
  /// Errc::not_found.
  [[nodiscard]] Result<nlohmann::json> document(std::uint64_t epoch) const;
  /// The same as JSON text, which stays until the next call.
  [[nodiscard]] Result<const std::string*> text(std::uint64_t epoch);
  [[nodiscard]] std::vector<PlanRecord> records() const;
  /// Puts a plan in force and pins it; the new epoch. `who`, for the reason. Errc::malformed,
  /// Errc::invalid_argument: a plan for another pool.
  Result<std::uint64_t> apply(std::string_view text, const std::string& who);
  /// PlanChoice. The new epoch; 0 when there is none yet. Errc::not_found, and as apply.
  Result<std::uint64_t> choose(const PlanChoice& choice, const std::string& who);

 private:
  struct Known {
    Client client;
    double requests_per_s = 0;  // in the plan that was ordered last
    double time_factor = 1;     // likewise
    double latency_bound_us = 0;
    double weight = 1;
    std::optional<std::size_t> part;  // in the plan in force: the index of its worker
  };
  struct InForce {
    std::uint64_t epoch = 0;
    planner::StoredPlan plan;
  };

  void order(std::string reason);
  void planned(const PlanOrder& order, const Result<nlohmann::json>& document);
  /// Writes the tables of those workers, and the epoch. ids[i]: the worker that has part i.
  std::uint64_t put_in_force(planner::StoredPlan plan, nlohmann::json document, std::string reason,
                             const std::vector<WorkerId>& ids);
  /// Into the history, as the plan in force.
  void write_down(nlohmann::json document, std::string reason);
  /// Parts of a plan by name and profile, first come, first served; WorkerId{0}: nobody's.
  [[nodiscard]] std::vector<WorkerId> parts_by_name(const planner::StoredPlan& plan) const;
  [[nodiscard]] static bool fits(const Known& known,
                                 const planner::StoredPlan::PlannedWorker& worker);
  /// Gives a worker the first part of the plan in force that is nobody's and fits, if there is one.
  void take_free_part(Known& known) const;
  void write_table(const Known& known) const;
  Result<planner::StoredPlan> read(const nlohmann::json& document) const;
  [[nodiscard]] bool is_pinned() const { return history_.pinned().has_value(); }
  void pin(std::optional<std::uint64_t> epoch);

  const Config& config_;
  const std::vector<CuMask> pool_;
  const std::uint32_t cu_count_;
  std::atomic<std::uint64_t>& plan_epoch_;
  PlanHistory history_;
  std::map<std::uint64_t, Known> clients_;  // by WorkerId
  std::optional<InForce> in_force_;
  /// What text() last gave, and of which state: of epochs and pins, and of the history's last plan.
  struct {
    std::string text;
    std::uint64_t epoch = 0;
    std::uint64_t changes = 0;
  } asked_;
  std::uint64_t changes_ = 1;  // of the history
  double orders_left_;
  std::chrono::steady_clock::time_point orders_counted_ = std::chrono::steady_clock::now();
  std::optional<std::string> delayed_;  // reason of an order that had to wait
  PlanningThread thread_;               // last: it posts what uses the rest
};

}  // namespace eclip::daemon
