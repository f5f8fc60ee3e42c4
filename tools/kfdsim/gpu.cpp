#include "tools/kfdsim/gpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <string>

#include "tools/kfdsim/report.h"

namespace eclip::kfdsim {
namespace {

constexpr std::uint32_t queues_per_process_all_devices = 1024;
/// Of the stalls that changes of queues cause: every run has the same ones.
constexpr std::uint64_t stall_seed = 1;

bool is_power_of_two(std::uint64_t value) {
  return (value & (value - 1)) == 0;
}

/// The mask that SET_CU_MASK's words describe; bits past the GPU's CUs are dropped, as by the KFD.
CuMask mask_of(std::uint32_t cu_count, std::span<const std::uint32_t> words) {
  CuMask mask(cu_count);
  for (std::uint32_t cu = 0; cu < cu_count && cu / 32 < words.size(); ++cu) {
    if ((words[cu / 32] >> (cu % 32) & 1U) != 0) mask.insert(cu);
  }
  return mask;
}

}  // namespace

Gpu::Gpu(model::GpuDescription description, double time_scale, TraceWriter* trace)
    : clock_(time_scale, description.topology.gpu_counter_khz),
      device_(std::move(description), *this),
      stalls_(device_.description(), stall_seed),
      trace_(trace) {}

void Gpu::attach(GpuContext& context) {
  auto place = std::find(contexts_.begin(), contexts_.end(), nullptr);
  if (place == contexts_.end()) place = contexts_.insert(place, nullptr);
  *place = &context;
  context.address_space = static_cast<std::uint32_t>(place - contexts_.begin());
}

void Gpu::detach(GpuContext& context) {
  while (!context.queues.empty()) remove(*context.queues.begin()->second);
  contexts_[context.address_space] = nullptr;
}

int Gpu::create_queue(GpuContext& context, bool is_aql, const RingSettings& ring,
                      std::uint32_t& id) {
  if (context.queues.size() >= queues_per_process) return ENOSPC;
  if (!is_power_of_two(ring.bytes)) return EINVAL;
  if (is_aql) {
    // Recent drivers check this too. On older ones the GPU would fault at the first packet.
    const bool reachable =
        context.memory.mapped(ring.base, std::max<std::uint64_t>(1, ring.bytes)) &&
        context.memory.mapped(ring.read_pointer, sizeof(std::uint64_t)) &&
        context.memory.mapped(ring.write_pointer, sizeof(std::uint64_t));
    if (!reachable) return EINVAL;
  }
  id = 0;
  while (context.queues.contains(id)) ++id;
  const auto free_doorbell =
      std::find(context.doorbell_used.begin(), context.doorbell_used.end(), false);
  if (id >= queues_per_process_all_devices || free_doorbell == context.doorbell_used.end()) {
    return ENOMEM;
  }
  *free_doorbell = true;
  const auto doorbell = static_cast<std::uint32_t>(free_doorbell - context.doorbell_used.begin());
  auto queue = std::make_unique<GpuQueue>(context, id, doorbell, is_aql, ring);
  const CuMask all = CuMask::full(description().geometry.cu_count());
  queue->mask = std::make_shared<const std::string>(all.to_string());
  if (is_aql) {
    const auto created = device_.create_queue(all);
    if (!created) return ENOMEM;
    queue->model_id = *created;
    by_model_id_.emplace(created->value, queue.get());
  }
  context.queues.emplace(id, std::move(queue));
  ++queue_count_;
  stall_all_queues();
  return 0;
}

void Gpu::forget_model_queue(GpuQueue& queue) {
  if (!queue.model_id) return;
  device_.destroy_queue(*queue.model_id);
  by_model_id_.erase(queue.model_id->value);
  queue.model_id.reset();
  packets_in_flight_ -= queue.in_flight.size();
  barriers_in_flight_ -= static_cast<std::size_t>(
      std::count_if(queue.in_flight.begin(), queue.in_flight.end(),
                    [](const auto& entry) { return !entry.second.is_dispatch; }));
  queue.in_flight.clear();
}

int Gpu::destroy_queue(GpuContext& context, std::uint32_t id) {
  const auto found = context.queues.find(id);
  if (found == context.queues.end()) return EINVAL;
  // What was due before the ioctl happens before it.
  poll();
  remove(*found->second);
  stall_all_queues();
  return 0;
}

void Gpu::stall_all_queues() {
  const model::DeviceTime now = std::max(clock_.now(), device_.now());
  stall_end_ = clock_.wall(device_.stall(stalls_.next(), now));
}

std::optional<DeviceClock::Wall::time_point> Gpu::take_stall() {
  return std::exchange(stall_end_, std::nullopt);
}

void Gpu::remove(GpuQueue& queue) {
  forget_model_queue(queue);
  std::erase_if(faults_, [&](const auto& entry) { return entry.first == &queue; });
  GpuContext& context = queue.context;
  context.doorbell_used.at(queue.doorbell) = false;
  context.queues.erase(queue.id);
  --queue_count_;
}

int Gpu::update_queue(GpuContext& context, std::uint32_t id, std::uint64_t base,
                      std::uint64_t bytes, bool active) {
  if (!is_power_of_two(bytes)) return EINVAL;
  const auto found = context.queues.find(id);
  if (found == context.queues.end()) return EFAULT;
  RingSettings& ring = found->second->ring;
  ring.base = base;
  ring.bytes = bytes;
  ring.active = active;
  stall_all_queues();
  return 0;
}

int Gpu::set_cu_mask(GpuContext& context, std::uint32_t id, std::span<const std::uint32_t> words) {
  const auto found = context.queues.find(id);
  if (found == context.queues.end()) return EFAULT;
  poll();
  GpuQueue& queue = *found->second;
  const CuMask mask = mask_of(description().geometry.cu_count(), words);
  queue.mask_is_empty = mask.empty();
  queue.mask = std::make_shared<const std::string>(mask.to_string());
  if (queue.model_id && !mask.empty()) {
    if (!device_.set_cu_mask(*queue.model_id, mask)) return EINVAL;
  }
  stall_all_queues();
  return 0;
}

PollOutcome Gpu::poll() {
  const model::DeviceTime now = std::max(clock_.now(), device_.now());
  device_.advance(now);
  stop_faulted();
  PollOutcome outcome;
  for (GpuContext* context : contexts_) {
    if (context == nullptr) continue;
    for (auto& [id, queue] : context->queues) {
      if (queue->doorbell_moved()) outcome.doorbell_moved = true;
      if (queue->model_id && !queue->failed) fetch_all(*queue, now);
    }
  }
  // Clients write signals without telling anybody: waiting barriers have to look.
  if (barriers_in_flight_ != 0) device_.signals_changed(now);
  device_.advance(now);
  stop_faulted();
  outcome.in_flight = packets_in_flight_ != 0;
  if (const auto next = device_.next_event()) outcome.next_event = clock_.wall(*next);
  return outcome;
}

void Gpu::fetch_all(GpuQueue& queue, model::DeviceTime now) {
  if (queue.fault_when_drained) {
    if (queue.in_flight.empty()) {
      fault(queue, std::move(*queue.fault_when_drained));
      queue.fault_when_drained.reset();
    }
    return;
  }
  if (!queue.ring.active || queue.mask_is_empty) return;
  while (!queue.fault_when_drained) {
    auto fetched = queue.fetch();
    if (auto* bad = std::get_if<QueueFault>(&fetched)) {
      queue.fault_when_drained = std::move(*bad);
      return;
    }
    auto& packet = std::get<std::optional<FetchedPacket>>(fetched);
    if (!packet) return;
    submit(queue, *packet, now);
  }
}

void Gpu::fault(GpuQueue& queue, QueueFault fault) {
  faults_.emplace_back(&queue, std::move(fault));
}

void Gpu::stop_faulted() {
  const auto faults = std::exchange(faults_, {});
  for (const auto& [queue, fault] : faults) {
    if (queue->failed) continue;
    queue->failed = true;
    forget_model_queue(*queue);
    GpuContext& context = queue->context;
    report(fmt::format("process {} ({}), queue {} is stopped: {}", context.pid, context.command,
                       queue->id, fault.text));
    if (fault.memory) {
      kfd_hsa_memory_exception_data data{};
      data.failure.NotPresent = 1;
      data.va = fault.address;
      data.gpu_id = kfd_gpu_id;
      context.events.memory_fault(data);
    } else {
      kfd_hsa_hw_exception_data data{};
      data.reset_type = KFD_HW_EXCEPTION_PER_ENGINE_RESET;
      data.reset_cause = KFD_HW_EXCEPTION_GPU_HANG;
      data.gpu_id = kfd_gpu_id;
      context.events.hardware_exception(data);
    }
  }
}

}  // namespace eclip::kfdsim
