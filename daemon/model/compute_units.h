// The compute units and the kernels on them: who gets how much of which CU, and how fast that makes
// each kernel.
#pragma once

#include <cstdint>
#include <memory>
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
  Occupancy occupancy{};
  bool started = false;    ///< it has held a CU
  bool last_wave = false;  ///< it is in its second phase
  DeviceTime start{};      ///< when it first held a CU

  std::vector<double> held;  ///< of each group of its mask in turn, the CUs that it has
  double effective_cus = 0;  ///< their sum: CUs that it has, as if it had them alone
  double timed_cus = -1;     ///< where time_us was last looked up
  double time_us = 0;        ///< its time on so many CUs
  double alone_us = 0;       ///< its time on them without memory contention

  double remaining = 1;  ///< work left in this phase at `updated`, of 1 for the whole kernel
  double rate = 0;       ///< work per nanosecond since `updated`
  DeviceTime updated{};

  /// The share of each CU's slots that it wants in this phase.
  [[nodiscard]] double slots() const { return last_wave ? occupancy.last_slots : occupancy.slots; }
};

/// Kernels in order of arrival; each takes what earlier ones leave on every CU group of its mask.
/// Rates are constant from one share_out to the next. An event costs the kernels on the CU groups
/// that it touches, and a few operations for each other kernel: they share the memory.
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
  void pass_to(DeviceTime now, std::vector<std::unique_ptr<Residency>>& completed);
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
  /// What every event looks at, of every kernel: small, to be read in one go.
  struct Entry {
    std::unique_ptr<Residency> kernel;
    CuGroups::MaskSlot mask = 0;
    bool fresh = true;      ///< new or in a new phase since CUs were last shared out
    double bandwidth = 0;   ///< its share of the memory bandwidth
    double busy_cus = 0;    ///< CUs that it keeps busy, for the power
    double contention = 0;  ///< others' share of the bandwidth, as its rate has it
    DeviceTime phase_end = DeviceTime::max();
  };
  enum class Change : std::uint8_t { none, load, slots };
  struct Group {
    double free;     ///< slots that no kernel holds
    double load;     ///< on its throughput
    Change changed;  ///< since CUs were last shared out
    /// Gives a kernel the part of `slots` that is free.
    double take(double slots, double kernel_load) {
      const double part = free >= slots ? 1 : free / slots;
      free -= part * slots;
      load += part * kernel_load;
      return part;
    }
  };

  void place(Entry& entry);
  void slots_changed(CuGroups::MaskSlot mask);
  /// Follows a new partition of the CUs into groups.
  void follow_groups();
  /// Lets the last kernel in order take what is free; nobody else's slots change.
  void take_free(Entry& entry);
  /// Takes slots of the groups where they are dealt out anew.
  void take_slots(Entry& entry);
  /// Finds the entries on changed groups and lets them take their slots, in order of arrival.
  void find_touched();
  void sum_up(Entry& entry) const;
  void set_alone_time(Entry& entry) const;
  [[nodiscard]] double time_on(const Entry& entry, double cus) const;
  void set_rate(Entry& entry, DeviceTime now, double rate) const;
  void set_rates(DeviceTime now, double bandwidth);

  const GpuDescription& gpu_;
  CuGroups groups_;
  std::vector<Entry> entries_;
  std::vector<std::unique_ptr<Residency>> spare_;  // to be used again: saves allocations
  OccupancyCache occupancies_;
  std::vector<Group> shares_;    // of each CU group
  std::uint64_t partition_ = 0;  // of groups_, that shares_ follow
  std::vector<Entry*> touched_;  // while sharing out
  DeviceTime next_change_ = DeviceTime::max();
  double watts_ = gpu_.power.idle_watts;
  bool changed_ = false;
};

}  // namespace eclip::model
