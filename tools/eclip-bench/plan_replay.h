// A plan of eclipd (eclip.plan/1) in virtual time: what its workers would see, by the same
// scheduler and device model, without eclipd, processes and clocks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "tools/eclip-bench/colocated_run.h"

namespace eclip::bench {

struct PlanReplayOptions {
  std::filesystem::path plan;   ///< as eclipctl plan show --json prints it
  std::filesystem::path data;   ///< profiles/ is there
  std::uint32_t requests = 60;  ///< of the worker with the fewest
  std::uint64_t seed = 1;
};

struct PlanReplay {
  std::vector<std::string> names;  ///< of the workers
  bool open_loop = false;          ///< all workers of the plan have rates
  RunOutcome outcome;
};

/// Workers with a rate get requests at random, if all have one; else all are in a closed loop.
/// Errors name the file and the place in it.
Result<PlanReplay> replay_plan(const model::GpuDescription& gpu, const PlanReplayOptions& options);

/// Mean and percentiles of each worker's latency; `json`: schema eclip.plan-replay/1. Simulated.
std::string plan_replay_text(const PlanReplay& replay);
std::string plan_replay_json(const PlanReplay& replay);

}  // namespace eclip::bench
