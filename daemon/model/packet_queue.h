// A queue as its packet processor sees it: packets in order, and what holds the first one back.
#pragma once

#include <algorithm>
#include <deque>
#include <optional>

#include "daemon/model/cu_groups.h"
#include "daemon/model/device.h"

namespace eclip::model {

/// What the packet processor needs to know besides the queue and the time.
struct PacketTiming {
  DeviceTime launch_gap;  ///< after a kernel, before the next that depends on it by barrier bit
  DeviceTime barrier;     ///< processing of a barrier packet once its dependencies hold
};

/// One queue's packets and the state of the first. Pure bookkeeping: running kernels are
/// ComputeUnits', callbacks are the Device's.
class PacketQueue {
 public:
  enum class Step {
    stay,              ///< nothing happens until ready_at(), a completion or a signal
    barrier_started,   ///< the first packet, a barrier packet, begins to be processed
    barrier_progress,  ///< its dependencies hold: ready_at() says when it is complete
    barrier_complete,  ///< take() it
    launch,            ///< the first packet is a dispatch that may go to the CUs: take() it
  };

  PacketQueue(QueueId queue_id, CuGroups::MaskSlot queue_mask) : id(queue_id), mask(queue_mask) {}

  void append(Packet packet, std::uint64_t order) {
    if (packets_.empty()) first_order_ = order;
    packets_.push_back({std::move(packet), order});
  }
  [[nodiscard]] bool empty() const { return packets_.empty(); }
  /// The first packet is the only one that waits.
  [[nodiscard]] bool has_one() const { return packets_.size() == 1; }
  /// The first packet is a barrier packet in processing whose dependencies do not hold yet.
  [[nodiscard]] bool waits_for_signals() const { return barrier_seen_ && !barrier_holds_; }
  /// No packet waits or runs.
  [[nodiscard]] bool is_idle() const { return packets_.empty() && in_flight_ == 0; }
  [[nodiscard]] const Packet& first() const { return packets_.front().packet; }
  /// Where the first packet stands among those of all queues of its connection.
  [[nodiscard]] std::uint64_t first_order() const { return std::max(first_order_, order_floor_); }
  /// Packets that came before `order` go first.
  void yield_turn(std::uint64_t order) { order_floor_ = order; }
  /// When the first packet began to be processed; for barrier packets.
  [[nodiscard]] DeviceTime first_started() const { return first_started_; }

  /// Looks at the first packet and says what the caller has to do now.
  Step step(DeviceTime now, const PacketTiming& timing, Host& host);
  /// Removes the first packet.
  Packet take();
  /// When the first packet goes on by itself; nullopt when it waits for something else.
  [[nodiscard]] std::optional<DeviceTime> ready_at() const { return ready_at_; }

  void kernel_launched();
  void kernel_started() { starting_ = false; }
  void kernel_completed(DeviceTime at, const PacketTiming& timing);

  const QueueId id;
  CuGroups::MaskSlot mask;
  std::optional<std::uint32_t> connection;  ///< Connections'; none while idle

 private:
  struct Entry {
    Packet packet;
    std::uint64_t order;
  };
  bool dependencies_hold(Host& host);

  std::deque<Entry> packets_;
  std::uint64_t first_order_ = 0;  // of the first packet; a connection compares it often
  std::uint64_t order_floor_ = 0;
  std::optional<DeviceTime> ready_at_;
  std::optional<DeviceTime> gap_until_;  // after the last kernel, for the next dependent dispatch
  DeviceTime first_started_{};
  DeviceTime first_done_{};  // of a barrier packet whose dependencies hold
  std::uint32_t in_flight_ = 0;
  bool starting_ = false;       // the last dispatch has no CUs yet
  bool barrier_seen_ = false;   // the first packet is a barrier packet in processing
  bool barrier_holds_ = false;  // its dependencies hold
};

}  // namespace eclip::model
