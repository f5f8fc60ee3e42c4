// One plan in the making, inside make_plan (daemon/planner/planner.h).
#pragma once

#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "daemon/planner/planner.h"

namespace eclip::planner {

struct PlanMemory {
  struct Evaluated {
    Prediction prediction;
    double value = 0;
  };
  std::vector<Worker> workers;
  std::shared_ptr<const CostTables> tables;
  /// By the stream of the tables of each worker, which is whole; no_stream: not active.
  std::map<std::vector<std::uint32_t>, Evaluated> evaluated;
  std::vector<std::uint8_t> searched;  ///< [active - 1]: for a likely set, and to the end
};

/// A pool with its streams as indices into the tables.
struct IndexedPool {
  Pool pool;
  std::vector<std::uint32_t> streams;  ///< of the pool, then the one without a mask
  std::vector<std::uint32_t> home;     ///< of each worker
  [[nodiscard]] std::uint32_t unmasked() const { return streams.back(); }
};

/// What rows are compared with beside the objective, over a set of workers.
struct Pace {
  double p95 = std::numeric_limits<double>::infinity();  ///< geometric mean, relative to alone
  double throughput = 0;                                 ///< sum of rates relative to alone
};

class Planning {
 public:
  Planning(const model::GpuDescription& gpu, std::span<const Worker> workers,
           const PlannerOptions& options);
  Plan run();

 private:
  /// The pool whose rows are best, and its rows for every active set.
  std::pair<const IndexedPool*, std::vector<Row>> planned_rows(
      const RowSearch& search, const std::vector<IndexedPool>& pools,
      const std::vector<Candidate>& candidates);
  /// Searches for a row with an effort by how likely the set is.
  void improve(const RowSearch& search, const IndexedPool& pool, WorkerSet active, Row& row);
  [[nodiscard]] WorkerSet all() const { return (WorkerSet{1} << workers_.size()) - 1; }
  /// The given pool, or those to choose from.
  std::vector<IndexedPool> pools();
  IndexedPool indexed(Pool pool);
  [[nodiscard]] double share(WorkerSet active) const { return share_of(activity_, active); }
  [[nodiscard]] std::vector<WorkerSet> every_set() const;
  /// The fewest sets that are active for nearly all of the time in which any worker is.
  [[nodiscard]] std::vector<WorkerSet> likely_sets() const;
  /// Mean over the active sets that have a row, weighted by how likely each is.
  [[nodiscard]] double mean(const std::vector<double>& values) const;
  [[nodiscard]] double expected(const std::vector<Row>& rows) const;
  /// The same by simulation, over the sets that were judged by it; without, by the cost model.
  [[nodiscard]] double worth(const std::vector<Row>& rows) const;
  [[nodiscard]] static double best_policy(const std::vector<Candidate>& candidates);
  [[nodiscard]] bool out_of_time() const;
  /// Every active worker whole on its stream; each such row is evaluated once.
  [[nodiscard]] Row whole_row(const RowSearch& search, WorkerSet active,
                              std::vector<std::uint32_t> stream_of_worker) const;
  /// Of each worker, by who is active.
  using StreamOfWorker = std::function<std::vector<std::uint32_t>(WorkerSet active)>;
  [[nodiscard]] Candidate policy(const RowSearch& search, std::string name,
                                 const StreamOfWorker& streams_of) const;
  /// The policies, and each worker on its leaf and the idle ones that it is given.
  [[nodiscard]] std::vector<Row> starts_of(const RowSearch& search, const IndexedPool& pool,
                                           WorkerSet active) const;
  /// Every worker whole on a stream, for those of `sets` that have no row yet.
  [[nodiscard]] std::vector<Row> whole_rows(const RowSearch& search, const IndexedPool& pool,
                                            const std::vector<WorkerSet>& sets,
                                            std::vector<Row> rows = {}) const;
  /// Each active worker on the largest stream that has its home's CUs and none of another active
  /// worker's home, nor of what another was given.
  [[nodiscard]] std::vector<std::uint32_t> largest_free(const IndexedPool& pool,
                                                        WorkerSet active) const;
  /// From streams of the tables to streams of the plan. Where a pool has a mask of all CUs, one
  /// worker alone on the whole GPU has that stream; several have no mask, and queues of their own.
  static void renumber(Row& row, const std::vector<std::uint32_t>& streams);

  // What a previous plan knows (planning_previous.cpp).

  [[nodiscard]] bool reuses_previous() const;
  /// Of each worker the one of the previous plan whose costs are its own, too.
  [[nodiscard]] std::vector<std::optional<std::size_t>> workers_before() const;
  /// Values by worker of the previous plan, in the order of these workers.
  template <class T>
  [[nodiscard]] std::vector<T> reordered(const std::vector<T>& values, const T& absent) const {
    std::vector<T> of_workers(workers_.size(), absent);
    for (std::size_t w = 0; w < workers_.size(); ++w)
      if (before_[w]) of_workers[w] = values[*before_[w]];
    return of_workers;
  }
  [[nodiscard]] Prediction reordered(const Prediction& prediction) const;
  /// What the previous plan has evaluated of workers that are still there.
  void remember_previous();
  /// The previous plan's row for the same workers, in streams of the tables, and whether it was
  /// searched for, too; nothing when one of them is new.
  [[nodiscard]] std::optional<std::pair<Row, bool>> kept_row(const IndexedPool& pool,
                                                             WorkerSet active) const;
  /// Rows of workers that were there before are taken over, the others begin with the row without
  /// the newcomer. First each set gets a row that no policy beats; what time is left then goes to
  /// newcomers and to the search for the likely sets.
  std::vector<Row> replanned_rows(const RowSearch& search, const IndexedPool& pool);

  // In the device model (planning_judged.cpp).

  /// False, and the row has not changed, when there was no time.
  bool simulate(const RowSearch& search, Row& row, Pace* pace = nullptr) const;
  [[nodiscard]] Pace pace_of(const RowSearch& search, const Row& row,
                             const LoopOutcome& outcome) const;
  /// The better of unmasked and the first pool's homes.
  [[nodiscard]] Pace pace_of_policies(const RowSearch& search, WorkerSet active) const;
  [[nodiscard]] static double behind(const Pace& pace, const Pace& policies);
  /// What searches for all objectives find.
  void add_for_other_objectives(const RowSearch& search, const IndexedPool& pool, WorkerSet active,
                                std::vector<Row>& candidates) const;
  /// For the likely sets and all workers: the best in the device model of the policies, the best
  /// for whole workers, and the best that the search found.
  [[nodiscard]] std::vector<Row> judged_rows(const RowSearch& search,
                                             const IndexedPool& pool) const;

  const model::GpuDescription& gpu_;
  std::span<const Worker> workers_;
  const PlannerOptions& options_;
  CostOptions cost_;
  std::vector<Groups> groups_;
  std::vector<double> activity_;
  std::vector<CuMask> masks_;
  const IndexedPool* first_pool_ = nullptr;
  std::shared_ptr<PlanMemory> memory_ = std::make_shared<PlanMemory>();
  std::vector<std::optional<std::size_t>> before_;  // of each worker, in the previous plan
};

}  // namespace eclip::planner
