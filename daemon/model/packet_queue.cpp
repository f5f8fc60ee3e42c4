#include "daemon/model/packet_queue.h"

#include <algorithm>
#include <utility>

namespace eclip::model {

PacketQueue::Step PacketQueue::step(DeviceTime now, const PacketTiming& timing, Host& host) {
  ready_at_.reset();
  if (packets_.empty()) return Step::stay;
  const Packet& packet = packets_.front().packet;
  if (packet.barrier && in_flight_ > 0) return Step::stay;

  if (packet.kind == PacketKind::dispatch) {
    // A packet whose workgroups have nowhere to go holds back all that follow it.
    if (starting_) return Step::stay;
    if (packet.barrier && gap_until_ && *gap_until_ > now) {
      ready_at_ = gap_until_;
      return Step::stay;
    }
    return Step::launch;
  }

  if (!barrier_seen_) {
    barrier_seen_ = true;
    first_started_ = now;
    return Step::barrier_started;
  }
  if (!barrier_holds_) {
    if (!dependencies_hold(host)) return Step::stay;
    barrier_holds_ = true;
    first_done_ = now + timing.barrier;
    ready_at_ = first_done_;
    return Step::barrier_progress;
  }
  if (first_done_ > now) {
    ready_at_ = first_done_;
    return Step::stay;
  }
  return Step::barrier_complete;
}

bool PacketQueue::dependencies_hold(Host& host) {
  Packet& packet = packets_.front().packet;
  bool any_left = false;
  for (SignalAddress& signal : packet.dependencies) {
    if (signal == no_signal) continue;
    if (host.signal_value(signal) != 0) {
      any_left = true;
      continue;
    }
    if (packet.kind == PacketKind::barrier_or) return true;
    // A dependency counts once it was seen at 0; not all have to be 0 at the same time.
    signal = no_signal;
  }
  return !any_left;
}

Packet PacketQueue::take() {
  Packet packet = std::move(packets_.front().packet);
  packets_.pop_front();
  if (!packets_.empty()) first_order_ = packets_.front().order;
  if (packet.kind != PacketKind::dispatch) gap_until_.reset();
  barrier_seen_ = false;
  barrier_holds_ = false;
  ready_at_.reset();
  return packet;
}

void PacketQueue::kernel_launched() {
  ++in_flight_;
  starting_ = true;
}

void PacketQueue::kernel_completed(DeviceTime at, const PacketTiming& timing) {
  --in_flight_;
  gap_until_ = std::max(gap_until_.value_or(at), at + timing.launch_gap);
}

}  // namespace eclip::model
