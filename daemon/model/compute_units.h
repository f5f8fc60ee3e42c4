// The compute units and the kernels on them: who gets how much of which CU, and how fast that makes
// each kernel.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "daemon/model/cu_groups.h"
#include "daemon/model/device.h"
#include "daemon/model/group_line.h"
#include "daemon/model/occupancy.h"
#include "daemon/model/residency.h"

namespace eclip::model {

/// Kernels in order of arrival; each takes what earlier ones leave on every CU group of its mask.
/// Rates are constant from one share_out to the next. An event costs the kernels that hold CUs of
/// the groups that it touches, and a few operations for each other kernel that runs: they share the
/// memory. Kernels that wait for their first CU cost nothing.
class ComputeUnits {
 public:
  explicit ComputeUnits(const GpuDescription& gpu) : gpu_(gpu), occupancies_(gpu) {}

  CuGroups& groups() { return groups_; }

  /// A dispatch arrives, last in order, with the mask that its queue has now.
  void arrive(QueueId queue, PacketQueue& owner, Packet packet);
  /// Drops the kernels of a queue.
  void drop(QueueId queue);
  /// Kernels of the queue that hold no CU yet move to the new mask.
  void move_waiting(QueueId queue, CuGroups::MaskSlot mask);

  /// Stops all kernels where they are, until share_out() is next called.
  void pause(DeviceTime now);

  /// Lets `now` pass: phases that end by then end, kernels that end are appended to `completed`
  /// in order of arrival; those of the last call go. Never passes more than next_change().
  void pass_to(DeviceTime now, std::vector<Residency*>& completed);
  /// Shares the CUs out anew at `now` if anything has changed, and appends the queues whose kernel
  /// has just got its first CU to `started`.
  void share_out(DeviceTime now, std::vector<Residency*>& started);

  /// When the next phase of a kernel ends.
  [[nodiscard]] DeviceTime next_change() const { return next_change_; }
  [[nodiscard]] double watts() const { return watts_; }

 private:
  /// Prepares the kernel for its mask and puts it in line there.
  void place(Residency& kernel);
  void join_lines(Residency& kernel);
  void leave_lines(const Residency& kernel);
  void slots_changed(const Residency& kernel);
  /// Follows a new partition of the CUs into groups.
  void follow_groups();
  /// Leaves it among the kernels that are no longer there.
  void remove(const Residency& kernel);
  void set_alone_time(Residency& kernel) const;
  [[nodiscard]] double time_on(const Residency& kernel, double cus) const;
  void set_running(Residency& kernel, DeviceTime now);
  void set_rates(DeviceTime now, double bandwidth);

  const GpuDescription& gpu_;
  CuGroups groups_;
  std::uint64_t arrivals_ = 0;
  std::vector<std::unique_ptr<Residency>> memory_;  // of all kernels, past ones too
  std::vector<Residency*> kernels_;                 // in order of arrival
  std::vector<Residency*> running_;                 // those that hold CUs, likewise
  std::vector<Residency*> spare_;                   // to be used again: saves allocations
  OccupancyCache occupancies_;
  std::vector<GroupLine> lines_;        // of each CU group
  std::vector<std::uint32_t> to_deal_;  // groups that have to be dealt out
  std::uint64_t partition_ = 0;         // of groups_, that lines_ follow
  std::vector<Residency*> touched_;     // while sharing out
  DeviceTime next_change_ = never;
  double watts_ = gpu_.power.idle_watts;
  bool changed_ = false;
};

}  // namespace eclip::model
