// The device model: a discrete-event simulation of a GPU's queues, packet processors and compute
// units. Pure: no clock, thread, file or randomness of its own; callers drive it through virtual
// time (tests, benchmarks, the planner) or from the wall clock (kfdsim). One thread at a time.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "daemon/model/gpu_description.h"
#include "daemon/model/kernel.h"
#include "ipc/cu_mask.h"
#include "ipc/strong_id.h"

namespace eclip::model {

/// Time since the device was made, on the device's clock.
using DeviceTime = std::chrono::nanoseconds;
/// The time of what does not happen.
inline constexpr DeviceTime never = DeviceTime::max();

using QueueId = StrongId<struct ModelQueueTag, std::uint32_t>;

/// Names a signal to the Host; the model only compares it with no_signal.
using SignalAddress = std::uint64_t;
inline constexpr SignalAddress no_signal = 0;

enum class PacketKind : std::uint8_t { dispatch, barrier_and, barrier_or };

/// An AQL packet as the packet processor sees it.
struct Packet {
  PacketKind kind = PacketKind::dispatch;
  /// The AQL header's barrier bit: waits until all earlier packets of its queue have completed.
  bool barrier = false;
  /// What a dispatch packet runs, null for barrier packets. A dispatch of null takes no time.
  std::shared_ptr<const Kernel> kernel{};
  /// Barrier packets: up to five signals; AND waits until it has seen each at 0, OR until one is.
  std::array<SignalAddress, 5> dependencies{};
  /// Handed back in the Host's calls.
  std::uint64_t cookie = 0;
};

/// What surrounds the device: the memory where signals live, and whoever wants to know what
/// happens. Called from within Device::advance, submit and signals_changed, in order of device
/// time. A Host must not call back into the Device, but for stall_processors.
class Host {
 public:
  virtual ~Host() = default;
  /// The signal's value now.
  virtual std::int64_t signal_value(SignalAddress signal) = 0;
  /// A dispatch packet's first workgroup starts, or a barrier packet is reached by its queue and
  /// begins to wait for its dependencies.
  virtual void packet_started(QueueId queue, const Packet& packet, DeviceTime at) = 0;
  /// The packet is complete. Here the Host decrements the packet's completion signal; barriers that
  /// wait for it are looked at afterwards, at the same device time.
  virtual void packet_completed(QueueId queue, const Packet& packet, DeviceTime start,
                                DeviceTime end) = 0;
};

/// A GPU. Queues process their packets in order; a dispatch without the barrier bit may overlap
/// with earlier packets of its queue. Packets of different queues share CUs by arrival order.
/// What a change of queues sets in motion is called back in the next call that takes a time;
/// next_event() then says now(). Packets for a queue that does not exist are ignored.
class Device {
 public:
  /// `host` must outlive the device.
  Device(GpuDescription description, Host& host);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] const GpuDescription& description() const;

  /// A new queue on the given CUs. The mask's size must be the GPU's CU count and it must not be
  /// empty (Errc::invalid_argument).
  Result<QueueId> create_queue(const CuMask& mask);
  /// Kernels that hold CUs keep them; all others get the new mask. Errc::not_found,
  /// Errc::invalid_argument as above.
  Result<void> set_cu_mask(QueueId queue, const CuMask& mask);
  /// Drops the queue and its packets, running ones too, without completing them.
  void destroy_queue(QueueId queue);

  /// Appends a packet at device time `at` (not before now(); earlier is taken as now()).
  void submit(QueueId queue, Packet packet, DeviceTime at);
  /// All queues stop at device time `at` for `length`, after a stall that lasts already: nothing
  /// starts or completes, kernels keep their CUs and go on afterwards. Returns when that is.
  DeviceTime stall(DeviceTime length, DeviceTime at);
  /// No packet goes on before `until`; kernels that have their CUs do. Takes effect now. A Host may
  /// call this, and nothing else, from packet_completed: nothing follows that packet before then.
  void stall_processors(DeviceTime until);
  /// An agent other than the device wrote a signal: waiting barriers are looked at again.
  void signals_changed(DeviceTime at);

  /// When something will happen next, if nothing is submitted; nullopt when idle or when all that
  /// is left waits for signals from outside.
  [[nodiscard]] std::optional<DeviceTime> next_event() const;
  /// Lets everything up to and including `to` happen.
  void advance(DeviceTime to);
  [[nodiscard]] DeviceTime now() const;

  /// Energy since the device was made, up to now().
  [[nodiscard]] double energy_joules() const;
  /// Power at now().
  [[nodiscard]] double power_watts() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace eclip::model
