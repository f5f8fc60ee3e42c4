#include "daemon/planner/cost_tables.h"

#include <algorithm>
#include <cmath>

#include "daemon/model/occupancy.h"

namespace eclip::planner {
namespace {

KernelCost cost_on(const model::Kernel& kernel, std::uint32_t cus,
                   const model::GpuDescription& gpu) {
  const model::Occupancy occupancy = model::occupancy_of(kernel, cus, gpu);
  // Below one wave there is one phase only.
  const bool one_phase = occupancy.last_work == 1;
  const double level = std::ceil(occupancy.slots * slot_levels) - 1;
  return {.alone_us = occupancy.full_us,
          .full_us = occupancy.full_us * (one_phase ? 1 : 1 - occupancy.last_work),
          .slots = occupancy.slots,
          .last_slots = occupancy.last_slots,
          .load = occupancy.load,
          .memory = occupancy.memory,
          .level = static_cast<std::uint32_t>(std::clamp(level, 0.0, slot_levels - 1.0))};
}

/// A kernel's times on numbers of CUs, each computed once.
class Times {
 public:
  explicit Times(const model::Kernel& kernel) : kernel_(kernel) {}
  double on(std::uint32_t cus) {
    if (cus == 0) return CostTables::never_us;
    if (known_.size() <= cus) known_.resize(cus + 1, 0);
    if (known_[cus] == 0) known_[cus] = kernel_.time_on_mask_us(cus);
    return known_[cus];
  }

 private:
  const model::Kernel& kernel_;
  std::vector<double> known_;
};

}  // namespace

CostTables::CostTables(const model::GpuDescription& gpu, std::span<const Worker> workers,
                       std::span<const CuMask> streams) {
  const std::size_t count = streams.size();
  std::vector<std::uint32_t> sizes(count);
  std::vector<std::uint32_t> shared(count * count);
  overlap_.resize(count * count);
  for (std::size_t s = 0; s < count; ++s) {
    sizes[s] = streams[s].count();
    cus_.push_back(sizes[s]);
    for (std::size_t other = 0; other < count; ++other) {
      shared[s * count + other] = streams[s].overlap(streams[other]);
      overlap_[s * count + other] = shared[s * count + other] / cus_[s];
    }
  }
  costs_.resize(workers.size());
  beside_us_.resize(workers.size());
  for (std::size_t w = 0; w < workers.size(); ++w) {
    const std::size_t kernels = workers[w].kernels.size();
    costs_[w].assign(count, std::vector<KernelCost>(kernels));
    beside_us_[w].assign(count * count, std::vector<double>(kernels));
    for (std::size_t k = 0; k < kernels; ++k) {
      const model::Kernel& kernel = *workers[w].kernels[k];
      Times times(kernel);
      for (std::size_t s = 0; s < count; ++s) {
        costs_[w][s][k] = cost_on(kernel, sizes[s], gpu);
        for (std::size_t other = 0; other < count; ++other)
          beside_us_[w][s * count + other][k] = times.on(sizes[s] - shared[s * count + other]);
      }
    }
  }
}

}  // namespace eclip::planner
