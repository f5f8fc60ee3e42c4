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
  table.worker.store(plan.worker, release);
  table.group_count.store(static_cast<std::uint32_t>(plan.first_kernel.size()), release);
  for (std::size_t g = 0; g < plan.first_kernel.size(); ++g)
    table.first_kernel[g].store(plan.first_kernel[g], release);
  for (std::size_t set = 0; set < table.stream.size(); ++set)
    for (std::size_t g = 0; g < plan.first_kernel.size(); ++g)
      table.stream[set][g].store(set < plan.stream.size() && g < plan.stream[set].size()
                                     ? plan.stream[set][g]
                                     : PlanTable::not_planned,
                                 release);
  table.epoch.store(epoch, release);
}

std::optional<PlanReader::Groups> PlanReader::groups(std::uint64_t epoch) const {
  const PlanTable& table = (*tables_)[epoch % tables_->size()];
  if (epoch == 0 || table.epoch.load(acquire) != epoch) return std::nullopt;
  Groups groups{.worker = table.worker.load(acquire), .first_kernel = {}};
  const std::uint32_t count = std::min(table.group_count.load(acquire), PlanTable::max_groups);
  for (std::uint32_t g = 0; g < count; ++g)
    groups.first_kernel.push_back(table.first_kernel[g].load(acquire));
  if (table.epoch.load(acquire) != epoch) return std::nullopt;
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

}  // namespace eclip
