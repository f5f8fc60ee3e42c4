// Policies over mixes and loads, in virtual time: every cell's figures, and how ECLIP's compare
// with what it has to beat.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "tools/eclip-bench/colocated_run.h"
#include "tools/eclip-bench/policies.h"

namespace eclip::bench {

/// Share of a worker's rate in a closed loop without masks at which its requests arrive; 0: a
/// closed loop.
using LoadShare = double;
inline constexpr LoadShare closed_loop = 0;

struct ColocateOptions {
  std::filesystem::path data;  ///< colocation-h100.json and profiles/ are there
  std::vector<model::GpuDescription> gpus;
  std::vector<std::string> mixes;  ///< of colocation-h100.json; empty: all
  std::vector<Policy> policies;    ///< empty: all
  std::vector<LoadShare> loads;    ///< empty: closed loop, 0.4, 0.6 and 0.8
  std::uint32_t seeds = 3;         ///< 1 .. seeds
  std::uint32_t requests = 60;     ///< of the worker with the fewest, per seed
  planner::Objective objective = planner::Objective::latency;
  std::uint32_t backlog = 0;    ///< RunOptions::backlog, for ECLIP by active sets
  double group_us = 500;        ///< least length of groups, alone without a mask
  unsigned jobs = 1;            ///< threads
  std::filesystem::path trace;  ///< of the one cell that there is then; empty: none
};

/// A figure over seeds.
struct Spread {
  double median = 0;
  double least = 0;
  double most = 0;
};

/// A worker in a cell.
struct WorkerFigures {
  Spread requests_per_s;
  Spread relative_rate;  ///< to its rate alone without a mask
  Spread p50_us;
  Spread p95_us;
  Spread p99_us;
  Spread intrusion_mean_us;
  Spread intrusion_p95_us;
  Spread intrusion_share;
  std::uint64_t completed = 0;  ///< requests, over seeds
  SendCounts counts;            ///< over seeds
};

/// One policy for one mix at one load.
struct Cell {
  std::string gpu;
  std::string mix;
  LoadShare load = closed_loop;
  Policy policy = Policy::unmasked;
  std::vector<WorkerFigures> workers;
  Spread stp;       ///< sum of relative rates
  Spread p95_us;    ///< geometric mean over workers
  Spread fairness;  ///< Jain's index of relative rates
  Spread watts;
  Spread joules_per_request;
  Spread joules_per_work;  ///< of requests that take one second alone without a mask
  // The same by seed, for comparisons with the same seed of another policy.
  std::vector<double> stp_by_seed;
  std::vector<double> work_per_joule_by_seed;
  std::vector<std::vector<double>> p95_us_by_seed;  ///< [seed][worker]
  // What has to hold.
  std::uint64_t arrived = 0;    ///< requests
  std::uint64_t completed = 0;  ///< all of them
  std::uint64_t kernels = 0;    ///< run by complete requests
  std::uint64_t disorder = 0;   ///< 0
};

struct MixInfo {
  std::string gpu;
  std::string mix;
  std::vector<std::string> profiles;
  std::vector<double> solo_us;      ///< alone without a mask, from one completion to the next
  std::vector<double> unmasked_us;  ///< in a closed loop without masks
};

struct Colocation {
  std::vector<MixInfo> mixes;
  std::vector<Cell> cells;  ///< by GPU, mix, load, policy
  [[nodiscard]] const Cell* find(const std::string& gpu, const std::string& mix, LoadShare load,
                                 Policy policy) const;
};

/// Errors name the file, mix or option. Deterministic: threads change nothing but time.
Result<Colocation> colocate(const ColocateOptions& options);

/// p95 of a cell's workers relative to another cell's, per worker: median over seeds.
std::vector<double> relative_p95(const Cell& cell, const Cell& base);
/// Its geometric mean over workers.
double mean_relative_p95(const Cell& cell, const Cell& base);
/// Throughput, and requests per joule, relative to another cell's: median over seeds.
double relative_stp(const Cell& cell, const Cell& base);
double relative_work_per_joule(const Cell& cell, const Cell& base);

}  // namespace eclip::bench
