// A kernel on the compute units.
#pragma once

#include <cstdint>
#include <vector>

#include "daemon/model/cu_groups.h"
#include "daemon/model/device.h"
#include "daemon/model/occupancy.h"

namespace eclip::model {

class PacketQueue;

/// A dispatch that has gone to the CUs and is not complete. Every event looks at a few fields of
/// each kernel that runs: they come first and share a cache line.
struct alignas(64) Residency {
  DeviceTime phase_end = never;
  double remaining = 1;  ///< work left in this phase at `updated`, of 1 for the whole kernel
  double rate = 0;       ///< work per nanosecond since `updated`
  DeviceTime updated{};
  double contention = 0;  ///< others' share of the bandwidth, as its rate has it
  double alone_us = 0;    ///< its time on its CUs without memory contention
  double bandwidth = 0;   ///< its share of the memory bandwidth
  double busy_cus = 0;    ///< CUs that it keeps busy, for the power

  std::uint64_t arrival = 0;  ///< its number in order of arrival
  CuGroups::MaskSlot mask = 0;
  bool started = false;      ///< it has held a CU
  bool last_wave = false;    ///< it is in its second phase
  bool touched = false;      ///< its CUs or the load on them change in this share_out
  double effective_cus = 0;  ///< CUs that it has, as if it had them alone: the sum of `held`
  std::vector<double> held;  ///< of each group of its mask in turn, the CUs that it has
  double timed_cus = -1;     ///< where time_us was last looked up
  double time_us = 0;        ///< its time on so many CUs
  Occupancy occupancy{};
  DeviceTime start{};  ///< when it first held a CU

  QueueId queue;
  PacketQueue* owner = nullptr;  ///< the queue of that id
  Packet packet;

  /// The share of each CU's slots that it wants in this phase.
  [[nodiscard]] double slots() const { return last_wave ? occupancy.last_slots : occupancy.slots; }
};

}  // namespace eclip::model
