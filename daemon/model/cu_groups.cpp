#include "daemon/model/cu_groups.h"

#include <algorithm>
#include <map>

namespace eclip::model {

CuGroups::MaskSlot CuGroups::acquire(const CuMask& mask) {
  const auto same = std::find_if(slots_.begin(), slots_.end(), [&mask](const Slot& slot) {
    return slot.users > 0 && slot.mask == mask;
  });
  if (same != slots_.end()) {
    ++same->users;
    return static_cast<MaskSlot>(same - slots_.begin());
  }
  auto slot = std::find_if(slots_.begin(), slots_.end(),
                           [](const Slot& candidate) { return candidate.users == 0; });
  if (slot == slots_.end()) slot = slots_.insert(slots_.end(), Slot{CuMask(mask.size()), 0, 0, {}});
  *slot = Slot{mask, mask.count(), 1, {}};
  partition();
  return static_cast<MaskSlot>(slot - slots_.begin());
}

void CuGroups::release(MaskSlot slot) {
  // The partition may stay finer than needed until the next mask comes; its sums are the same.
  --slots_[slot].users;
}

void CuGroups::partition() {
  ++partition_number_;
  group_sizes_.clear();
  std::uint32_t cu_count = 0;
  for (Slot& slot : slots_) {
    slot.groups.clear();
    if (slot.users > 0) cu_count = std::max(cu_count, slot.mask.size());
  }
  std::map<std::vector<MaskSlot>, std::uint32_t> group_of_members;
  std::vector<MaskSlot> members;
  for (std::uint32_t cu = 0; cu < cu_count; ++cu) {
    members.clear();
    for (MaskSlot slot = 0; slot < slots_.size(); ++slot)
      if (slots_[slot].users > 0 && slots_[slot].mask.contains(cu)) members.push_back(slot);
    if (members.empty()) continue;
    const auto next = static_cast<std::uint32_t>(group_sizes_.size());
    const auto [group, is_new] = group_of_members.try_emplace(members, next);
    if (is_new) {
      group_sizes_.push_back(0);
      for (const MaskSlot slot : members) slots_[slot].groups.push_back(next);
    }
    group_sizes_[group->second] += 1;
  }
}

}  // namespace eclip::model
