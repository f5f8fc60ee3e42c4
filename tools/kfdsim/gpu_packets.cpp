// The Gpu's packets: from the ring into the device model, and what their start and end do to the
// clients' memory.
#include <fmt/format.h>
#include <hsa/amd_hsa_signal.h>

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>

#include "tools/kfdsim/blit_kernels.h"
#include "tools/kfdsim/gpu.h"
#include "tools/replay/replay_kernel.h"

namespace eclip::kfdsim {
namespace {

// GPU addresses have 47 bits; above them, a model::SignalAddress holds the address space + 1.
constexpr unsigned address_space_shift = 48;
constexpr std::uint64_t address_mask = (1ULL << address_space_shift) - 1;
// A wait for a value in memory is a dependency on its arguments' address with this bit.
constexpr std::uint64_t stream_wait_bit = 1ULL << 47;

model::SignalAddress global_address(const GpuContext& context, std::uint64_t signal) {
  return (std::uint64_t{context.address_space} + 1) << address_space_shift | signal;
}

std::uint64_t value_address(std::uint64_t signal) {
  return signal + offsetof(amd_signal_t, value);
}

QueueFault unreachable(std::uint64_t address, std::string_view what) {
  return {true, address, fmt::format("{} at {:#x} is not mapped on the GPU", what, address)};
}

using Name = std::shared_ptr<const std::string>;
const Name cache_maintenance_name = std::make_shared<const std::string>("cache maintenance");
const Name barrier_and_name = std::make_shared<const std::string>("barrier-AND");
const Name barrier_or_name = std::make_shared<const std::string>("barrier-OR");

bool is_signal(const GpuContext& context, std::uint64_t signal) {
  return signal % alignof(std::uint64_t) == 0 && signal <= address_mask &&
         context.memory.mapped(signal, sizeof(amd_signal_t));
}

/// nullopt when the arguments or the word are not mapped any more.
std::optional<bool> stream_wait_holds(const GpuMemory& memory, std::uint64_t arguments) {
  const auto wait = memory.read_as<StreamWait>(arguments);
  if (!wait) return std::nullopt;
  if (wait->word32 != 0) {
    const auto word = memory.read_as<std::uint32_t>(wait->word32);
    return word ? std::optional(wait->holds(*word)) : std::nullopt;
  }
  const auto word = memory.load(wait->word64);
  return word ? std::optional(wait->holds(*word)) : std::nullopt;
}

}  // namespace

std::optional<QueueFault> Gpu::prepare(GpuQueue& queue, const AqlPacket& packet,
                                       InFlightPacket& record, model::Packet& out) {
  GpuContext& context = queue.context;
  out.barrier = packet.barrier_bit;
  record.completion_signal = packet.completion_signal;
  if (packet.completion_signal != 0 && !is_signal(context, packet.completion_signal)) {
    return unreachable(packet.completion_signal, "its completion signal");
  }
  if (const auto* dispatch = std::get_if<DispatchPacket>(&packet.body)) {
    auto found = context.kernels.find(context.memory, *dispatch);
    if (auto* fault = std::get_if<QueueFault>(&found)) return std::move(*fault);
    auto& kernel = std::get<DispatchedKernel>(found);
    if (kernel.waits) {
      if (!context.memory.mapped(dispatch->kernarg_address, sizeof(StreamWait))) {
        return unreachable(dispatch->kernarg_address, "the kernarg segment");
      }
      record.name = kernel.name;
      record.barrier.dependencies[0] = stream_wait_bit | dispatch->kernarg_address;
      out.kind = model::PacketKind::barrier_and;
      out.dependencies[0] = global_address(context, record.barrier.dependencies[0]);
      return std::nullopt;
    }
    record.is_dispatch = true;
    record.dispatch = *dispatch;
    record.kernel = std::move(kernel);
    record.name = record.kernel.name;
    record.workgroups = record.kernel.kernel->shape().workgroups;
    out.kind = model::PacketKind::dispatch;
    out.kernel = record.kernel.kernel;
    return std::nullopt;
  }
  out.kind = model::PacketKind::barrier_and;
  record.name = cache_maintenance_name;
  if (const auto* barrier = std::get_if<BarrierPacket>(&packet.body)) {
    record.name = barrier->any ? barrier_or_name : barrier_and_name;
    record.barrier = *barrier;
    if (barrier->any) out.kind = model::PacketKind::barrier_or;
    for (std::size_t i = 0; i < barrier->dependencies.size(); ++i) {
      const std::uint64_t signal = barrier->dependencies.at(i);
      if (signal == 0) continue;
      if (!is_signal(context, signal)) return unreachable(signal, "a signal that it waits for");
      out.dependencies.at(i) = global_address(context, signal);
    }
  }
  return std::nullopt;
}

void Gpu::submit(GpuQueue& queue, const FetchedPacket& fetched, model::DeviceTime now) {
  InFlightPacket record;
  model::Packet packet;
  packet.cookie = fetched.index;
  if (auto fault = prepare(queue, fetched.packet, record, packet)) {
    fault->text = fmt::format("packet {}: {}", fetched.index, fault->text);
    queue.fault_when_drained = std::move(fault);
    return;
  }
  ++packets_in_flight_;
  if (!record.is_dispatch) ++barriers_in_flight_;
  queue.in_flight.emplace(fetched.index, std::move(record));
  device_.submit(*queue.model_id, std::move(packet), now);
}

std::int64_t Gpu::signal_value(model::SignalAddress signal) {
  const std::uint64_t space = (signal >> address_space_shift) - 1;
  const GpuContext& context = *contexts_[space];
  const std::uint64_t address = signal & address_mask;
  if ((address & stream_wait_bit) != 0) {
    if (const auto holds = stream_wait_holds(context.memory, address & ~stream_wait_bit)) {
      return *holds ? 0 : 1;
    }
  } else if (const auto value = context.memory.load(value_address(address))) {
    return static_cast<std::int64_t>(*value);
  }
  // The client freed the signal while barriers wait for it: these fault, and nobody else.
  for (const auto& [id, queue] : context.queues) {
    for (const auto& [index, packet] : queue->in_flight) {
      for (const std::uint64_t dependency : packet.barrier.dependencies) {
        if (dependency != address) continue;
        fault(*queue, unreachable(address & ~stream_wait_bit, "what it waits for"));
      }
    }
  }
  return 1;
}

std::optional<QueueFault> Gpu::start_mix(GpuQueue& queue, InFlightPacket& record) {
  const GpuMemory& memory = queue.context.memory;
  const std::uint64_t kernarg = record.dispatch.kernarg_address;
  const auto arguments = memory.read_as<replay::MixKernarg>(kernarg);
  if (!arguments) return unreachable(kernarg, "the kernarg segment");
  if (arguments->input_count > replay::MixKernarg::max_inputs) {
    return QueueFault{false, 0,
                      fmt::format("a mixing kernel has {} inputs", arguments->input_count)};
  }
  std::array<std::uint64_t, replay::MixKernarg::max_inputs> inputs{};
  for (std::size_t i = 0; i < arguments->input_count; ++i) {
    const auto value = memory.load(arguments->inputs.at(i));
    if (!value) return unreachable(arguments->inputs.at(i), "an input of a mixing kernel");
    inputs.at(i) = *value;
  }
  record.output_address = arguments->output;
  record.output = replay::mix(arguments->salt, std::span(inputs).first(arguments->input_count));
  return std::nullopt;
}

void Gpu::release_slot(GpuQueue& queue, std::uint64_t index) {
  if (!queue.publish_taken(index)) {
    fault(queue, unreachable(queue.ring.read_pointer, "its read pointer"));
  }
}

void Gpu::packet_started(model::QueueId id, const model::Packet& packet, model::DeviceTime) {
  if (reset_due_) return;
  GpuQueue& queue = *by_model_id_.at(id.value);
  InFlightPacket& record = queue.in_flight.at(packet.cookie);
  record.mask = queue.mask;
  if (record.kernel.shadow != nullptr && record.kernel.shadow->early_argument_bytes != 0) {
    record.arguments.resize(record.kernel.shadow->early_argument_bytes);
    // Unmapped arguments are found again, and reported, when the shadow runs.
    if (!queue.context.memory.read(record.dispatch.kernarg_address, record.arguments)) {
      record.arguments.clear();
    }
  }
  // A barrier packet keeps its slot while it looks at its signals.
  if (record.is_dispatch) release_slot(queue, packet.cookie);
  if (!record.kernel.mixes) return;
  if (auto bad = start_mix(queue, record)) fault(queue, std::move(*bad));
}

void Gpu::packet_completed(model::QueueId id, const model::Packet& packet, model::DeviceTime start,
                           model::DeviceTime end) {
  if (reset_due_) return;
  GpuQueue& queue = *by_model_id_.at(id.value);
  const auto found = queue.in_flight.find(packet.cookie);
  const InFlightPacket& record = found->second;
  if (!record.is_dispatch) release_slot(queue, packet.cookie);
  GpuMemory& memory = queue.context.memory;
  if (auto unread = run_shadow(queue, record)) {
    fault(queue, std::move(*unread));
  } else if (record.output_address != 0 && !memory.store(record.output_address, record.output)) {
    fault(queue, unreachable(record.output_address, "the output of a mixing kernel"));
  } else if (record.completion_signal != 0) {
    if (auto bad = complete_signal(queue.context, record.completion_signal, start, end)) {
      fault(queue, std::move(*bad));
    }
  }
  trace(queue, record, start, end);
  count(record);
  completed(queue.context, end);
  --packets_in_flight_;
  if (!record.is_dispatch) --barriers_in_flight_;
  queue.in_flight.erase(found);
}

std::optional<QueueFault> Gpu::run_shadow(GpuQueue& queue, const InFlightPacket& record) {
  if (record.kernel.shadow == nullptr) return std::nullopt;
  ShadowLaunch launch(queue.context.memory, record.dispatch, record.arguments);
  const bool ran = record.kernel.shadow->run(&launch.launch()) == 0;
  if (ran) launch.commit();
  if (ran && !launch.unreachable()) return std::nullopt;
  const std::uint64_t address = launch.unreachable().value_or(0);
  if (launch.too_large()) {
    return QueueFault{true, address,
                      fmt::format("kernel {} reaches for more than {} MiB of private or scattered "
                                  "memory at {:#x}: kfdsim copies no more",
                                  *record.name, ShadowLaunch::max_staged_bytes >> 20, address)};
  }
  if (!launch.unreachable()) {
    return QueueFault{true, address,
                      fmt::format("kernel {} reports that it reached no memory, or would move too "
                                  "much of it",
                                  *record.name)};
  }
  return unreachable(address, fmt::format("what kernel {} reads or writes", *record.name));
}

void Gpu::count(const InFlightPacket& record) {
  if (!record.is_dispatch) return;
  if (record.kernel.estimated) ++totals_.estimated_times;
  if (record.kernel.replay || record.kernel.shadow != nullptr) return;
  // Names are the clients', who may make up ever new ones.
  constexpr std::size_t max_names = 1000;
  static const std::string other_names = "other kernels";
  auto& counts = totals_.without_effect;
  const bool is_named = counts.size() < max_names || counts.contains(*record.name);
  ++counts[is_named ? *record.name : other_names];
}

std::optional<QueueFault> Gpu::complete_signal(GpuContext& context, std::uint64_t signal,
                                               model::DeviceTime start, model::DeviceTime end) {
  GpuMemory& memory = context.memory;
  // Times first: whoever sees the new value may read them.
  if (!memory.store(signal + offsetof(amd_signal_t, start_ts), clock_.ticks(start)) ||
      !memory.store(signal + offsetof(amd_signal_t, end_ts), clock_.ticks(end)) ||
      !memory.add(value_address(signal), -1)) {
    return unreachable(signal, "its completion signal");
  }
  return ring_mailbox(context, signal);
}

std::optional<QueueFault> Gpu::ring_mailbox(GpuContext& context, std::uint64_t signal) {
  GpuMemory& memory = context.memory;
  const auto mailbox = memory.load(signal + offsetof(amd_signal_t, event_mailbox_ptr));
  if (!mailbox || *mailbox == 0) return std::nullopt;
  const auto event = memory.read_as<std::uint32_t>(signal + offsetof(amd_signal_t, event_id));
  if (!event || !memory.store(*mailbox, *event)) return unreachable(*mailbox, "an event mailbox");
  context.events.interrupt(*event, memory);
  return std::nullopt;
}

void Gpu::trace(const GpuQueue& queue, const InFlightPacket& packet, model::DeviceTime start,
                model::DeviceTime end) {
  if (trace_ == nullptr) return;
  trace_->add({queue.context.pid, queue.context.command, queue.id, *packet.name, *packet.mask,
               packet.workgroups, start, end});
}

}  // namespace eclip::kfdsim
