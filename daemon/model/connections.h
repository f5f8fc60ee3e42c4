// The hardware connections between queues and the packet processors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "daemon/model/packet_queue.h"
#include "daemon/model/ready_queues.h"

namespace eclip::model {

/// A queue with packets is bound to one of a fixed number of connections; an idle queue has none
/// (it is swapped out) and gets the one with the fewest queues with its next packet. A connection
/// looks at the packets of its queues in order of submission, one at a time: a packet that has to
/// wait holds back the other queues of its connection. After `time_slice` without progress the
/// other queues' packets go first, so that a wait for a queue behind it ends.
class Connections {
 public:
  /// `ready` is told of queues whose turn it is; it must outlive this.
  Connections(std::uint32_t count, DeviceTime time_slice, ReadyQueues& ready)
      : time_slice_(time_slice), connections_(count), ready_(ready) {}

  /// The order of the next packet; higher than all before.
  std::uint64_t next_order() { return ++order_; }
  /// Call after a packet was appended.
  void packet_added(PacketQueue& queue, DeviceTime now);
  /// Whether the queue's first packet may be looked at. The queue has packets.
  [[nodiscard]] bool may_go_on(const PacketQueue& queue) const {
    const Connection& connection = connections_[*queue.connection];
    return connection.queues.size() == 1 || connection.first == &queue;
  }
  /// Call after the queue's first packet was taken.
  void packet_taken(PacketQueue& queue, DeviceTime now);
  /// Call after a kernel of the queue is complete.
  void kernel_completed(PacketQueue& queue, DeviceTime now);
  void remove(PacketQueue& queue, DeviceTime now);

  /// The earlier of `other` and of when a shared connection next gives up waiting.
  [[nodiscard]] DeviceTime next_turn_or(DeviceTime other) const {
    return shared_ == 0 || other <= no_turn_before_ ? other
                                                    : std::min(other, next_turn_of_shared());
  }
  /// Passes on the connections whose time slice is over.
  void take_turns(DeviceTime now);

 private:
  struct Connection {
    std::vector<PacketQueue*> queues;
    PacketQueue* first = nullptr;  ///< whose packet is next
    std::size_t waiting = 0;       ///< queues with waiting packets, while it is shared
    DeviceTime waiting_since{};
  };
  [[nodiscard]] DeviceTime next_turn_of_shared() const;
  void find_first(Connection& connection, DeviceTime now);

  DeviceTime time_slice_;
  std::vector<Connection> connections_;
  ReadyQueues& ready_;
  std::uint64_t order_ = 0;
  std::size_t shared_ = 0;             // connections with more than one queue
  DeviceTime no_turn_before_ = never;  // waits only begin anew: not always up to date, never late
};

}  // namespace eclip::model
