#include "libeclip/scheduled_rings.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "ipc/clock_ticks.h"
#include "ipc/testpoint.h"
#include "libeclip/errors.h"
#include "libeclip/submit.h"

namespace eclip {
namespace {

constexpr unsigned packet_number_bits = 56;

/// The stream of a scheduler that the lease is for; none when eclipd cannot mean it.
std::optional<std::uint32_t> stream_of(const Scheduled::ScheduledLease& lease) {
  if (lease.slot >= max_leases_per_worker) return std::nullopt;
  if (lease.stream == Scheduled::no_mask) return PacketSink::unmasked;
  if (lease.stream >= PacketSink::unmasked) return std::nullopt;
  return lease.stream;
}

}  // namespace

int ScheduledRings::acquire(eclip_context& context, LatencyClass latency_class, Grant& grant) {
  if (const char* cus = std::getenv("ECLIP_CUS"); cus != nullptr && *cus != '\0') {
    eclip_lease_request request{};
    request.struct_size = sizeof request;
    request.stream = ECLIP_ANY_STREAM;
    return eclip_lease_acquire(&context, &request, grant.leases.data());
  }
  auto reply = context.control.request(
      MessageType::schedule,
      Schedule{.latency_class = static_cast<std::uint32_t>(latency_class), .reserved = 0},
      MessageType::scheduled);
  if (!reply) return report(reply.error());
  if (reply->fds.size() != 2) return report(EPROTO, "eclipd scheduled a worker without rings");
  auto active_set =
      Region::open(std::move(reply->fds[0]), RegionKind::active_set, sizeof(ActiveSet), true);
  if (!active_set) return report(active_set.error());
  auto opened =
      Region::open(std::move(reply->fds[1]), RegionKind::lease_rings, sizeof(LeaseRings), true);
  if (!opened) return report(opened.error());
  const auto rings = std::make_shared<const Region>(std::move(*opened));
  const auto scheduled = payload_of<Scheduled>(reply->message);
  if (scheduled.count == 0 || scheduled.count > scheduled.leases.size())
    return report(EPROTO,
                  "eclipd scheduled a worker on " + std::to_string(scheduled.count) + " streams");
  // All of it is looked at before any of it is used.
  std::uint32_t streams = 0;  // a set
  for (std::size_t i = 0; i < scheduled.count; ++i) {
    const Scheduled::ScheduledLease& lease = scheduled.leases[i];
    const auto stream = stream_of(lease);
    if (!stream || (streams & 1U << *stream) != 0)
      return report(EPROTO, "eclipd scheduled a worker on stream " + std::to_string(lease.stream) +
                                ", slot " + std::to_string(lease.slot));
    streams |= 1U << *stream;
  }
  for (std::size_t i = 0; i < scheduled.count; ++i) {
    const Scheduled::ScheduledLease& lease = scheduled.leases[i];
    grant.leases[*stream_of(lease)] = context.adopt(
        std::make_unique<eclip_lease>(context, rings, rings->payload<LeaseRings>().rings[i],
                                      LeaseGranted{.lease = lease.lease,
                                                   .stream = lease.stream,
                                                   .cu_count = lease.cu_count,
                                                   .slot = lease.slot,
                                                   .reserved = 0}));
  }
  grant.active_set.emplace(std::move(*active_set));
  ECLIP_TESTPOINT("scheduled");
  return 0;
}

void ScheduledRings::give_back(eclip_context& context, const Grant& grant) {
  const auto deadline = std::chrono::steady_clock::now() + context.control.timeout();
  for (eclip_lease* lease : grant.leases) {
    if (lease == nullptr) continue;
    if (!context.release(lease) || std::chrono::steady_clock::now() >= deadline) return;
  }
}

ScheduledRings::ScheduledRings(eclip_context& context,
                               const std::array<eclip_lease*, PlanTable::max_streams>& leases)
    : context_(&context), leases_(leases) {
  auto& in_use = context.signals_in_use;
  std::erase_if(in_use, [&](std::uint32_t signal) { return context.signals->release(signal); });
  in_use.reserve(in_use.size() + signal_count);  // for the destructor
  while (signals_.size() < signal_count) {
    const auto signal = context.signals->reserve();
    if (!signal) break;
    before_[signals_.size()] = context.signals->last_use(*signal).generation;
    signals_.push_back(*signal);
  }
}

ScheduledRings::~ScheduledRings() {
  // One whose packet still runs is left to the next scheduler.
  for (const std::uint32_t signal : signals_)
    if (!context_->signals->release(signal)) context_->signals_in_use.push_back(signal);
}

std::optional<SignalUse> ScheduledRings::begin_use(std::uint32_t signal) {
  // The next use would hide that the packet of the last one was dropped. What was before this
  // scheduler is not its loss.
  const SignalUse last = context_->signals->last_use(signals_[signal]);
  if (last.generation != before_[signal] && context_->signals->is_cancelled(last)) dropped_ = true;
  return context_->signals->begin_use(signals_[signal]);
}

PacketSink::Pushed ScheduledRings::push(std::uint32_t stream, const LeasePacket& packet) {
  eclip_lease& lease = *leases_[stream];
  LeasePacket own = packet;
  bool recorders = false;
  const bool lost = dropped_ || context_->check_alive() != 0 || lease.state() != LeaseState::active;
  if (!lost && context_->recorder && packet.type == LeasePacketType::dispatch &&
      packet.completion.generation == 0) {
    recorders = add_recorders_signal(*context_, own);
    if (!recorders) return Pushed::full;
  }
  if (lost) {
    if (packet.completion.generation != 0) context_->signals->cancel_use(packet.completion);
    return Pushed::lost;
  }
  switch (push_packet(lease, own, recorders)) {
    case 0:
      if (packet.completion.generation != 0)
        packets_[packet.completion.signal].store(
            std::uint64_t{stream} << packet_number_bits | (lease.writer.written() - 1),
            std::memory_order_relaxed);
      return Pushed::yes;
    case -EAGAIN:
      return Pushed::full;
    default:
      return Pushed::lost;
  }
}

std::optional<PacketSink::Times> ScheduledRings::times(SignalUse use) const {
  const std::uint64_t hz = context_->board().gpu_counter_hz;
  if (use.generation == 0 || hz == 0) return std::nullopt;
  const SignalSlot& slot = context_->state().signals[use.signal];
  // The GPU and, at the signal's next use, eclipd write these; the look afterwards tells.
  const std::uint64_t start = __atomic_load_n(&slot.start_ts, __ATOMIC_ACQUIRE);
  const std::uint64_t end = __atomic_load_n(&slot.end_ts, __ATOMIC_ACQUIRE);
  if (!context_->signals->is_last(use)) return std::nullopt;
  return Times{.start_ns = ticks_to_ns(start, hz), .end_ns = ticks_to_ns(end, hz)};
}

std::string ScheduledRings::place_of(SignalUse use, std::uint32_t stream) const {
  std::string packet;
  if (use.generation != 0) {
    const std::uint64_t pushed = packets_[use.signal].load(std::memory_order_relaxed);
    stream = static_cast<std::uint32_t>(pushed >> packet_number_bits);
    packet = " for packet " + std::to_string(pushed & ((1ULL << packet_number_bits) - 1)) +
             " of lease " + std::to_string(leases_[stream]->id);
  }
  if (!has_stream(stream) || leases_[stream]->stream == Scheduled::no_mask)
    return "on the stream without a CU mask" + packet;
  return "on stream " + std::to_string(leases_[stream]->stream) + packet;
}

int ScheduledRings::report_loss() const {
  if (const int failed = context_->check_alive(); failed != 0) return failed;
  for (const eclip_lease* lease : leases_)
    if (lease != nullptr && lease->state() != LeaseState::active) return report_lease_end(*lease);
  return report(ECANCELED, "a packet was not done: it was dropped with its lease");
}

}  // namespace eclip
