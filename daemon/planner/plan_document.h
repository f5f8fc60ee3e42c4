// A plan as JSON (eclip.plan/1): what eclip-plan prints, eclipctl shows, and eclipd keeps.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/planner/planner.h"
#include "ipc/cu_mask.h"
#include "ipc/plan_table.h"
#include "ipc/result.h"

namespace eclip::planner {

/// "latency", "throughput", "energy".
const char* name_of(Objective objective);
/// The objective of such a name; nullopt: there is none.
std::optional<Objective> objective_of(std::string_view name);

/// Everything of a plan that a reader may ask for; each worker's profile is its name.
nlohmann::json plan_document(const Plan& plan, std::span<const Worker> workers,
                             const model::GpuDescription& gpu, Objective objective);

/// What is needed of a document to put the plan in force.
struct StoredPlan {
  struct PlannedWorker {
    std::string name;
    std::string profile;
    std::vector<std::uint32_t> first_kernel;  ///< of each group; the first is 0
    std::uint32_t kernels = 0;                ///< of a request; 0: not known
    std::vector<std::uint32_t> shapes;        ///< LaunchShapes of each group; empty: not known
    /// [stream, the one without a mask last][group]: what it takes alone there, with its launch
    /// gaps, us of device time; empty: not known.
    std::vector<std::vector<float>> alone_us;

    bool operator==(const PlannedWorker&) const = default;
  };
  std::vector<CuMask> pool;
  std::uint32_t unmasked = 0;  ///< the stream without a mask: pool.size()
  std::vector<PlannedWorker> workers;
  /// [active - 1][worker][group]: stream; empty for a worker that is not active.
  std::vector<GroupStreams> rows;
  /// [active - 1][worker]: how many times as long its request takes in that row as alone on the
  /// row's streams, without the host's part; 0: not known, or not active. Empty: not known.
  std::vector<std::vector<float>> slowdown;
  double value = 0;  ///< of the objective

  /// Whether both send every kernel to the same stream, and know the same of the kernels.
  [[nodiscard]] bool acts_as(const StoredPlan& other) const {
    return pool == other.pool && workers == other.workers && rows == other.rows;
  }
  /// Whether the slowdowns of both are within a factor of each other.
  [[nodiscard]] bool slows_as(const StoredPlan& other, double factor) const;
};

/// Reads and checks a document: at most most_workers workers, a row for every set of them, in every
/// row a stream of the pool, or none, for each group of each active worker. What is said of kernels
/// and times may be missing, as in plans of earlier versions. Errc::malformed names the place, as
/// /rows/3/active, and what is expected there.
Result<StoredPlan> parse_plan(const nlohmann::json& document, std::uint32_t cu_count);

/// LaunchShapes of each group's kernels.
std::vector<std::uint32_t> shapes_of_groups(const Worker& worker, const Groups& groups);

/// What a worker's table says: part `part` of the plan, where the worker of part i has seats[i];
/// nullopt: nobody has it, and sets with it cannot be.
WorkerPlan table_of(const StoredPlan& plan, std::size_t part,
                    std::span<const std::optional<std::uint32_t>> seats);

}  // namespace eclip::planner
