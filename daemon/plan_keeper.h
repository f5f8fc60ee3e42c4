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
#include "ipc/active_set.h"
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
  /// board's, `active` the set of all workers with a request, if there is one; they and the
  /// mailbox must outlive the keeper.
  PlanKeeper(const Config& config, model::GpuDescription gpu, std::vector<CuMask> pool,
             std::atomic<std::uint64_t>& plan_epoch, PlanHistory history, Mailbox& mailbox,
             ActiveSet* active = nullptr);

  void add(Client client);
  /// Takes the worker out of the active set, too.
  void remove(WorkerId id);
  /// Plans anew when what a worker says of its rate or its times has changed enough. To be called
  /// about once a second.
  void look_at_loads();

  /// The worker's bit in sets of active workers, from its first part in a plan until it leaves;
  /// nullopt: it has had no part yet.
  [[nodiscard]] std::optional<std::uint32_t> seat_of(WorkerId id) const;
  /// Whether it is one of the plan in force.
  [[nodiscard]] bool has_part(WorkerId id) const;
  /// Observed time of a worker's groups of kernels in permille of the predicted, by its own word;
  /// groups count by their predicted time. 0: not known.
  [[nodiscard]] std::uint32_t drift_permille(WorkerId id) const;

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
  /// How kernels are planned, relative to the profile (WorkerToPlan).
  struct KernelTimes {
    double time_factor = 1;
    std::vector<KernelFactor> kernel_factors;
  };
  struct Known {
    Client client;
    double requests_per_s = 0;  // in the plan that was ordered last
    KernelTimes times;          // likewise
    double latency_bound_us = 0;
    double weight = 1;
    std::optional<std::uint32_t> seat;
    std::optional<std::size_t> part;            // in the plan in force: the index of its worker
    std::optional<KernelTimes> times_in_force;  // in that plan; nullopt: not known
  };
  struct InForce {
    std::uint64_t epoch = 0;
    planner::StoredPlan plan;
    /// Of each part: its worker's; of a part that is nobody's the seat of whoever gets it, so that
    /// the tables of the others stay. nullopt: all seats are taken.
    std::vector<std::optional<std::uint32_t>> seats{};
  };
  /// Observed times of the groups of a worker in the plan in force, relative to the predicted.
  struct Drift {
    std::vector<double> of_group;  // 1 where it is not known
    std::vector<double> share;     // of each group in the known ones' predicted time
    [[nodiscard]] double mean() const;
  };

  void order(std::string reason);
  /// Those that a plan is for, by WorkerId: who has a seat goes before who has not.
  [[nodiscard]] std::vector<Known*> to_plan();
  [[nodiscard]] std::optional<Drift> drift_of(const Known& known) const;
  /// Takes over what the worker's scheduler reports, if that is far enough from what was ordered
  /// last; the reason for a new plan then.
  std::optional<std::string> follow_drift(Known& known) const;
  void planned(const PlanOrder& order, const Result<nlohmann::json>& document);
  /// Writes the tables of those workers, and the epoch. ids[i]: the worker that has part i, or
  /// WorkerId{0}.
  std::uint64_t put_in_force(planner::StoredPlan plan, nlohmann::json document, std::string reason,
                             std::vector<WorkerId> ids);
  /// A seat for each part of the plan in force. A worker for whom there is none loses its part.
  void give_seats(std::vector<WorkerId>& ids);
  /// The lowest that no worker and no part has.
  [[nodiscard]] std::optional<std::uint32_t> free_seat() const;
  /// The pinned plan in a new epoch, after workers with other seats than its parts' have got parts.
  void publish_again(std::string reason);
  /// Into the history, as the plan in force.
  void write_down(nlohmann::json document, std::string reason);
  /// Parts of a plan by name and profile, first come, first served; WorkerId{0}: nobody's.
  [[nodiscard]] std::vector<WorkerId> parts_by_name(const planner::StoredPlan& plan) const;
  [[nodiscard]] static bool fits(const Known& known,
                                 const planner::StoredPlan::PlannedWorker& worker);
  /// Gives a worker the first part of the plan in force that is nobody's and fits, if there is one.
  /// False: the plan must be published again, since the part had another seat.
  [[nodiscard]] bool take_free_part(Known& known);
  void write_table(const Known& known) const;
  Result<planner::StoredPlan> read(const nlohmann::json& document) const;
  [[nodiscard]] bool is_pinned() const { return history_.pinned().has_value(); }
  void pin(std::optional<std::uint64_t> epoch);

  const Config& config_;
  const std::vector<CuMask> pool_;
  const std::uint32_t cu_count_;
  std::atomic<std::uint64_t>& plan_epoch_;
  ActiveSet* const active_;
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
