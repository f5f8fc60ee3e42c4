// What the Gpu does when a packet makes no sense, an address is not mapped, or a fault is injected,
// as a gfx9 GPU and its driver do it.
#include <fmt/format.h>
#include <hsa/amd_hsa_queue.h>
#include <hsa/amd_hsa_signal.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include "tools/kfdsim/gpu.h"
#include "tools/kfdsim/report.h"

namespace eclip::kfdsim {
namespace {

std::string whose(const GpuContext& context) {
  return fmt::format("process {} ({})", context.pid, context.command);
}

/// The signal that the queue's amd_queue_t, which lies around its read and write index, names for
/// errors; 0 when the queue's owner uses no amd_queue_t, or names none.
std::uint64_t inactive_signal_of(const GpuQueue& queue) {
  constexpr std::uint64_t read_at = offsetof(amd_queue_t, read_dispatch_id);
  constexpr std::uint64_t write_at = offsetof(amd_queue_t, write_dispatch_id);
  const std::uint64_t base = queue.ring.read_pointer - read_at;
  if (queue.ring.write_pointer != base + write_at) return 0;
  const auto structure = queue.context.memory.read_as<amd_queue_t>(base);
  if (!structure || structure->read_dispatch_id_field_base_byte_offset != read_at) return 0;
  return structure->queue_inactive_signal.handle;
}

}  // namespace

void Gpu::fault(GpuQueue& queue, QueueFault fault) {
  faults_.emplace_back(&queue, std::move(fault));
}

void Gpu::stop(GpuQueue& queue) {
  queue.failed = true;
  queue.fault_when_drained.reset();
  forget_model_queue(queue);
}

void Gpu::evict(GpuContext& context) {
  context.evicted = true;
  for (auto& [id, queue] : context.queues) stop(*queue);
}

std::optional<DeviceClock::Wall::time_point> Gpu::next_fault() const {
  const auto due = injector_.next_due();
  if (!due) return std::nullopt;
  return clock_.wall(*due);
}

void Gpu::pass_to(model::DeviceTime now) {
  while (const auto fault = injector_.take_due(now)) {
    advance(std::max(fault->at, device_.now()));
    stop_faulted();
    inject(*fault);
  }
  advance(now);
  if (const auto due = std::exchange(reset_due_, std::nullopt)) inject(*due);
  stop_faulted();
}

void Gpu::completed(GpuContext& context, model::DeviceTime at) {
  ++totals_.packets;
  const auto outcome = injector_.packet_completed(context.number, ++context.packets);
  if (outcome.stall) {
    stalled_until_ = std::max(stalled_until_, at + *outcome.stall);
    device_.stall_processors(stalled_until_);
  }
  if (outcome.reset) reset_due_ = FaultInjector::Timed{at, *outcome.reset, true};
}

void Gpu::inject(const FaultInjector::Timed& fault) {
  const model::DeviceTime until = fault.at + fault.duration;
  if (!fault.resets) {
    stalled_until_ = std::max(stalled_until_, until);
    return device_.stall_processors(until);
  }
  reset_until_ = std::max(reset_until_, until);
  reset();
}

void Gpu::reset() {
  report(fmt::format("the GPU is reset: {} {} lost", queue_count_,
                     queue_count_ == 1 ? "queue is" : "queues are"));
  kfd_hsa_hw_exception_data data{};
  data.reset_type = KFD_HW_EXCEPTION_WHOLE_GPU_RESET;
  data.reset_cause = KFD_HW_EXCEPTION_GPU_HANG;
  data.memory_lost = 1;
  data.gpu_id = kfd_gpu_id;
  faults_.clear();
  for (GpuContext* context : contexts_) {
    if (context == nullptr) continue;
    evict(*context);
    context->memory.lose_vram();
    context->events.hardware_exception(data);
  }
}

void Gpu::stop_faulted() {
  const auto faults = std::exchange(faults_, {});
  for (const auto& [queue, fault] : faults) {
    if (queue->failed) continue;
    GpuContext& context = queue->context;
    if (fault.memory) {
      report(fmt::format("{}, queue {}: {}: a memory fault stops all its queues", whose(context),
                         queue->id, fault.text));
      evict(context);
      kfd_hsa_memory_exception_data data{};
      data.failure.NotPresent = 1;
      data.va = fault.address & ~(page_bytes - 1);  // the GPU tells the page only
      data.gpu_id = kfd_gpu_id;
      context.events.memory_fault(data);
    } else {
      report(fmt::format("{}, queue {} is stopped: {}", whose(context), queue->id, fault.text));
      stop(*queue);
      signal_queue_error(*queue, fault.error);
      kfd_hsa_hw_exception_data data{};
      data.reset_type = KFD_HW_EXCEPTION_PER_ENGINE_RESET;
      data.reset_cause = KFD_HW_EXCEPTION_GPU_HANG;
      data.gpu_id = kfd_gpu_id;
      context.events.hardware_exception(data);
    }
  }
}

void Gpu::signal_queue_error(GpuQueue& queue, std::int64_t error) {
  const std::uint64_t signal = inactive_signal_of(queue);
  if (signal == 0) return;
  GpuMemory& memory = queue.context.memory;
  // A signal that is not mapped has nobody to tell: the queue has stopped all the same.
  if (memory.store(signal + offsetof(amd_signal_t, value), static_cast<std::uint64_t>(error))) {
    ring_mailbox(queue.context, signal);
  }
}

}  // namespace eclip::kfdsim
