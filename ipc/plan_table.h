// A worker's part of the plan, in its WorkerState: the stream of each group of its kernels, for
// each set of active workers. eclipd writes it, the worker reads it; neither ever waits.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace eclip {

/// One plan of two: that of an odd epoch and that of an even one (PlanTables). All words are
/// atomic, so that a reader whom eclipd overtakes reads old or new words, and knows from `epoch`
/// that it must read again.
struct PlanTable {
  static constexpr std::uint32_t max_workers = 7;    ///< of a plan; seats are 0 .. 6
  static constexpr std::uint32_t max_streams = 8;    ///< of the pool, and the one without a mask
  static constexpr std::uint32_t max_groups = 128;   ///< of a worker
  static constexpr std::uint8_t no_mask = 0xfe;      ///< the stream without a CU mask
  static constexpr std::uint8_t not_planned = 0xff;  ///< the worker is not in that set

  /// Board::plan_epoch of the plan that the rest belongs to; 0 while it is written, or when the
  /// worker has no part in it. Writer: eclipd.
  alignas(64) std::atomic<std::uint64_t> epoch;
  /// The worker's bit in sets of active workers (ActiveSet); the same as long as it is connected.
  std::atomic<std::uint32_t> seat;
  std::atomic<std::uint32_t> workers;       ///< the set of all workers of the plan
  std::atomic<std::uint32_t> group_count;   ///< 1 .. max_groups
  std::atomic<std::uint32_t> kernel_count;  ///< of a request; 0: not known, any
  /// In program order; that of the first group is 0.
  std::array<std::atomic<std::uint32_t>, max_groups> first_kernel;
  /// LaunchShapes of each group's kernels; 0: not known.
  std::array<std::atomic<std::uint32_t>, max_groups> shapes;
  /// [set of active workers][group]: stream of the pool, no_mask or not_planned.
  std::array<std::array<std::atomic<std::uint8_t>, max_groups>, 1U << max_workers> stream;
  /// [stream, the one without a mask last][group]: predicted time, alone there, us of device time;
  /// 0: not known.
  std::array<std::array<std::atomic<float>, max_groups>, max_streams> alone_us;
  /// [set]: how many times as long the worker's request takes by the prediction as alone on the
  /// streams that the set gives it; 0: not known.
  std::array<std::atomic<float>, 1U << max_workers> slowdown;
};
static_assert(std::atomic<float>::is_always_lock_free);
static_assert(std::atomic<std::uint8_t>::is_always_lock_free);
static_assert(offsetof(PlanTable, stream) == 1048);

using PlanTables = std::array<PlanTable, 2>;  ///< [epoch mod 2]

/// What eclipd fills a PlanTable with.
struct WorkerPlan {
  std::uint32_t seat = 0;
  std::uint32_t workers = 0;                ///< all of the plan
  std::vector<std::uint32_t> first_kernel;  ///< of each group
  std::uint32_t kernel_count = 0;
  std::vector<std::uint32_t> shapes;  ///< of each group; may be empty: not known
  /// [set of active workers][group]; sets that it does not have are not planned.
  std::vector<std::vector<std::uint8_t>> stream;
  std::vector<std::vector<float>> alone_us;  ///< [stream][group]; may be empty: not known
  std::vector<float> slowdown;               ///< [set]; may be empty: not known
};

/// eclipd's side: one thread. Readers of the plan before keep theirs until Board::plan_epoch says
/// `epoch`; those of the plan before that one find out that they are late.
void write_plan(PlanTables& tables, std::uint64_t epoch, const WorkerPlan& plan);

/// The worker's side, any number of threads.
class PlanReader {
 public:
  PlanReader(const PlanTables& tables, const std::atomic<std::uint64_t>& plan_epoch)
      : tables_(&tables), plan_epoch_(&plan_epoch) {}

  /// The epoch of the plan in force; one load. A plan of 0 is none.
  [[nodiscard]] std::uint64_t epoch() const { return plan_epoch_->load(std::memory_order_acquire); }

  /// What does not change within an epoch.
  struct Groups {
    std::uint64_t epoch = 0;
    std::uint32_t seat = 0;
    std::uint32_t workers = 0;
    std::uint32_t kernel_count = 0;
    std::uint32_t count = 0;
    std::array<std::uint32_t, PlanTable::max_groups> first_kernel{};
    std::array<std::uint32_t, PlanTable::max_groups> shapes{};

    /// The group of a kernel. There is a group.
    [[nodiscard]] std::uint32_t of(std::uint32_t kernel) const;
    /// The first kernel of the next group; UINT32_MAX: there is none.
    [[nodiscard]] std::uint32_t end(std::uint32_t group) const {
      return group + 1 < count ? first_kernel[group + 1] : UINT32_MAX;
    }
  };
  /// The groups of a plan; no allocation. nullopt: this worker has no part in it, or it is not in
  /// force any more.
  [[nodiscard]] std::optional<Groups> groups(std::uint64_t epoch) const;
  /// The stream of a group, for a set of active workers: five loads. nullopt: as above, or no such
  /// group or set, or a set without this worker.
  [[nodiscard]] std::optional<std::uint8_t> stream(std::uint64_t epoch, std::uint32_t active,
                                                   std::uint32_t group) const;
  /// Predicted time of a group on `stream` (of the pool, or PlanTable::no_mask) among a set of
  /// active workers, us of device time; 0: not known, or as above.
  [[nodiscard]] double predicted_us(std::uint64_t epoch, std::uint32_t active, std::uint32_t group,
                                    std::uint8_t stream) const;

 private:
  const PlanTables* tables_;
  const std::atomic<std::uint64_t>* plan_epoch_;
};

}  // namespace eclip
