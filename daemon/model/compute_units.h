// The compute units and the kernels on them: who gets how much of which CU, and how fast that makes
// each kernel.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "daemon/model/cu_groups.h"
#include "daemon/model/device.h"
#include "daemon/model/occupancy.h"

namespace eclip::model {

/// A dispatch that has gone to the CUs and is not complete.
struct Residency {
  QueueId queue;
  Packet packet;
  CuGroups::MaskSlot mask = 0;
  Occupancy occupancy{};
  bool started = false;    ///< it has held a CU
  bool last_wave = false;  ///< it is in its second phase
  DeviceTime start{};      ///< when it first held a CU

  double remaining = 1;  ///< work left in this phase at `updated`, of 1 for the whole kernel
  double effective_cus = 0;
  double rate = 0;  ///< work per nanosecond since `updated`
  DeviceTime updated{};
  DeviceTime phase_end = DeviceTime::max();
};

/// Kernels in order of arrival; each takes what earlier ones leave on every CU group of its mask.
/// Rates are constant from one share_out to the next.
class ComputeUnits {
 public:
  explicit ComputeUnits(const GpuDescription& gpu) : gpu_(gpu) {}

  CuGroups& groups() { return groups_; }

  /// A dispatch arrives, last in order, with the mask that its queue has now.
  void arrive(QueueId queue, Packet packet, CuGroups::MaskSlot mask);
  /// Drops the kernels of a queue.
  void drop(QueueId queue);
  /// Kernels of the queue that hold no CU yet move to the new mask.
  void move_waiting(QueueId queue, CuGroups::MaskSlot mask);

  /// Lets `now` pass: phases that end by then end, kernels that end are appended to `completed`
  /// in order of arrival. Never passes more than next_change().
  void pass_to(DeviceTime now, std::vector<Residency>& completed);
  /// Shares the CUs out anew at `now` if anything has changed, and appends the queues whose kernel
  /// has just got its first CU to `started`.
  void share_out(DeviceTime now, std::vector<Residency*>& started);
  [[nodiscard]] bool changed() const { return changed_; }

  /// When the next phase of a kernel ends; nullopt when no kernel runs.
  [[nodiscard]] std::optional<DeviceTime> next_change() const;
  [[nodiscard]] double watts() const { return watts_; }

 private:
  double take_cus(const Residency& kernel, double& busy_cus);
  void set_rate(Residency& kernel, DeviceTime now, double rate) const;

  const GpuDescription& gpu_;
  CuGroups groups_;
  std::vector<Residency> kernels_;
  std::vector<double> free_;  // of each CU group, while sharing out
  double watts_ = gpu_.power.idle_watts;
  bool changed_ = false;
};

}  // namespace eclip::model
