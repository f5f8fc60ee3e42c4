// The processing of one SDMA queue's ring.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <variant>

#include "daemon/model/device.h"
#include "tools/kfdsim/device_clock.h"
#include "tools/kfdsim/ring_settings.h"
#include "tools/kfdsim/sdma_packet.h"

namespace eclip::kfdsim {

struct GpuContext;

/// A copy engine: it moves the bytes of one packet at a time. Its queues take turns.
struct SdmaEngine {
  model::DeviceTime free_at{0};
};

/// Takes packets in order, each at the device time at which the one before ended. Moves take their
/// time on the engine, and their bytes are there at its end; other packets take none.
class SdmaQueue {
 public:
  /// That one look takes: the others wait for it, and a ring can have gigabytes of packets.
  static constexpr std::uint64_t max_packets_at_once = 1024;

  SdmaQueue(GpuContext& context, const RingSettings& ring, SdmaEngine& engine,
            const model::GpuDescription& gpu, const DeviceClock& clock)
      : context_(context), ring_(ring), engine_(engine), gpu_(gpu), clock_(clock) {}

  /// A packet that moved bytes, for the trace.
  struct Move {
    model::DeviceTime start;
    model::DeviceTime end;
  };
  struct Progress {
    std::uint64_t packets = 0;
    std::optional<QueueFault> fault;
  };
  /// Processes what is due up to `now`, of the ring's bytes below `announced`, as far as one look
  /// goes. `moved` is called for each packet that moved bytes, `completed` after each packet: when
  /// that says false, the queue goes no further now.
  template <class Moved, class Completed>
  Progress run(std::uint64_t announced, model::DeviceTime now, Moved moved, Completed completed);

  /// Whether there is a packet that waits: for its time, or for memory to change.
  [[nodiscard]] bool busy() const { return busy_; }
  /// When the move under way ends.
  [[nodiscard]] std::optional<model::DeviceTime> next_event() const { return move_ends_; }

 private:
  enum class Step : std::uint8_t { done, moved, waiting };
  std::variant<Step, QueueFault> step(std::uint64_t announced, model::DeviceTime now);
  std::variant<Step, QueueFault> execute(const SdmaPacket& packet, model::DeviceTime now);
  std::optional<QueueFault> move(const SdmaCopy& copy);
  std::optional<QueueFault> move(const SdmaCopyRect& rect);
  std::optional<QueueFault> move(const SdmaFill& fill);
  [[nodiscard]] model::DeviceTime duration_of(const SdmaPacket& packet) const;
  [[nodiscard]] QueueFault unreachable(std::uint64_t address, const char* what) const;

  GpuContext& context_;
  const RingSettings& ring_;
  SdmaEngine& engine_;
  const model::GpuDescription& gpu_;
  const DeviceClock& clock_;
  std::uint64_t read_ = 0;     // bytes taken from the ring
  model::DeviceTime time_{0};  // when the last packet ended
  model::DeviceTime move_start_{0};
  std::optional<model::DeviceTime> move_ends_;
  bool busy_ = false;
  bool cut_short_ = false;  // the last look ended before there was anything to wait for
};

template <class Moved, class Completed>
SdmaQueue::Progress SdmaQueue::run(std::uint64_t announced, model::DeviceTime now, Moved moved,
                                   Completed completed) {
  Progress progress;
  busy_ = false;
  // A queue that was idle, or waited for memory, goes on at the time of this look at it.
  if (!move_ends_ && !cut_short_) time_ = std::max(time_, now);
  cut_short_ = false;
  while (read_ < announced) {
    if (progress.packets == max_packets_at_once) {
      busy_ = cut_short_ = true;
      break;
    }
    auto stepped = step(announced, now);
    if (auto* fault = std::get_if<QueueFault>(&stepped)) {
      progress.fault = std::move(*fault);
      break;
    }
    const Step outcome = std::get<Step>(stepped);
    if (outcome == Step::waiting) {
      busy_ = true;
      break;
    }
    ++progress.packets;
    if (outcome == Step::moved) moved(Move{move_start_, time_});
    if (!completed()) {
      busy_ = true;
      break;
    }
  }
  return progress;
}

}  // namespace eclip::kfdsim
