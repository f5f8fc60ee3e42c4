// Compute units grouped by which CU masks in use contain them, so that sharing them out costs the
// number of different overlaps, not the number of CUs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ipc/cu_mask.h"

namespace eclip::model {

/// The masks of live queues and running kernels, and the partition of the CUs that they make: two
/// CUs are in one group when exactly the same masks contain them. CUs in no mask are in no group.
class CuGroups {
 public:
  /// Names a mask in use; valid until released as often as it was acquired.
  using MaskSlot = std::uint32_t;

  /// Equal masks share a slot.
  MaskSlot acquire(const CuMask& mask);
  /// One more user of a slot in use.
  void acquire(MaskSlot slot) { ++slots_[slot].users; }
  void release(MaskSlot slot);

  /// CUs in the mask.
  [[nodiscard]] std::uint32_t cus_in(MaskSlot slot) const { return slots_[slot].cus; }
  /// Indices of the groups that make up the mask.
  [[nodiscard]] std::span<const std::uint32_t> groups_of(MaskSlot slot) const {
    return slots_[slot].groups;
  }
  /// Changes when the groups do.
  [[nodiscard]] std::uint64_t partition_number() const { return partition_number_; }
  /// CUs in each group.
  [[nodiscard]] std::span<const double> group_sizes() const { return group_sizes_; }

 private:
  struct Slot {
    CuMask mask;
    std::uint32_t cus;
    std::uint32_t users;
    std::vector<std::uint32_t> groups;
  };
  void partition();

  std::vector<Slot> slots_;
  std::vector<double> group_sizes_;
  std::uint64_t partition_number_ = 0;
};

}  // namespace eclip::model
