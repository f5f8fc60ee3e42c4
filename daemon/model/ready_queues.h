// Which queues a packet processor has to look at, so that an event does not cost all of them.
#pragma once

#include <vector>

#include "daemon/model/packet_queue.h"

namespace eclip::model {

/// Queues that may be able to go on, in order of creation, and the times at which others will be.
class ReadyQueues {
 public:
  /// Something that the queue may wait for has happened.
  void wake(PacketQueue& queue);
  /// Wakes the queues whose time has come.
  void wake_due(DeviceTime now);
  /// The queue goes on by itself at this time, unless its ready_at() changes.
  void wake_at(PacketQueue& queue, DeviceTime at);
  /// The queue cannot go on until it is woken.
  void sleep(const PacketQueue& queue);
  /// The queue is destroyed.
  void forget(const PacketQueue& queue);
  /// Drops times that no longer hold; before next_time().
  void drop_stale();

  /// The first woken queue created after the one with this id; null if there is none.
  [[nodiscard]] PacketQueue* next_after(QueueId id) const;
  /// When the next queue goes on by itself.
  [[nodiscard]] DeviceTime next_time() const {
    return timers_.empty() ? never : timers_.front().at;
  }

 private:
  struct Timer {
    DeviceTime at;
    PacketQueue* queue;
    bool operator<(const Timer& other) const { return at > other.at; }  // earliest on top
  };
  void pop_timer();

  std::vector<PacketQueue*> woken_;  // in order of id
  std::vector<Timer> timers_;        // a heap
};

}  // namespace eclip::model
