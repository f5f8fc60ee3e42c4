#include "daemon/model/connections.h"

namespace eclip::model {

void Connections::packet_added(PacketQueue& queue, DeviceTime now) {
  if (queue.connection) {
    Connection& connection = connections_[*queue.connection];
    if (connection.first == nullptr)
      find_first(connection, now);
    else if (queue.has_one())
      ++connection.waiting;
    return;
  }
  const auto fewest = std::min_element(connections_.begin(), connections_.end(),
                                       [](const Connection& left, const Connection& right) {
                                         return left.queues.size() < right.queues.size();
                                       });
  queue.connection = static_cast<std::uint32_t>(fewest - connections_.begin());
  fewest->queues.push_back(&queue);
  if (fewest->queues.size() == 2) {
    ++shared_;
    no_turn_before_ = std::min(no_turn_before_, now + time_slice_);
  }
  find_first(*fewest, now);
}

void Connections::packet_taken(PacketQueue& queue, DeviceTime now) {
  if (queue.is_idle()) return remove(queue, now);
  if (shared_ != 0) find_first(connections_[*queue.connection], now);
}

void Connections::kernel_completed(PacketQueue& queue, DeviceTime now) {
  if (queue.is_idle()) return remove(queue, now);
  if (shared_ == 0) return;
  // Who is first stays so; the wait begins anew.
  Connection& connection = connections_[*queue.connection];
  connection.waiting_since = now;
  if (connection.first != nullptr) ready_.wake(*connection.first);
}

void Connections::remove(PacketQueue& queue, DeviceTime now) {
  if (!queue.connection) return;
  Connection& connection = connections_[*queue.connection];
  std::erase(connection.queues, &queue);
  if (connection.queues.size() == 1) --shared_;
  queue.connection.reset();
  find_first(connection, now);
}

void Connections::find_first(Connection& connection, DeviceTime now) {
  connection.waiting_since = now;
  connection.first = nullptr;
  connection.waiting = 0;
  for (PacketQueue* queue : connection.queues) {
    if (queue->empty()) continue;
    ++connection.waiting;
    if (connection.first == nullptr || queue->first_order() < connection.first->first_order())
      connection.first = queue;
  }
  if (connection.first != nullptr) ready_.wake(*connection.first);
}

DeviceTime Connections::next_turn_of_shared() const {
  DeviceTime next = never;
  for (const Connection& connection : connections_) {
    if (connection.queues.size() < 2 || connection.waiting < 2) continue;
    next = std::min(next, connection.waiting_since + time_slice_);
  }
  return next;
}

void Connections::take_turns(DeviceTime now) {
  if (now < no_turn_before_) return;
  no_turn_before_ = never;
  for (Connection& connection : connections_) {
    if (connection.queues.size() < 2) continue;
    if (connection.waiting_since + time_slice_ <= now) {
      if (connection.first != nullptr) connection.first->yield_turn(next_order());
      find_first(connection, now);
    }
    no_turn_before_ = std::min(no_turn_before_, connection.waiting_since + time_slice_);
  }
}

}  // namespace eclip::model
