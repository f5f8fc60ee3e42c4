#include "ipc/plan_table.h"

#include <algorithm>
#include <cassert>

namespace eclip {
namespace {

// Words are stored with release after `epoch` became 0, and loaded with acquire before it is looked
// at again: whoever has read a new word sees that the epoch is no longer the old one.
constexpr auto acquire = std::memory_order_acquire;
constexpr auto release = std::memory_order_release;

}  // namespace

void write_plan(PlanTables& tables, std::uint64_t epoch, const WorkerPlan& plan) {
  assert(epoch != 0 && !plan.first_kernel.empty());
  assert(plan.first_kernel.size() <= PlanTable::max_groups);
  PlanTable& table = tables[epoch % tables.size()];
  table.epoch.store(0, std::memory_order_relaxed);
  table.seat.store(plan.seat, release);
  table.workers.store(plan.workers, release);
  table.group_count.store(static_cast<std::uint32_t>(plan.first_kernel.size()), release);
  table.kernel_count.store(plan.kernel_count, release);
  for (std::size_t g = 0; g < plan.first_kernel.size(); ++g) {
    table.first_kernel[g].store(plan.first_kernel[g], release);
    table.shapes[g].store(g < plan.shapes.size() ? plan.shapes[g] : 0, release);
  }
  for (std::size_t set = 0; set < table.stream.size(); ++set) {
    for (std::size_t g = 0; g < plan.first_kernel.size(); ++g)
      table.stream[set][g].store(set < plan.stream.size() && g < plan.stream[set].size()
                                     ? plan.stream[set][g]
                                     : PlanTable::not_planned,
                                 release);
    table.slowdown[set].store(set < plan.slowdown.size() ? plan.slowdown[set] : 0, release);
  }
  for (std::size_t s = 0; s < table.alone_us.size(); ++s)
    for (std::size_t g = 0; g < plan.first_kernel.size(); ++g)
      table.alone_us[s][g].store(
          s < plan.alone_us.size() && g < plan.alone_us[s].size() ? plan.alone_us[s][g] : 0,
          release);
  table.epoch.store(epoch, release);
}

std::uint32_t PlanReader::Groups::of(std::uint32_t kernel) const {
  const auto* end = first_kernel.data() + count;
  return static_cast<std::uint32_t>(std::upper_bound(first_kernel.data(), end, kernel) -
                                    first_kernel.data() - 1);
}

std::optional<PlanReader::Groups> PlanReader::groups(std::uint64_t epoch) const {
  const PlanTable& table = (*tables_)[epoch % tables_->size()];
  if (epoch == 0 || table.epoch.load(acquire) != epoch) return std::nullopt;
  std::optional<Groups> groups(std::in_place);
  groups->epoch = epoch;
  groups->seat = table.seat.load(acquire) % PlanTable::max_workers;
  groups->workers = table.workers.load(acquire);
  groups->kernel_count = table.kernel_count.load(acquire);
  groups->count = std::min(table.group_count.load(acquire), PlanTable::max_groups);
  for (std::uint32_t g = 0; g < groups->count; ++g) {
    groups->first_kernel[g] = table.first_kernel[g].load(acquire);
    groups->shapes[g] = table.shapes[g].load(acquire);
  }
  if (groups->count == 0 || table.epoch.load(acquire) != epoch) return std::nullopt;
  return groups;
}

std::optional<std::uint8_t> PlanReader::stream(std::uint64_t epoch, std::uint32_t active,
                                               std::uint32_t group) const {
  const PlanTable& table = (*tables_)[epoch % tables_->size()];
  if (active >= table.stream.size() || group >= PlanTable::max_groups) return std::nullopt;
  if (epoch == 0 || table.epoch.load(acquire) != epoch) return std::nullopt;
  if (group >= table.group_count.load(acquire)) return std::nullopt;
  const std::uint8_t stream = table.stream[active][group].load(acquire);
  if (table.epoch.load(acquire) != epoch || stream == PlanTable::not_planned) return std::nullopt;
  return stream;
}

double PlanReader::predicted_us(std::uint64_t epoch, std::uint32_t active, std::uint32_t group,
                                std::uint8_t stream) const {
  const PlanTable& table = (*tables_)[epoch % tables_->size()];
  const std::size_t row = stream == PlanTable::no_mask ? table.alone_us.size() - 1 : stream;
  if (active >= table.slowdown.size() || group >= PlanTable::max_groups ||
      row >= table.alone_us.size() || epoch == 0 || table.epoch.load(acquire) != epoch)
    return 0;
  const double predicted = double{table.alone_us[row][group].load(acquire)} *
                           double{table.slowdown[active].load(acquire)};
  return table.epoch.load(acquire) == epoch ? predicted : 0;
}

}  // namespace eclip
