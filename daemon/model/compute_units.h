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

class PacketQueue;

/// A dispatch that has gone to the CUs and is not complete.
struct Residency {
  QueueId queue;
  PacketQueue* owner = nullptr;  ///< the queue of that id
  Packet packet;
  CuGroups::MaskSlot mask = 0;
  Occupancy occupancy{};
  bool started = false;    ///< it has held a CU
  bool last_wave = false;  ///< it is in its second phase
  DeviceTime start{};      ///< when it first held a CU

  double effective_cus = 0;  ///< CUs that it has, as if it had them alone
  double timed_cus = -1;     ///< where time_us was last looked up
  double time_us = 0;        ///< its time on so many CUs
  double alone_us = 0;       ///< its time on them without memory contention
  double speed = 0;          ///< full_us / alone_us

  double remaining = 1;  ///< work left in this phase at `updated`, of 1 for the whole kernel
  double rate = 0;       ///< work per nanosecond since `updated`
  DeviceTime updated{};
  DeviceTime phase_end = DeviceTime::max();
};

/// Kernels in order of arrival; each takes what earlier ones leave on every CU group of its mask.
/// Rates are constant from one share_out to the next.
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
  /// in order of arrival. Never passes more than next_change().
  void pass_to(DeviceTime now, std::vector<Residency>& completed);
  /// Shares the CUs out anew at `now` if anything has changed, and appends the queues whose kernel
  /// has just got its first CU to `started`.
  void share_out(DeviceTime now, std::vector<Residency*>& started);
  [[nodiscard]] bool changed() const { return changed_; }

  /// When the next phase of a kernel ends; nullopt when no kernel runs.
  [[nodiscard]] std::optional<DeviceTime> next_change() const {
    if (next_change_ == DeviceTime::max()) return std::nullopt;
    return next_change_;
  }
  [[nodiscard]] double watts() const { return watts_; }

 private:
  void place(Residency& kernel);
  void take_slots(Residency& kernel);
  void set_alone_time(Residency& kernel, const double* held) const;
  [[nodiscard]] double time_on(const Residency& kernel, double cus) const;
  void set_rate(Residency& kernel, DeviceTime now, double rate) const;
  void update_power(double bandwidth);

  const GpuDescription& gpu_;
  CuGroups groups_;
  std::vector<Residency> kernels_;
  OccupancyCache occupancies_;
  // While sharing out: of each CU group, the free slots and the load on its throughput; of each
  // kernel and group of its mask in turn, the CUs that it holds.
  std::vector<double> free_;
  std::vector<double> load_;
  std::vector<double> held_;
  DeviceTime next_change_ = DeviceTime::max();
  double watts_ = gpu_.power.idle_watts;
  bool changed_ = false;
};

}  // namespace eclip::model
