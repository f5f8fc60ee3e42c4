#include "daemon/model/ready_queues.h"

#include <algorithm>

namespace eclip::model {
namespace {

constexpr auto created_before = [](const PacketQueue* queue, QueueId id) { return queue->id < id; };

}  // namespace

void ReadyQueues::wake(PacketQueue& queue) {
  const auto place = std::lower_bound(woken_.begin(), woken_.end(), queue.id, created_before);
  if (place == woken_.end() || *place != &queue) woken_.insert(place, &queue);
}

void ReadyQueues::wake_due(DeviceTime now) {
  while (!timers_.empty() && timers_.front().at <= now) {
    wake(*timers_.front().queue);
    pop_timer();
  }
}

void ReadyQueues::wake_at(PacketQueue& queue, DeviceTime at) {
  timers_.push_back({at, &queue});
  std::push_heap(timers_.begin(), timers_.end());
}

void ReadyQueues::sleep(const PacketQueue& queue) {
  const auto place = std::lower_bound(woken_.begin(), woken_.end(), queue.id, created_before);
  if (place != woken_.end() && *place == &queue) woken_.erase(place);
}

void ReadyQueues::forget(const PacketQueue& queue) {
  sleep(queue);
  std::erase_if(timers_, [&queue](const Timer& timer) { return timer.queue == &queue; });
  std::make_heap(timers_.begin(), timers_.end());
}

void ReadyQueues::drop_stale() {
  while (!timers_.empty() && timers_.front().queue->ready_at() != timers_.front().at) pop_timer();
}

PacketQueue* ReadyQueues::next_after(QueueId id) const {
  const auto next =
      std::upper_bound(woken_.begin(), woken_.end(), id,
                       [](QueueId wanted, const PacketQueue* queue) { return wanted < queue->id; });
  return next == woken_.end() ? nullptr : *next;
}

void ReadyQueues::pop_timer() {
  std::pop_heap(timers_.begin(), timers_.end());
  timers_.pop_back();
}

}  // namespace eclip::model
