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

    bool operator==(const PlannedWorker&) const = default;
  };
  std::vector<CuMask> pool;
  std::uint32_t unmasked = 0;  ///< the stream without a mask: pool.size()
  std::vector<PlannedWorker> workers;
  /// [active - 1][worker][group]: stream; empty for a worker that is not active.
  std::vector<GroupStreams> rows;
  double value = 0;  ///< of the objective

  /// Whether both send every kernel to the same stream.
  [[nodiscard]] bool acts_as(const StoredPlan& other) const {
    return pool == other.pool && workers == other.workers && rows == other.rows;
  }
};

/// Reads and checks a document: at most most_workers workers, a row for every set of them, in every
/// row a stream of the pool, or none, for each group of each active worker. Errc::malformed names
/// the place, as /rows/3/active, and what is expected there.
Result<StoredPlan> parse_plan(const nlohmann::json& document, std::uint32_t cu_count);

}  // namespace eclip::planner
