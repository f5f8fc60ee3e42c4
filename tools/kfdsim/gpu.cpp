#include "tools/kfdsim/gpu.h"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <string>
#include <utility>

namespace eclip::kfdsim {
namespace {

constexpr std::uint32_t queues_per_process_all_devices = 1024;
// The driver gives processes 16-bit numbers of address spaces from the upper half.
constexpr std::uint32_t first_pasid = 0x8000;

/// The driver's own number of a queue's type.
std::uint32_t driver_type(QueueType type) {
  constexpr std::uint32_t compute = 0;
  constexpr std::uint32_t sdma = 1;
  return type == QueueType::sdma ? sdma : compute;
}

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

Gpu::Gpu(model::GpuDescription description, double time_scale, KnownKernels known,
         TraceWriter* trace, FaultInjector& injector)
    : clock_(time_scale, description.topology.gpu_counter_khz),
      device_(std::move(description), *this),
      known_(std::move(known)),
      stalls_(device_.description(), injector.seed()),
      trace_(trace),
      injector_(injector) {}

void Gpu::attach(GpuContext& context) {
  poll();  // an injected reset that was due before is none of this process's
  auto place = std::find(contexts_.begin(), contexts_.end(), nullptr);
  if (place == contexts_.end()) place = contexts_.insert(place, nullptr);
  *place = &context;
  context.address_space = static_cast<std::uint32_t>(place - contexts_.begin());
  context.number = ++attached_;
  context.files.emplace(context.pid, first_pasid + context.address_space);
}

void Gpu::detach(GpuContext& context) {
  while (!context.queues.empty()) remove(*context.queues.begin()->second);
  context.files.reset();
  contexts_[context.address_space] = nullptr;
}

std::size_t Gpu::sdma_queues() const {
  std::size_t count = 0;
  for (const GpuContext* context : contexts_) {
    if (context == nullptr) continue;
    for (const auto& [id, queue] : context->queues) count += queue->sdma ? 1 : 0;
  }
  return count;
}

int Gpu::create_queue(GpuContext& context, QueueType type, const RingSettings& ring,
                      std::uint32_t& id) {
  if (context.queues.size() >= queues_per_process) return ENOSPC;
  if (!is_power_of_two(ring.bytes)) return EINVAL;
  if (type != QueueType::pm4) {
    // Recent drivers check this too. On older ones the GPU would fault at the first packet.
    const bool reachable =
        context.memory.mapped(ring.base, std::max<std::uint64_t>(1, ring.bytes)) &&
        context.memory.mapped(ring.read_pointer, sizeof(std::uint64_t)) &&
        context.memory.mapped(ring.write_pointer, sizeof(std::uint64_t));
    if (!reachable) return EINVAL;
  }
  if (type == QueueType::sdma && sdma_queues() >= copy_engines_.size() * queues_per_copy_engine) {
    return ENOMEM;
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
  auto queue = std::make_unique<GpuQueue>(context, id, doorbell, type, ring);
  const CuMask all = CuMask::full(description().geometry.cu_count());
  queue->mask = std::make_shared<const std::string>(all.to_string());
  queue->failed = context.evicted;
  if (type == QueueType::sdma) {
    SdmaEngine& engine = copy_engines_.at(next_copy_engine_++ % copy_engines_.size());
    queue->sdma.emplace(context, queue->ring, engine, this->description(), clock_);
  } else if (type == QueueType::aql && !context.evicted) {
    const auto created = device_.create_queue(all);
    if (!created) return ENOMEM;
    queue->model_id = *created;
    by_model_id_.emplace(created->value, queue.get());
  }
  context.queues.emplace(id, std::move(queue));
  ++queue_count_;
  context.files->add_queue(id, driver_type(type), ring.bytes);
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
  context.files->remove_queue(queue.id);
  context.queues.erase(queue.id);
  --queue_count_;
}

int Gpu::update_queue(GpuContext& context, std::uint32_t id, std::uint64_t base,
                      std::uint64_t bytes, bool active) {
  if (!is_power_of_two(bytes)) return EINVAL;
  const auto found = context.queues.find(id);
  if (found == context.queues.end()) return EFAULT;
  RingSettings& ring = found->second->ring;
  if (ring.bytes != bytes) context.files->resize_queue(id, bytes);
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
  pass_to(now);
  PollOutcome outcome;
  for (GpuContext* context : contexts_) {
    if (context == nullptr) continue;
    for (auto& [id, queue] : context->queues) {
      if (queue->doorbell_moved()) outcome.doorbell_moved = true;
      queue->announced_bytes = queue->doorbell_value();
      if (queue->model_id && !queue->failed) fetch_all(*queue, now);
    }
  }
  run_copies(now);
  // Clients and copies write signals without telling the device: waiting barriers have to look.
  if (barriers_in_flight_ != 0) device_.signals_changed(now);
  pass_to(now);
  outcome.in_flight = copies_.waiting || packets_in_flight_ != 0;
  if (copies_.next_event) outcome.look_again(clock_.wall(*copies_.next_event));
  if (const auto next = device_.next_event()) outcome.look_again(clock_.wall(*next));
  if (const auto next = next_fault()) outcome.look_again(*next);
  return outcome;
}

void Gpu::advance(model::DeviceTime now) {
  while (copies_.waiting) {
    auto next = device_.next_event();
    if (!next || (copies_.next_event && *copies_.next_event < *next)) next = copies_.next_event;
    if (!next || *next > now) break;
    device_.advance(*next);
    run_copies(*next);
    if (barriers_in_flight_ != 0) device_.signals_changed(*next);
    stop_faulted();
  }
  device_.advance(now);
}

void Gpu::run_copies(model::DeviceTime now) {
  copies_ = {};
  if (reset_due_) return;
  if (now < stalled_until_) {
    copies_.next_event = stalled_until_;
    return;
  }
  for (GpuContext* context : contexts_) {
    if (context == nullptr) continue;
    for (auto& [id, queue] : context->queues) {
      if (!queue->sdma || queue->failed || !queue->ring.active) continue;
      GpuQueue& copying = *queue;
      auto progress = copying.sdma->run(
          copying.announced_bytes, now,
          [&](const SdmaQueue::Move& move) {
            copying.context.copying += move.end - move.start;
            if (trace_ == nullptr) return;
            trace_->add({copying.context.pid, copying.context.command, copying.id, *copy_name_, "",
                         0, move.start, move.end});
          },
          [&] {
            completed(copying.context, now);
            return !reset_due_ && now >= stalled_until_;
          });
      if (reset_due_) return;
      if (progress.fault) fault(copying, std::move(*progress.fault));
      copies_.waiting = copies_.waiting || copying.sdma->busy();
      const auto next = copying.sdma->next_event();
      if (next && (!copies_.next_event || *next < *copies_.next_event)) copies_.next_event = next;
      if (now < stalled_until_) {
        copies_.waiting = true;
        copies_.next_event = stalled_until_;
        return;
      }
    }
  }
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
  // The rest waits for the next look, so that others get their turn.
  constexpr std::uint64_t new_kernels_at_once = 4;
  const KernelCache& kernels = queue.context.kernels;
  const std::uint64_t enough = kernels.identified() + new_kernels_at_once;
  while (!queue.fault_when_drained && kernels.identified() < enough) {
    auto fetched = queue.fetch();
    if (auto* bad = std::get_if<QueueFault>(&fetched)) {
      queue.fault_when_drained = std::move(*bad);
      return;
    }
    auto& packet = std::get<std::optional<FetchedPacket>>(fetched);
    if (!packet) {
      if (queue.hung && !std::exchange(queue.hang_counted, true))
        injector_.count(queue.hang->fault);
      return;
    }
    submit(queue, *packet, now);
  }
}

}  // namespace eclip::kfdsim
