#include "libeclip/scheduled_rings.h"

#include <cstdlib>

#include "ipc/clock_ticks.h"
#include "libeclip/errors.h"
#include "libeclip/submit.h"

namespace eclip {

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
  for (std::size_t i = 0; i < scheduled.leases.size() && i < scheduled.count; ++i) {
    const Scheduled::ScheduledLease& lease = scheduled.leases[i];
    const std::uint32_t stream = lease.stream == Scheduled::no_mask ? unmasked : lease.stream;
    if (stream >= grant.leases.size() || lease.slot >= max_leases_per_worker)
      return report(EPROTO, "eclipd scheduled a worker on stream " + std::to_string(lease.stream) +
                                ", slot " + std::to_string(lease.slot));
    grant.leases[stream] = context.adopt(
        std::make_unique<eclip_lease>(context, rings, rings->payload<LeaseRings>().rings[i],
                                      LeaseGranted{.lease = lease.lease,
                                                   .stream = lease.stream,
                                                   .cu_count = lease.cu_count,
                                                   .slot = lease.slot,
                                                   .reserved = 0}));
  }
  if (grant.leases == decltype(grant.leases){})
    return report(EPROTO, "eclipd scheduled a worker without streams");
  grant.active_set.emplace(std::move(*active_set));
  return 0;
}

ScheduledRings::ScheduledRings(eclip_context& context,
                               const std::array<eclip_lease*, PlanTable::max_streams>& leases)
    : context_(&context), leases_(leases) {
  while (signals_.size() < signal_count) {
    const auto signal = context.signals->reserve();
    if (!signal) break;
    signals_.push_back(*signal);
  }
}

ScheduledRings::~ScheduledRings() {
  // One whose packet still runs stays reserved until the connection ends.
  for (const std::uint32_t signal : signals_) static_cast<void>(context_->signals->release(signal));
}

PacketSink::Pushed ScheduledRings::push(std::uint32_t stream, const LeasePacket& packet) {
  eclip_lease& lease = *leases_[stream];
  LeasePacket own = packet;
  bool recorders = false;
  bool lost = context_->check_alive() != 0 || lease.state() != LeaseState::active;
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

int ScheduledRings::report_loss() const {
  if (const int failed = context_->check_alive(); failed != 0) return failed;
  for (const eclip_lease* lease : leases_)
    if (lease != nullptr && lease->state() != LeaseState::active) return report_lease_end(*lease);
  return report(ECANCELED, "a packet was not done: it was dropped with its lease");
}

}  // namespace eclip
