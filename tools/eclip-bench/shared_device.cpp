#include "tools/eclip-bench/shared_device.h"

#include <algorithm>

namespace eclip::bench {
namespace {

// A packet's cookie: its completion signal as barriers name it (worker + 1, signal, generation),
// and above that the kernel's place in the request, from 1.
constexpr unsigned signal_shift = 32;
constexpr unsigned worker_shift = 40;
constexpr unsigned kernel_shift = 44;
constexpr std::uint64_t signal_mask = 0xff;
constexpr std::uint64_t worker_mask = 0xf;
constexpr std::size_t most_kernels_of_cookie = std::size_t{1} << 20U;

std::uint64_t cookie_of(std::size_t worker, SignalUse use) {
  return std::uint64_t{worker + 1} << worker_shift | std::uint64_t{use.signal} << signal_shift |
         use.generation;
}
std::size_t worker_of(std::uint64_t cookie) {
  return (cookie >> worker_shift & worker_mask) - 1;
}
SignalUse use_of(std::uint64_t cookie) {
  return {static_cast<std::uint32_t>(cookie >> signal_shift & signal_mask),
          static_cast<std::uint32_t>(cookie)};
}
static_assert(PacketSink::signal_count <= signal_mask + 1);
static_assert(PlanTable::max_workers < worker_mask);

}  // namespace

Result<std::unique_ptr<SharedDevice>> SharedDevice::create(const model::GpuDescription& gpu,
                                                           std::span<const CuMask> pool,
                                                           std::vector<Kernels> kernels,
                                                           Trace* trace) {
  if (pool.size() > unmasked || kernels.size() > PlanTable::max_workers)
    return fail(Errc::invalid_argument,
                std::to_string(pool.size()) + " streams and " + std::to_string(kernels.size()) +
                    " workers are more than a plan has; give at most seven of each");
  std::unique_ptr<SharedDevice> shared(new SharedDevice(gpu, trace));
  for (const CuMask& mask : pool) {
    const auto queue = shared->device_.create_queue(mask);
    if (!queue) return tl::unexpected(queue.error());
    shared->pool_.push_back(*queue);
  }
  for (Kernels& of_worker : kernels) {
    if (of_worker.empty() || of_worker.size() >= most_kernels_of_cookie)
      return fail(Errc::invalid_argument, "a worker has " + std::to_string(of_worker.size()) +
                                              " kernels in a request; give 1 to 2^20 - 1");
    const auto queue = shared->device_.create_queue(CuMask::full(gpu.geometry.cu_count()));
    if (!queue) return tl::unexpected(queue.error());
    Worker& worker = shared->workers_.emplace_back();
    worker.kernels = std::move(of_worker);
    worker.unmasked = *queue;
  }
  return shared;
}

std::uint32_t SharedDevice::stream_of(model::QueueId queue) const {
  const auto found = std::find(pool_.begin(), pool_.end(), queue);
  return found == pool_.end() ? unmasked : static_cast<std::uint32_t>(found - pool_.begin());
}

PacketSink::Pushed SharedDevice::push(std::size_t worker, std::uint32_t stream,
                                      const LeasePacket& packet) {
  Worker& from = workers_[worker];
  if (from.pushed[stream] - from.completed[stream] >= LeaseRing::slot_count)
    return PacketSink::Pushed::full;
  model::Packet sent{.barrier = (packet.flags & LeasePacket::flag_barrier) != 0,
                     .cookie = cookie_of(worker, packet.completion)};
  if (packet.type == LeasePacketType::dispatch) {
    sent.kernel = from.kernels[packet.dispatch.kernel - 1];
    sent.cookie |= std::uint64_t{packet.dispatch.kernel} << kernel_shift;
  } else {
    sent.kind = packet.type == LeasePacketType::barrier_or ? model::PacketKind::barrier_or
                                                           : model::PacketKind::barrier_and;
    for (std::size_t i = 0; i < sent.dependencies.size(); ++i)
      if (const SignalUse use = packet.barrier.dependencies[i]; use.generation != 0)
        sent.dependencies[i] = cookie_of(worker, use);
  }
  ++from.pushed[stream];
  device_.submit(queue(worker, stream), std::move(sent), device_.now());
  return PacketSink::Pushed::yes;
}

std::optional<SignalUse> SharedDevice::begin_use(std::size_t worker, std::uint32_t signal) {
  Signal& slot = workers_[worker].signals[signal];
  if (!slot.complete) return std::nullopt;
  slot.complete = false;
  return SignalUse{signal, ++slot.generation};
}

void SharedDevice::cancel_use(std::size_t worker, SignalUse use) {
  Signal& slot = workers_[worker].signals[use.signal];
  slot.complete = true;
  --slot.generation;
}

bool SharedDevice::is_complete(std::size_t worker, SignalUse use) const {
  if (use.generation == 0) return true;
  const Signal& slot = workers_[worker].signals[use.signal];
  return slot.generation != use.generation || slot.complete;
}

std::optional<PacketSink::Times> SharedDevice::times(std::size_t worker, SignalUse use) const {
  const Signal& slot = workers_[worker].signals[use.signal];
  if (use.generation == 0 || slot.generation != use.generation || !slot.complete)
    return std::nullopt;
  return slot.times;
}

bool SharedDevice::take_news(std::size_t worker) {
  return std::exchange(workers_[worker].news, false);
}

std::int64_t SharedDevice::signal_value(model::SignalAddress signal) {
  return is_complete(worker_of(signal), use_of(signal)) ? 0 : 1;
}

void SharedDevice::packet_completed(model::QueueId queue, const model::Packet& packet,
                                    model::DeviceTime start, model::DeviceTime end) {
  const std::size_t number = worker_of(packet.cookie);
  Worker& worker = workers_[number];
  const std::uint32_t stream = stream_of(queue);
  ++worker.completed[stream];
  const auto kernel = static_cast<std::uint32_t>(packet.cookie >> kernel_shift);
  if (kernel != 0) {
    const std::uint64_t due = worker.kernels_run % worker.kernels.size() + 1;
    if (kernel != due || start < worker.last_end) ++disorder_;
    ++worker.kernels_run;
    worker.last_end = end;
  }
  if (trace_ != nullptr) trace_->ran(number, stream, kernel, start, end);
  const SignalUse use = use_of(packet.cookie);
  if (use.generation == 0) return;
  Signal& slot = worker.signals[use.signal];
  slot.complete = true;
  slot.times = {static_cast<std::uint64_t>(start.count()), static_cast<std::uint64_t>(end.count())};
  worker.news = true;
}

}  // namespace eclip::bench
