#include "daemon/planner/cost_tables.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "daemon/model/occupancy.h"

namespace eclip::planner {
namespace {

std::size_t level_of(double slots) {
  const double level = std::ceil(slots * slot_levels - 1e-9) - 1;
  return static_cast<std::size_t>(std::clamp(level, 0.0, slot_levels - 1.0));
}

KernelCost cost_on(const model::Kernel& kernel, std::uint32_t cus,
                   const model::GpuDescription& gpu) {
  const model::Occupancy occupancy = model::occupancy_of(kernel, cus, gpu);
  // Below one wave there is one phase only.
  const double full_share = occupancy.last_work == 1 ? 1 : 1 - occupancy.last_work;
  return {.alone_us = occupancy.full_us,
          .full_us = occupancy.full_us * full_share,
          .slots = occupancy.slots,
          .last_slots = occupancy.last_slots,
          .load = occupancy.load,
          .memory = occupancy.memory,
          .level = level_of(occupancy.slots)};
}

void add(KernelCost& sum, const KernelCost& cost, double weight) {
  sum.alone_us += weight * cost.alone_us;
  sum.full_us += weight * cost.full_us;
  sum.slots += weight * cost.slots;
  sum.last_slots += weight * cost.last_slots;
  sum.load += weight * cost.load;
  sum.memory += weight * cost.memory;
}

/// What makes kernels alike: times on the whole GPU and on a quarter of it by steps of a third of
/// an octave, slots, and the kernel before by steps of an octave.
using Kind = std::tuple<long, long, std::size_t, long>;

Kind kind_of(const model::Kernel& kernel, const model::Kernel& before,
             const model::GpuDescription& gpu) {
  const std::uint32_t cus = gpu.geometry.cu_count();
  const double whole_us = kernel.time_on_mask_us(cus);
  const double quarter_us = kernel.time_on_mask_us(std::max(cus / 4, 1U));
  return {std::lround(2 * std::log2(whole_us)), std::lround(std::log2(quarter_us / whole_us)),
          cost_on(kernel, cus, gpu).level / 4,
          std::lround(std::log2(before.time_on_mask_us(cus)) / 2)};
}

std::vector<std::uint32_t> classes_of(const model::GpuDescription& gpu, const Worker& worker,
                                      Resolution resolution) {
  std::vector<std::uint32_t> classes{0};
  std::map<Kind, std::uint32_t> found;
  for (std::uint32_t k = 1; k < worker.kernels.size(); ++k) {
    const auto next = static_cast<std::uint32_t>(found.size() + 1);
    classes.push_back(
        resolution == Resolution::kernels
            ? k
            : found.try_emplace(kind_of(*worker.kernels[k], *worker.kernels[k - 1], gpu), next)
                  .first->second);
  }
  return classes;
}

/// Where `value` is in `values`, to which it is added when it is new.
std::size_t index_in(std::vector<std::uint32_t>& values, std::uint32_t value) {
  const auto found = std::find(values.begin(), values.end(), value);
  const auto index = static_cast<std::size_t>(found - values.begin());
  if (found == values.end()) values.push_back(value);
  return index;
}

}  // namespace

CostTables::WorkerTables CostTables::tables_of(const model::GpuDescription& gpu,
                                               const Worker& worker,
                                               std::span<const std::uint32_t> sizes,
                                               std::span<const std::uint32_t> besides,
                                               Resolution resolution) {
  WorkerTables tables{.weight = worker.weight,
                      .latency_bound_us = worker.latency_bound_us,
                      .class_of_kernel = classes_of(gpu, worker, resolution)};
  const auto& classes = tables.class_of_kernel;
  const std::size_t count = *std::max_element(classes.begin(), classes.end()) + 1;
  tables.members.assign(count, 0);
  for (const std::uint32_t c : classes) ++tables.members[c];
  const auto weight = [&](std::size_t k) { return 1.0 / tables.members[classes[k]]; };
  for (const std::uint32_t size : sizes) {
    OnSize& on = tables.on_size.emplace_back(
        OnSize{std::vector<KernelCost>(count), std::vector<Predecessor>(count)});
    KernelCost before;
    for (std::size_t k = 0; k < classes.size(); ++k) {
      const KernelCost cost = cost_on(*worker.kernels[k], size, gpu);
      add(on.costs[classes[k]], cost, weight(k));
      if (k > 0) {
        on.before[classes[k]].alone_us += weight(k) * before.alone_us;
        on.before[classes[k]].held += weight(k) * before.held_us() / before.alone_us;
      }
      before = cost;
    }
    for (KernelCost& cost : on.costs) cost.level = level_of(cost.slots);
  }
  for (const std::uint32_t cus : besides) {
    std::vector<double>& times = tables.beside_us.emplace_back(count, cus == 0 ? never_us : 0.0);
    for (std::size_t k = 0; cus > 0 && k < classes.size(); ++k)
      times[classes[k]] += weight(k) * worker.kernels[k]->time_on_mask_us(cus);
  }
  return tables;
}

void CostTables::measure(std::span<const CuMask> streams) {
  for (const CuMask& stream : streams) {
    const std::uint32_t size = stream.count();
    cus_.push_back(size);
    size_index_.push_back(index_in(sizes_, size));
    for (const CuMask& other : streams) {
      const std::uint32_t shared = stream.overlap(other);
      overlap_.push_back(static_cast<double>(shared) / size);
      beside_index_.push_back(index_in(besides_, size - shared));
    }
  }
}

CostTables::CostTables(const model::GpuDescription& gpu, std::span<const Worker> workers,
                       std::span<const CuMask> streams, Resolution resolution) {
  measure(streams);
  for (const Worker& worker : workers)
    workers_.push_back(
        std::make_shared<const WorkerTables>(tables_of(gpu, worker, sizes_, besides_, resolution)));
}

CostTables::CostTables(const model::GpuDescription& gpu, std::span<const Worker> workers,
                       std::span<const CuMask> streams, Resolution resolution,
                       const CostTables& earlier,
                       std::span<const std::optional<std::size_t>> numbers) {
  measure(streams);
  for (std::size_t w = 0; w < workers.size(); ++w)
    workers_.push_back(numbers[w] ? earlier.workers_[*numbers[w]]
                                  : std::make_shared<const WorkerTables>(
                                        tables_of(gpu, workers[w], sizes_, besides_, resolution)));
}

}  // namespace eclip::planner
