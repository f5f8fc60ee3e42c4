// The simulated GPU: the device model, driven by the wall clock and by the queues of all clients.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "daemon/model/device.h"
#include "daemon/model/queue_change.h"
#include "tools/kfdsim/device_clock.h"
#include "tools/kfdsim/fault_injector.h"
#include "tools/kfdsim/gpu_context.h"
#include "tools/kfdsim/trace_writer.h"

namespace eclip::kfdsim {

/// The id by which the KFD names this GPU, in the topology and in every ioctl.
inline constexpr std::uint32_t kfd_gpu_id = 49374;

/// What happened in one look at all queues.
struct PollOutcome {
  bool doorbell_moved = false;
  bool in_flight = false;  ///< a packet is between its fetch and its completion, or polls memory
  std::optional<DeviceClock::Wall::time_point> next_event;

  /// Something will happen at that time, if not something else before it.
  void look_again(DeviceClock::Wall::time_point at) {
    next_event = next_event ? std::min(*next_event, at) : at;
  }
};

struct GpuTotals {
  std::uint64_t packets = 0;
  /// Dispatches of kernels of which nothing computes the results, by the kernels' names.
  std::map<std::string, std::uint64_t> without_effect;
  std::uint64_t estimated_times = 0;  ///< dispatches that took an estimated time
};

/// Not thread safe; the Simulator's lock guards it.
class Gpu final : private model::Host {
 public:
  /// KFD's limit on the queues of one process and device.
  static constexpr std::size_t queues_per_process = 127;

  /// The hardware's; the driver never shares an SDMA engine's slots.
  static constexpr std::size_t queues_per_copy_engine = 8;

  Gpu(model::GpuDescription description, double time_scale, KnownKernels known, TraceWriter* trace,
      FaultInjector& injector);

  [[nodiscard]] const model::GpuDescription& description() const { return device_.description(); }
  [[nodiscard]] const DeviceClock& clock() const { return clock_; }
  [[nodiscard]] const KnownKernels& known_kernels() const { return known_; }
  [[nodiscard]] const GpuTotals& totals() const { return totals_; }
  /// How many clients have queues.
  [[nodiscard]] bool has_queues() const { return queue_count_ != 0; }

  void attach(GpuContext& context);
  /// Destroys the context's queues; packets that run are dropped.
  void detach(GpuContext& context);

  /// As the ioctls of the same names: errno values, 0 for success.
  int create_queue(GpuContext& context, QueueType type, const RingSettings& ring,
                   std::uint32_t& id);
  int destroy_queue(GpuContext& context, std::uint32_t id);
  int update_queue(GpuContext& context, std::uint32_t id, std::uint64_t base, std::uint64_t bytes,
                   bool active);
  int set_cu_mask(GpuContext& context, std::uint32_t id, std::span<const std::uint32_t> words);

  /// When the stall is over that the last of these has caused, once; nullopt when it caused none.
  /// Its ioctl returns then.
  std::optional<DeviceClock::Wall::time_point> take_stall();

  /// Lets device time pass up to now: takes new packets, completes what is due.
  PollOutcome poll();
  /// When the next injected fault is due.
  [[nodiscard]] std::optional<DeviceClock::Wall::time_point> next_fault() const;
  /// Whether the driver is resetting the GPU now: /dev/kfd cannot be opened.
  [[nodiscard]] bool is_resetting() const { return clock_.now() < reset_until_; }
  [[nodiscard]] double energy_joules() const { return device_.energy_joules(); }
  [[nodiscard]] double power_watts() const { return device_.power_watts(); }

 private:
  std::int64_t signal_value(model::SignalAddress signal) override;
  void packet_started(model::QueueId queue, const model::Packet& packet,
                      model::DeviceTime at) override;
  void packet_completed(model::QueueId queue, const model::Packet& packet, model::DeviceTime start,
                        model::DeviceTime end) override;

  void fetch_all(GpuQueue& queue, model::DeviceTime now);
  void submit(GpuQueue& queue, const FetchedPacket& fetched, model::DeviceTime now);
  std::optional<QueueFault> prepare(GpuQueue& queue, const AqlPacket& packet,
                                    InFlightPacket& record, model::Packet& out);
  /// Of all processes.
  [[nodiscard]] std::size_t sdma_queues() const;
  /// Lets the device go on to `now`. Kernels and copies may wait for one another: each event of
  /// either is seen by the other at its own time, however late this look at them is.
  void advance(model::DeviceTime now);
  void run_copies(model::DeviceTime now);
  std::optional<QueueFault> run_shadow(GpuQueue& queue, const InFlightPacket& record);
  void count(const InFlightPacket& record);
  /// A packet of the process is complete, which may have been waited for to inject a fault.
  void completed(GpuContext& context, model::DeviceTime at);
  std::optional<QueueFault> start_mix(GpuQueue& queue, InFlightPacket& record);
  std::optional<QueueFault> complete_signal(GpuContext& context, std::uint64_t signal,
                                            model::DeviceTime start, model::DeviceTime end);
  /// Raises the event that the signal names, if it names one.
  static std::optional<QueueFault> ring_mailbox(GpuContext& context, std::uint64_t signal);
  void trace(const GpuQueue& queue, const InFlightPacket& packet, model::DeviceTime start,
             model::DeviceTime end);
  /// Tells the owner that the slot of packet `index` may be written again.
  void release_slot(GpuQueue& queue, std::uint64_t index);
  /// Stops the queue after the current call into the device; a Host may not call back into it.
  void fault(GpuQueue& queue, QueueFault fault);
  void stop_faulted();
  /// Lets the device's time pass up to `now`, with the faults that are due on the way.
  void pass_to(model::DeviceTime now);
  void inject(const FaultInjector::Timed& fault);
  /// All queues and the contents of VRAM are lost.
  void reset();
  /// Stops a queue until it is destroyed; its packets are dropped.
  void stop(GpuQueue& queue);
  /// Stops all queues of a process, and those that it will create.
  void evict(GpuContext& context);
  /// Tells the queue's owner through amd_queue_t's queue_inactive_signal, if it has one.
  static void signal_queue_error(GpuQueue& queue, std::int64_t error);
  void forget_model_queue(GpuQueue& queue);
  void remove(GpuQueue& queue);
  /// The driver takes all queues off the GPU and puts them back.
  void stall_all_queues();

  DeviceClock clock_;
  model::Device device_;
  KnownKernels known_;
  model::QueueChangeStalls stalls_;
  std::optional<DeviceClock::Wall::time_point> stall_end_;
  TraceWriter* trace_;
  std::array<SdmaEngine, 2> copy_engines_;
  struct Copies {
    bool waiting = false;  ///< a copy is under way, or waits for memory to change
    std::optional<model::DeviceTime> next_event;
  };
  Copies copies_;                     // as of the last run_copies
  std::size_t next_copy_engine_ = 0;  // that a new queue gets
  std::shared_ptr<const std::string> copy_name_ = std::make_shared<const std::string>("SDMA copy");
  FaultInjector& injector_;
  std::vector<GpuContext*> contexts_;  // by address space; null where free
  std::uint64_t attached_ = 0;         // contexts so far
  std::unordered_map<std::uint32_t, GpuQueue*> by_model_id_;
  std::vector<std::pair<GpuQueue*, QueueFault>> faults_;
  GpuTotals totals_;
  std::size_t queue_count_ = 0;
  std::size_t packets_in_flight_ = 0;
  std::size_t barriers_in_flight_ = 0;
  /// Caused by a packet's completion; from then on nothing completes, until it is carried out.
  std::optional<FaultInjector::Timed> reset_due_;
  model::DeviceTime reset_until_{};
  model::DeviceTime stalled_until_{};
};

}  // namespace eclip::kfdsim
