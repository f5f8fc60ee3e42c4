#include "daemon/model/device.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "daemon/model/compute_units.h"
#include "daemon/model/packet_queue.h"

namespace eclip::model {
namespace {

DeviceTime from_us(double us) { return DeviceTime(std::llround(us * 1000)); }

}  // namespace

/// Packet processors (PacketQueue) in front of ComputeUnits, and the clock that drives both.
class Device::State {
 public:
  State(GpuDescription description, Host& host)
      : gpu_(std::move(description)),
        host_(host),
        units_(gpu_),
        timing_{from_us(gpu_.timing.launch_gap_us), from_us(gpu_.timing.barrier_us)} {}

  [[nodiscard]] const GpuDescription& description() const { return gpu_; }
  [[nodiscard]] DeviceTime now() const { return now_; }
  [[nodiscard]] double energy_joules() const { return energy_joules_; }
  [[nodiscard]] double power_watts() const { return units_.watts(); }

  Result<QueueId> create_queue(const CuMask& mask) {
    if (auto checked = check(mask, "a new queue"); !checked)
      return tl::unexpected(checked.error());
    const QueueId id{++last_queue_};
    queues_.try_emplace(id, units_.groups().acquire(mask));
    if (is_masked(mask)) ++masked_queues_;
    apply_stream_budget();
    units_.masks_changed();
    dirty_ = true;
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
    masked_queues_ -= units_.groups().cus_in(queue.mask) < gpu_.geometry.cu_count() ? 1 : 0;
    masked_queues_ += is_masked(mask) ? 1 : 0;
    apply_stream_budget();
    units_.move_waiting(id, slot);
    units_.groups().release(std::exchange(queue.mask, slot));
    units_.masks_changed();
    dirty_ = true;
    return {};
  }

  void destroy_queue(QueueId id) {
    const auto found = queues_.find(id);
    if (found == queues_.end()) return;
    masked_queues_ -= units_.groups().cus_in(found->second.mask) < gpu_.geometry.cu_count() ? 1 : 0;
    apply_stream_budget();
    units_.drop(id);
    units_.groups().release(found->second.mask);
    queues_.erase(found);
    std::erase(active_, id);
    dirty_ = true;
  }
