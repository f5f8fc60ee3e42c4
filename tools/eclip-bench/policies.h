// The policies that eclip-bench compares: who runs on which CUs, and by which means.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "daemon/planner/planner.h"
#include "tools/eclip-bench/colocated_run.h"

namespace eclip::bench {

enum class Policy : std::uint8_t {
  unmasked,      ///< everybody on the whole GPU
  model_wise,    ///< everybody on a leaf of its own, sized from its profile and rate
  mask_ioctl,    ///< right-sized for each kernel, by an ioctl that changes the queue's mask
  switching,     ///< likewise, by a switch to another stream of the pool
  eclip_static,  ///< the plan's row for all workers, whoever is active
  eclip,         ///< the plan, by active sets
  own_gpu,       ///< a GPU for each worker: what no way of sharing can beat
};
inline constexpr std::array all_policies{
    Policy::unmasked,     Policy::model_wise, Policy::mask_ioctl, Policy::switching,
    Policy::eclip_static, Policy::eclip,      Policy::own_gpu};
const char* name_of(Policy policy);
std::optional<Policy> policy_of(std::string_view name);

/// The plan that ECLIP's policies follow. Groups are cut as eclipd cuts them, at most
/// PlanTable::max_groups of a worker, of at least `group_us` each.
Result<planner::Plan> plan_for(const model::GpuDescription& gpu,
                               std::span<const planner::Worker> workers,
                               planner::Objective objective, double group_us);

/// `plan` is of these workers.
Sharing sharing_of(Policy policy, const model::GpuDescription& gpu,
                   std::span<const planner::Worker> workers, const planner::Plan& plan);

}  // namespace eclip::bench
