// The CU masks that a pool offers: disjoint home leaves, one for each worker, and unions of them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "daemon/planner/cost_tables.h"
#include "ipc/cu_mask.h"
#include "ipc/result.h"

namespace eclip::planner {

/// CU-masked streams of a GPU, over all processes.
inline constexpr std::size_t stream_budget = 7;

/// A set of workers: bit i is worker i.
using WorkerSet = std::uint32_t;

struct PoolStream {
  CuMask mask;
  WorkerSet leaves = 0;  ///< whose home leaves it is made of; 0 when it is not made of leaves
};

struct Pool {
  std::string name;
  std::vector<PoolStream> streams;  ///< at most stream_budget; only a given pool has a mask twice
  std::vector<std::uint32_t> home;  ///< each worker's own stream
  std::size_t pruned_unions = 0;    ///< unions of leaves that the budget left out
};

/// Halves of shader engines are what leaves are made of: one half, or whole engines. So a leaf
/// never has a different number of CUs in two of its engines.
struct LeafSizes {
  std::vector<std::uint32_t> halves;  ///< of each worker
};

/// CUs of the largest leaf of so many halves.
std::uint32_t cus_of_halves(const model::GpuDescription& gpu, std::uint32_t halves);
/// Whether a leaf may have that many halves of shader engines.
constexpr bool is_leaf_size(std::uint32_t halves) {
  return halves == 1 || halves % 2 == 0;
}

/// Time of a request alone on a mask of so many CUs, us, without gaps and the host's part.
double service_us(const Worker& worker, std::uint32_t cus);

/// The sizes that minimise the sum of slowdowns on disjoint leaves, each weighted by its worker's
/// weight and how much of the time it is active, with late_penalty; by dynamic programming,
/// O(workers x halves^2). Empty when there are more workers than halves.
LeafSizes sized_leaves(const model::GpuDescription& gpu, std::span<const Worker> workers,
                       std::span<const double> activity);
/// As equal as shader engines allow.
LeafSizes equal_leaves(const model::GpuDescription& gpu, std::size_t workers);

/// The leaves, and as many unions as the budget allows: all of up to three leaves; of more, those
/// with the largest expected gain when their workers are active and the others are not.
Pool pool_of_leaves(const model::GpuDescription& gpu, std::string name, const LeafSizes& sizes,
                    std::span<const Worker> workers, std::span<const double> activity);

/// For each worker the smallest mask of whole leaf sizes on which it is within `slack` of its speed
/// on the whole GPU; masks overlap, laid out one after the other around the GPU.
Pool overlapping_pool(const model::GpuDescription& gpu, std::span<const Worker> workers,
                      double slack);

/// Seven masks, 1 + 2 + 4: the whole GPU, its halves and its quarters by shader engines, so that
/// one to four workers can have disjoint streams. None when the engines cannot be quartered.
std::vector<CuMask> tree_masks(std::uint32_t cu_count, std::uint32_t shader_engines);

/// Whether the masks can be a pool of this GPU. Errc::budget_exceeded: more than stream_budget;
/// Errc::invalid_argument: none, or a mask of another size, without CUs, or without CUs on one of
/// the XCCs (a queue with such a mask hangs). The message names the stream and the remedy.
Result<void> check_pool(const model::GpuDescription& gpu, std::span<const CuMask> masks);

/// A pool of exactly these streams, in this order. Homes: the fewest pairs of workers on CUs of one
/// another, and of such assignments the least sum of slowdowns, weighted as by sized_leaves.
Pool pool_of_masks(const model::GpuDescription& gpu, std::string name,
                   std::span<const CuMask> masks, std::span<const Worker> workers,
                   std::span<const double> activity);

/// Leaves of each active worker and those idle ones that it is given: each idle leaf to the worker
/// that gains most by it, weighted by its activity. Indexed by worker; 0 for idle workers.
std::vector<WorkerSet> share_idle_leaves(const model::GpuDescription& gpu, const LeafSizes& sizes,
                                         std::span<const Worker> workers,
                                         std::span<const double> activity, WorkerSet active);

}  // namespace eclip::planner
