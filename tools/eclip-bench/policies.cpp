#include "tools/eclip-bench/policies.h"

#include <algorithm>
#include <functional>

#include "daemon/planner/open_loop_choice.h"
#include "daemon/planner/plan_document.h"
#include "daemon/planner/pool.h"

namespace eclip::bench {
namespace {

using planner::Groups;
using planner::Plan;
using planner::Worker;
using planner::WorkerSet;

/// A kernel is right-sized on the smallest mask where it is within this of its speed on all CUs.
constexpr double right_size_slack = 0.1;

/// Of the slowest worker, where candidates for a plan are simulated: enough for a p95.
constexpr std::uint32_t judged_requests = 20;

/// The stream of each group of a worker among a set, in the numbers of a table.
using RowOf = std::function<std::vector<std::uint8_t>(std::size_t worker, WorkerSet active)>;

/// The tables of workers with the plan's groups. No times are predicted: nobody replans here.
std::vector<WorkerPlan> tables_of(std::span<const Worker> workers, const Plan& plan,
                                  const RowOf& row_of) {
  std::vector<WorkerPlan> tables;
  const auto sets = WorkerSet{1} << workers.size();
  for (std::size_t w = 0; w < workers.size(); ++w) {
    WorkerPlan& table = tables.emplace_back();
    table.seat = static_cast<std::uint32_t>(w);
    table.workers = sets - 1;
    table.first_kernel = plan.groups[w];
    table.kernel_count = static_cast<std::uint32_t>(workers[w].kernels.size());
    table.shapes = planner::shapes_of_groups(workers[w], plan.groups[w]);
    for (WorkerSet active = 0; active < sets; ++active)
      table.stream.push_back((active >> w & 1U) != 0 ? row_of(w, active)
                                                     : std::vector<std::uint8_t>());
  }
  return tables;
}

std::vector<CuMask> masks_of(const planner::Pool& pool) {
  std::vector<CuMask> masks;
  for (const planner::PoolStream& stream : pool.streams) masks.push_back(stream.mask);
  return masks;
}

Sharing unmasked(std::span<const Worker> workers, const Plan& plan) {
  Sharing sharing;
  sharing.tables = tables_of(workers, plan, [&](std::size_t worker, WorkerSet) {
    return std::vector<std::uint8_t>(plan.groups[worker].size(), PlanTable::no_mask);
  });
  return sharing;
}

Sharing model_wise(const model::GpuDescription& gpu, std::span<const Worker> workers,
                   const Plan& plan) {
  const planner::Pool leaves = planner::pool_of_leaves(
      gpu, "disjoint", planner::sized_leaves(gpu, workers, plan.activity), workers, plan.activity);
  Sharing sharing;
  for (const std::uint32_t home : leaves.home) sharing.pool.push_back(leaves.streams[home].mask);
  sharing.homes = sharing.pool;
  sharing.tables = tables_of(workers, plan, [&](std::size_t worker, WorkerSet) {
    return std::vector<std::uint8_t>(plan.groups[worker].size(), static_cast<std::uint8_t>(worker));
  });
  return sharing;
}

/// `by_active_sets`: else the row for all workers always.
Sharing planned(std::span<const Worker> workers, const Plan& plan, bool by_active_sets) {
  Sharing sharing;
  sharing.pool = masks_of(plan.pool);
  for (const std::uint32_t home : plan.pool.home) sharing.homes.push_back(sharing.pool[home]);
  const WorkerSet all = (WorkerSet{1} << workers.size()) - 1;
  sharing.tables = tables_of(workers, plan, [&](std::size_t worker, WorkerSet active) {
    std::vector<std::uint8_t> row;
    for (const std::uint32_t stream : plan.row(by_active_sets ? active : all).streams[worker])
      row.push_back(stream == plan.unmasked ? PlanTable::no_mask
                                            : static_cast<std::uint8_t>(stream));
    return row;
  });
  return sharing;
}

/// Each kernel on the smallest of the whole GPU, its half and its quarter that is about as fast as
/// the whole; workers have halves and quarters by turns. A GPU without quarters: leaves and whole.
Sharing right_sized(const model::GpuDescription& gpu, std::span<const Worker> workers,
                    const Plan& plan, Mechanism mechanism) {
  const std::uint32_t cus = gpu.geometry.cu_count();
  Sharing sharing{.mechanism = mechanism};
  sharing.pool = planner::tree_masks(cus, gpu.geometry.shader_engines);
  if (sharing.pool.empty()) {
    sharing.pool.push_back(CuMask::full(cus));
    for (const std::uint32_t home : plan.pool.home)
      if (sharing.pool.size() < planner::stream_budget)
        sharing.pool.push_back(plan.pool.streams[home].mask);
  }
  for (std::size_t w = 0; w < workers.size(); ++w) {
    // Of streams of one size, the worker's: in turn around the GPU.
    std::vector<std::uint32_t> own;
    for (std::uint32_t first = 0; first < sharing.pool.size();) {
      std::uint32_t end = first + 1;
      while (end < sharing.pool.size() && sharing.pool[end].count() == sharing.pool[first].count())
        ++end;
      own.push_back(first + static_cast<std::uint32_t>(w * (end - first) / workers.size()));
      first = end;
    }
    std::stable_sort(own.begin(), own.end(), [&](std::uint32_t a, std::uint32_t b) {
      return sharing.pool[a].count() < sharing.pool[b].count();
    });
    auto& streams = sharing.stream_of_kernel.emplace_back();
    for (const auto& kernel : workers[w].kernels) {
      const double limit_us = kernel->time_on_mask_us(cus) * (1 + right_size_slack);
      const auto fits = std::find_if(own.begin(), own.end(), [&](std::uint32_t stream) {
        return kernel->time_on_mask_us(sharing.pool[stream].count()) <= limit_us;
      });
      streams.push_back(fits == own.end() ? own.back() : *fits);
    }
  }
  return sharing;
}

}  // namespace

const char* name_of(Policy policy) {
  switch (policy) {
    case Policy::unmasked:
      return "unmasked";
    case Policy::model_wise:
      return "model-wise";
    case Policy::mask_ioctl:
      return "mask-ioctl";
    case Policy::switching:
      return "switching";
    case Policy::eclip_static:
      return "eclip-static";
    case Policy::eclip:
      return "eclip";
    case Policy::own_gpu:
      return "own-gpu";
  }
  return "";
}

std::optional<Policy> policy_of(std::string_view name) {
  for (const Policy policy : all_policies)
    if (name == name_of(policy)) return policy;
  return std::nullopt;
}

Result<Plan> plan_for(const model::GpuDescription& gpu, std::span<const Worker> workers,
                      planner::Objective objective, double group_us) {
  planner::PlannerOptions options;
  options.group_us = group_us;
  options.search.objective = objective;
  options.judge_by_simulation = true;
  options.keep_up = true;
  options.simulation.requests = judged_requests;
  for (const Worker& worker : workers)
    options.group_us =
        std::max(options.group_us, planner::service_us(worker, gpu.geometry.cu_count()) /
                                       (PlanTable::max_groups - 1));
  auto plan = planner::make_plan(gpu, workers, options);
  if (!plan || workers[0].requests_per_s == 0) return plan;
  // A worker has requests for more of the time than its rate and its time alone say. So leaves may
  // have to be as if all were always active.
  const std::vector<double> always(workers.size(), 1);
  const planner::Pool leaves = planner::pool_of_leaves(
      gpu, "always", planner::sized_leaves(gpu, workers, always), workers, plan->activity);
  options.pool = masks_of(leaves);
  options.judge_by_simulation = false;
  auto other = planner::make_plan(gpu, workers, options);
  if (!other) return other;
  const planner::OpenLoopChoiceOptions choice{.objective = objective};
  const auto value = planner::open_loop_value(gpu, workers, *plan, choice.loop);
  if (!value) return tl::unexpected(value.error());
  const auto value_of_other = planner::open_loop_value(gpu, workers, *other, choice.loop);
  if (!value_of_other) return tl::unexpected(value_of_other.error());
  return planner::choose_rows(gpu, workers, std::move(*value <= *value_of_other ? *plan : *other),
                              choice);
}

Sharing sharing_of(Policy policy, const model::GpuDescription& gpu, std::span<const Worker> workers,
                   const Plan& plan) {
  switch (policy) {
    case Policy::unmasked:
    case Policy::own_gpu:
      return unmasked(workers, plan);
    case Policy::model_wise:
      return model_wise(gpu, workers, plan);
    case Policy::mask_ioctl:
      return right_sized(gpu, workers, plan, Mechanism::mask_ioctl);
    case Policy::switching:
      return right_sized(gpu, workers, plan, Mechanism::kernelwise);
    case Policy::eclip_static:
      return planned(workers, plan, false);
    case Policy::eclip:
      return planned(workers, plan, true);
  }
  return {};
}

}  // namespace eclip::bench
