#include "daemon/model/device.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "daemon/model/compute_units.h"
#include "daemon/model/connections.h"
#include "daemon/model/packet_queue.h"
#include "daemon/model/ready_queues.h"

namespace eclip::model {
namespace {

DeviceTime from_us(double us) {
  return DeviceTime(std::llround(us * 1000));
}

}  // namespace

/// Packet processors (PacketQueue) in front of ComputeUnits, and the clock that drives both.
class Device::State {
 public:
  State(GpuDescription description, Host& host)
      : gpu_(std::move(description)),
        host_(host),
        units_(gpu_),
        connections_(gpu_.timing.connections, from_us(gpu_.timing.connection_slice_us), ready_),
        timing_{from_us(gpu_.timing.launch_gap_us), from_us(gpu_.timing.barrier_us)} {}

  [[nodiscard]] const GpuDescription& description() const { return gpu_; }
  [[nodiscard]] DeviceTime now() const { return now_; }
  [[nodiscard]] double energy_joules() const { return energy_joules_; }
  [[nodiscard]] double power_watts() const { return units_.watts(); }

  Result<QueueId> create_queue(const CuMask& mask) {
    if (auto checked = check(mask, "a new queue"); !checked) return tl::unexpected(checked.error());
    const QueueId id{++last_queue_};
    queues_.try_emplace(id, id, units_.groups().acquire(mask));
    return id;
  }

  Result<void> set_cu_mask(QueueId id, const CuMask& mask) {
    const auto found = queues_.find(id);
    if (found == queues_.end())
      return fail(Errc::not_found, "queue " + std::to_string(id.value) +
                                       " does not exist; it was destroyed or never created");
    if (auto checked = check(mask, "queue " + std::to_string(id.value)); !checked) return checked;
    PacketQueue& queue = found->second;
    const auto slot = units_.groups().acquire(mask);
    units_.move_waiting(id, slot);
    units_.groups().release(std::exchange(queue.mask, slot));
    dirty_ = true;
    return {};
  }

  void destroy_queue(QueueId id) {
    const auto found = queues_.find(id);
    if (found == queues_.end()) return;
    units_.drop(id);
    units_.groups().release(found->second.mask);
    connections_.remove(found->second, now_);
    if (!found->second.empty()) --busy_queues_;
    ready_.forget(found->second);
    queues_.erase(found);
    dirty_ = true;
  }

  void submit(QueueId id, Packet packet, DeviceTime at) {
    advance(at);
    const auto found = queues_.find(id);
    if (found == queues_.end()) return;
    PacketQueue& queue = found->second;
    if (queue.empty()) {
      ++busy_queues_;
      ready_.wake(queue);
    }
    queue.append(std::move(packet), connections_.next_order());
    connections_.packet_added(queue, now_);
    settle();
  }

  void signals_changed(DeviceTime at) {
    advance(at);
    settle();
  }

  void stall_processors(DeviceTime until) {
    processors_stalled_until_ = std::max(processors_stalled_until_, until);
  }

  [[nodiscard]] DeviceTime next_event() const {
    if (is_stalled()) return stalled_until_;
    if (dirty_) return now_;
    if (processors_stalled())
      return std::min(units_.next_change(), busy_queues_ > 0 ? processors_stalled_until_ : never);
    return connections_.next_turn_or(std::min(units_.next_change(), ready_.next_time()));
  }

  DeviceTime stall(DeviceTime length, DeviceTime at) {
    advance(at);
    const DeviceTime free_at = std::max(stalled_until_, now_);
    if (length <= DeviceTime{}) return free_at;
    stalled_until_ = free_at + length;
    units_.pause(now_);
    return stalled_until_;
  }

  void advance(DeviceTime to) {
    for (auto next = next_event(); next <= to && next != never; next = next_event()) {
      pass_to(next);
      for (const Residency* done : completed_) {
        // The queue exists: destroying it drops its kernels.
        done->owner->kernel_completed(now_, timing_);
        ready_.wake(*done->owner);
        connections_.kernel_completed(*done->owner, now_);
        host_.packet_completed(done->queue, done->packet, done->start, now_);
      }
      settle();
    }
    if (to > now_) pass_to(to);
  }

 private:
  [[nodiscard]] bool is_stalled() const { return stalled_until_ > now_; }
  [[nodiscard]] bool processors_stalled() const { return processors_stalled_until_ > now_; }

  [[nodiscard]] Result<void> check(const CuMask& mask, const std::string& whose) const {
    if (mask.size() != gpu_.geometry.cu_count())
      return fail(Errc::invalid_argument, "the CU mask of " + whose + " is for " +
                                              std::to_string(mask.size()) + " CUs; " + gpu_.name +
                                              " has " + std::to_string(gpu_.geometry.cu_count()));
    if (mask.empty())
      return fail(Errc::invalid_argument,
                  "the CU mask of " + whose + " is empty; name at least one CU");
    return {};
  }

  /// Time passes with nothing happening before its end; power is constant meanwhile.
  void pass_to(DeviceTime to) {
    const DeviceTime passed = to - now_;
    energy_joules_ += units_.watts() * std::chrono::duration<double>(passed).count();
    now_ = to;
    units_.pass_to(now_, completed_);
  }

  /// Lets everything happen that happens now.
  void settle() {
    if (is_stalled()) return;
    dirty_ = false;
    connections_.take_turns(now_);
    ready_.wake_due(now_);
    bool any_progress = true;
    while (any_progress) {
      any_progress = false;
      if (!processors_stalled()) any_progress = process_ready();
      started_.clear();
      units_.share_out(now_, started_);
      for (const Residency* kernel : started_) {
        kernel->owner->kernel_started();
        ready_.wake(*kernel->owner);
        host_.packet_started(kernel->queue, kernel->packet, now_);
        any_progress = true;
      }
    }
    ready_.drop_stale();
  }

  /// Lets the woken queues go on, in order of creation; says whether that may let others go on.
  bool process_ready() {
    bool any_progress = false;
    PacketQueue* queue = ready_.next_after(QueueId{0});
    while (queue != nullptr) {
      const auto ready_at = queue->ready_at();
      any_progress |= process(*queue);
      if (processors_stalled()) return any_progress;  // the others stay awake
      if (queue->ready_at() && queue->ready_at() != ready_at)
        ready_.wake_at(*queue, *queue->ready_at());
      // Nobody tells of a signal's value: these queues are looked at whenever something happens.
      if (!queue->waits_for_signals()) ready_.sleep(*queue);
      queue = ready_.next_after(queue->id);
    }
    return any_progress;
  }

  /// Takes one queue as far as it goes now; says whether that may let others go on.
  bool process(PacketQueue& queue) {
    bool any_progress = false;
    while (!queue.empty() && !processors_stalled() && connections_.may_go_on(queue)) {
      switch (queue.step(now_, timing_, host_)) {
        case PacketQueue::Step::stay:
          return any_progress;
        case PacketQueue::Step::barrier_started:
          host_.packet_started(queue.id, queue.first(), now_);
          break;
        case PacketQueue::Step::barrier_progress:
          break;
        case PacketQueue::Step::barrier_complete: {
          const DeviceTime start = queue.first_started();
          host_.packet_completed(queue.id, take(queue), start, now_);
          connections_.packet_taken(queue, now_);
          any_progress = true;
          break;
        }
        case PacketQueue::Step::launch:
          launch(queue);
          connections_.packet_taken(queue, now_);
          any_progress = true;
          break;
      }
    }
    return any_progress;
  }

  Packet take(PacketQueue& queue) {
    Packet packet = queue.take();
    if (queue.empty()) --busy_queues_;
    return packet;
  }

  void launch(PacketQueue& queue) {
    Packet packet = take(queue);
    if (packet.kernel == nullptr) {
      host_.packet_started(queue.id, packet, now_);
      host_.packet_completed(queue.id, packet, now_, now_);
      return;
    }
    queue.kernel_launched();
    units_.arrive(queue.id, queue, std::move(packet));
  }

  const GpuDescription gpu_;
  Host& host_;
  ComputeUnits units_;
  ReadyQueues ready_;
  Connections connections_;
  PacketTiming timing_;
  std::map<QueueId, PacketQueue> queues_;
  std::size_t busy_queues_ = 0;  // with packets that wait
  std::uint32_t last_queue_ = 0;
  DeviceTime now_{};
  DeviceTime processors_stalled_until_{};
  DeviceTime stalled_until_{};
  double energy_joules_ = 0;
  bool dirty_ = false;  // something other than time may let a packet go on
  std::vector<Residency*> completed_;
  std::vector<Residency*> started_;
};

Device::Device(GpuDescription description, Host& host)
    : state_(std::make_unique<State>(std::move(description), host)) {}
Device::~Device() = default;

const GpuDescription& Device::description() const {
  return state_->description();
}
Result<QueueId> Device::create_queue(const CuMask& mask) {
  return state_->create_queue(mask);
}
Result<void> Device::set_cu_mask(QueueId queue, const CuMask& mask) {
  return state_->set_cu_mask(queue, mask);
}
void Device::destroy_queue(QueueId queue) {
  state_->destroy_queue(queue);
}
void Device::submit(QueueId queue, Packet packet, DeviceTime at) {
  state_->submit(queue, std::move(packet), at);
}
void Device::stall_processors(DeviceTime until) {
  state_->stall_processors(until);
}
DeviceTime Device::stall(DeviceTime length, DeviceTime at) {
  return state_->stall(length, at);
}
void Device::signals_changed(DeviceTime at) {
  state_->signals_changed(at);
}
std::optional<DeviceTime> Device::next_event() const {
  const DeviceTime next = state_->next_event();
  return next == never ? std::nullopt : std::optional(next);
}
void Device::advance(DeviceTime to) {
  state_->advance(to);
}
DeviceTime Device::now() const {
  return state_->now();
}
double Device::energy_joules() const {
  return state_->energy_joules();
}
double Device::power_watts() const {
  return state_->power_watts();
}

}  // namespace eclip::model
