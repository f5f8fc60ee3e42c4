#include "tools/eclip-bench/senders.h"

#include <stdexcept>

namespace eclip::bench {
namespace {

/// Kernels that senders without a scheduler have in the queues at a time.
constexpr std::size_t most_ahead = 8;
static_assert(most_ahead < PacketSink::signal_count);

LeasePacket kernel_packet(std::size_t place, SignalUse completion) {
  LeasePacket packet{};
  packet.type = LeasePacketType::dispatch;
  packet.flags = LeasePacket::flag_barrier;
  packet.completion = completion;
  packet.dispatch = {};
  packet.dispatch.kernel = static_cast<std::uint32_t>(place);
  return packet;
}

/// The next use of the signal of that kernel, which is free: fewer kernels are ahead than there are
/// signals.
SignalUse use_for(SharedDevice& shared, std::size_t worker, std::size_t kernel) {
  const auto use =
      shared.begin_use(worker, static_cast<std::uint32_t>(kernel % PacketSink::signal_count));
  if (!use) throw std::logic_error("a kernel's signal is in use");
  return *use;
}

/// The launch of a kernel: place in the request, from 1, and shape.
LeaseDispatch launch_of(const model::Kernel& kernel, std::size_t place) {
  LeaseDispatch launch{};
  const auto size = static_cast<std::uint16_t>(kernel.shape().workgroup_size);
  launch.kernel = static_cast<std::uint32_t>(place);
  launch.grid_size = {size, kernel.shape().workgroups, 1};
  launch.workgroup_size = {size, 1, 1};
  launch.group_segment_bytes = kernel.shape().local_memory_bytes;
  return launch;
}

}  // namespace

// --- by the scheduler

ScheduledSender::ScheduledSender(SharedDevice& shared, std::size_t worker, const Kernels& kernels,
                                 SharedPlans& plans, ActiveSet& active)
    : kernels_(kernels),
      sink_(shared, worker),
      scheduler_(sink_, PlanReader(plans.tables[worker], plans.epoch), report_, &active.workers),
      program_(scheduler_.create_program()) {}

void ScheduledSender::start() {
  if (scheduler_.begin_request(*program_) != Enqueued::yes)
    throw std::logic_error("the scheduler took no request");
  open_ = true;
  next_ = 0;
  feed();
}

void ScheduledSender::go_on() {
  scheduler_.advance();
  if (open_) feed();
}

/// Requests longer than a program's capacity go in piecemeal.
void ScheduledSender::feed() {
  for (; next_ < kernels_.size(); ++next_) {
    const Enqueued put = scheduler_.dispatch(*program_, launch_of(*kernels_[next_], next_ + 1));
    if (put == Enqueued::full) return;
    if (put != Enqueued::yes) throw std::logic_error("the scheduler took no kernel");
  }
  if (scheduler_.end_request(*program_) == Enqueued::yes) open_ = false;
}

std::uint64_t ScheduledSender::requests_done() const {
  return scheduler_.requests_done(*program_);
}

SendCounts ScheduledSender::counts() const {
  SendCounts counts{.scheduled = report_.scheduled.load(), .barriers = report_.barriers.load()};
  for (const auto& bypassed : report_.bypassed) counts.bypassed += bypassed.load();
  for (const auto& switches : report_.switches) counts.switches += switches.load();
  return counts;
}

// --- a stream for each kernel

void KernelwiseSender::start() {
  running_ = true;
  sent_ = 0;
  completed_ = 0;
  go_on();
}

void KernelwiseSender::go_on() {
  if (!running_) return;
  while (completed_ < sent_ && shared_.is_complete(worker_, uses_[completed_ % uses_.size()]))
    ++completed_;
  if (completed_ == streams_.size()) {
    running_ = false;
    ++done_;
    return;
  }
  for (; sent_ < streams_.size() && sent_ < completed_ + most_ahead; ++sent_) {
    if (sent_ > 0 && streams_[sent_] != streams_[sent_ - 1]) {
      LeasePacket barrier{};
      barrier.type = LeasePacketType::barrier_and;
      barrier.flags = LeasePacket::flag_barrier;
      barrier.barrier = {};
      barrier.barrier.dependencies[0] = uses_[(sent_ - 1) % uses_.size()];
      shared_.push(worker_, streams_[sent_], barrier);
      ++counts_.barriers;
      ++counts_.switches;
    }
    const SignalUse use = use_for(shared_, worker_, sent_);
    uses_[sent_ % uses_.size()] = use;
    shared_.push(worker_, streams_[sent_], kernel_packet(sent_ + 1, use));
  }
}

// --- a mask for each kernel

void MaskIoctlSender::start() {
  running_ = true;
  sent_ = 0;
  completed_ = 0;
  go_on();
}

void MaskIoctlSender::go_on() {
  if (!running_) return;
  if (ioctl_ends_ && *ioctl_ends_ <= shared_.device().now()) ioctl_ends_.reset();
  while (completed_ < sent_ && shared_.is_complete(worker_, uses_[completed_ % uses_.size()]))
    ++completed_;
  if (completed_ == streams_.size()) {
    running_ = false;
    ++done_;
    return;
  }
  if (ioctl_ends_) return;
  for (; sent_ < streams_.size() && sent_ < completed_ + most_ahead; ++sent_) {
    if (streams_[sent_] != mask_) {
      if (completed_ < sent_) return;  // not before the queue is empty
      change_mask(streams_[sent_]);
      if (ioctl_ends_) return;
    }
    const SignalUse use = use_for(shared_, worker_, sent_);
    uses_[sent_ % uses_.size()] = use;
    shared_.push(worker_, SharedDevice::unmasked, kernel_packet(sent_ + 1, use));
  }
}

void MaskIoctlSender::change_mask(std::uint32_t stream) {
  mask_ = stream;
  ++counts_.ioctls;
  model::Device& device = shared_.device();
  const auto changed =
      device.set_cu_mask(shared_.queue(worker_, SharedDevice::unmasked), masks_[stream]);
  if (!changed) throw std::logic_error(changed.error().message());
  const model::DeviceTime free_at = device.stall(stalls_.next(), device.now());
  if (free_at > device.now()) ioctl_ends_ = free_at;
}

}  // namespace eclip::bench
