// The simulated GPU: the device model, driven by the wall clock and by the queues of all clients.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "daemon/model/device.h"
#include "daemon/model/queue_change.h"
#include "tools/kfdsim/device_clock.h"
#include "tools/kfdsim/gpu_context.h"
#include "tools/kfdsim/trace_writer.h"

namespace eclip::kfdsim {

/// The id by which the KFD names this GPU, in the topology and in every ioctl.
inline constexpr std::uint32_t kfd_gpu_id = 49374;

/// What happened in one look at all queues.
struct PollOutcome {
  bool doorbell_moved = false;
  bool in_flight = false;  ///< a packet is between its fetch and its completion
  std::optional<DeviceClock::Wall::time_point> next_event;
};

struct GpuTotals {
  std::uint64_t packets = 0;
  std::uint64_t unknown_kernels = 0;
};

/// Not thread safe; the Simulator's lock guards it.
class Gpu final : private model::Host {
 public:
  /// KFD's limit on the queues of one process and device.
  static constexpr std::size_t queues_per_process = 127;

  Gpu(model::GpuDescription description, double time_scale, TraceWriter* trace);

  [[nodiscard]] const model::GpuDescription& description() const { return device_.description(); }
  [[nodiscard]] const DeviceClock& clock() const { return clock_; }
  [[nodiscard]] const GpuTotals& totals() const { return totals_; }
  /// How many clients have queues.
  [[nodiscard]] bool has_queues() const { return queue_count_ != 0; }

  void attach(GpuContext& context);
  /// Destroys the context's queues; packets that run are dropped.
  void detach(GpuContext& context);

  /// As the ioctls of the same names: errno values, 0 for success.
  int create_queue(GpuContext& context, bool is_aql, const RingSettings& ring, std::uint32_t& id);
  int destroy_queue(GpuContext& context, std::uint32_t id);
  int update_queue(GpuContext& context, std::uint32_t id, std::uint64_t base, std::uint64_t bytes,
                   bool active);
  int set_cu_mask(GpuContext& context, std::uint32_t id, std::span<const std::uint32_t> words);

  /// When the stall is over that the last of these has caused, once; nullopt when it caused none.
  /// Its ioctl returns then.
  std::optional<DeviceClock::Wall::time_point> take_stall();

  /// Lets device time pass up to now: takes new packets, completes what is due.
  PollOutcome poll();
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
  std::optional<QueueFault> start_mix(GpuQueue& queue, InFlightPacket& record);
  std::optional<QueueFault> complete_signal(GpuContext& context, std::uint64_t signal,
                                            model::DeviceTime start, model::DeviceTime end);
  void trace(const GpuQueue& queue, const InFlightPacket& packet, model::DeviceTime start,
             model::DeviceTime end);
  /// Tells the owner that the slot of packet `index` may be written again.
  void release_slot(GpuQueue& queue, std::uint64_t index);
  /// Stops the queue after the current call into the device; a Host may not call back into it.
  void fault(GpuQueue& queue, QueueFault fault);
  void stop_faulted();
  void forget_model_queue(GpuQueue& queue);
  void remove(GpuQueue& queue);
  /// The driver takes all queues off the GPU and puts them back.
  void stall_all_queues();

  DeviceClock clock_;
  model::Device device_;
  model::QueueChangeStalls stalls_;
  std::optional<DeviceClock::Wall::time_point> stall_end_;
  TraceWriter* trace_;
  std::vector<GpuContext*> contexts_;  // by address space; null where free
  std::unordered_map<std::uint32_t, GpuQueue*> by_model_id_;
  std::vector<std::pair<GpuQueue*, QueueFault>> faults_;
  GpuTotals totals_;
  std::size_t queue_count_ = 0;
  std::size_t packets_in_flight_ = 0;
  std::size_t barriers_in_flight_ = 0;
};

}  // namespace eclip::kfdsim
