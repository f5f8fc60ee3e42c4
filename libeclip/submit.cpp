// From a call's struct to a packet in the lease ring. No system call while the forwarder is awake.
#include "libeclip/submit.h"

#include <array>

#include "ipc/testpoint.h"
#include "libeclip/errors.h"
#include "libeclip/versioned_struct.h"

namespace eclip {
namespace {

constexpr std::uint32_t known_flags = ECLIP_PACKET_BARRIER | ECLIP_PACKET_SIGNAL;
constexpr std::uint32_t largest_workgroup = 1024;  // work items, of every GPU that ECLIP supports
constexpr std::uint64_t kernarg_alignment = 16;    // of the HSA dispatch packet

/// Puts flags and completion signal into the packet and the packet into the ring.
int push(eclip_lease& lease, LeasePacket& packet, std::uint32_t flags, std::uint32_t signal,
         eclip_token* token) {
  eclip_context& context = *lease.context;
  if (const int failed = context.check_alive(); failed != 0) return failed;
  if (lease.state() != LeaseState::active) return report_lease_end(lease);
  if ((flags & ~known_flags) != 0)
    return report(EINVAL, "unknown packet flags " + std::to_string(flags));
  const bool recorded = context.recorder && packet.type == LeasePacketType::dispatch;
  // Each recorded kernel waits for the one before it: its times are its own.
  if ((flags & ECLIP_PACKET_BARRIER) != 0 || recorded) packet.flags = LeasePacket::flag_barrier;
  bool own_signal = false;  // of the recorder
  if ((flags & ECLIP_PACKET_SIGNAL) != 0) {
    if (!context.signals->is_reserved(signal))
      return report(EINVAL, "signal " + std::to_string(signal) + " was not created");
    const auto begun = context.signals->begin_use(signal);
    if (!begun)
      return report(EBUSY, "the last use of signal " + std::to_string(signal) +
                               " has not completed; wait for it or use another signal");
    packet.completion = *begun;
  } else if (recorded) {
    own_signal = add_recorders_signal(context, packet);
    if (!own_signal)
      return report(EAGAIN,
                    "as many packets are in flight as can be recorded; wait for a packet and "
                    "try again");
  }
  switch (push_packet(lease, packet, own_signal)) {
    case 0:
      break;
    case -EAGAIN:
      return report(EAGAIN, "the lease's ring is full; wait for a packet and try again");
    default:
      return report_lease_end(lease);
  }
  if (token != nullptr)
    *token = own_signal ? eclip_token{0, 0}
                        : eclip_token{packet.completion.signal, packet.completion.generation};
  return 0;
}

}  // namespace

int report_lease_end(const eclip_lease& lease) {
  const auto& slot = lease.context->state().leases[lease.slot];
  return report(ESTALE,
                "lease " + std::to_string(lease.id) +
                    (lease.state() == LeaseState::revoked ? " was revoked" : " has ended") + " (" +
                    describe(static_cast<LeaseEnd>(slot.reason.load(std::memory_order_relaxed))) +
                    "): release it and plan anew");
}

bool add_recorders_signal(eclip_context& context, LeasePacket& packet) {
  const auto signal = context.recorder->take_signal();
  if (!signal) return false;
  const auto use = context.signals->begin_use(*signal);
  if (!use) {
    context.recorder->give_back(*signal);
    return false;
  }
  packet.completion = *use;
  return true;
}

int push_packet(eclip_lease& lease, const LeasePacket& packet, bool own_signal) {
  eclip_context& context = *lease.context;
  DispatchRecorder* const recorder = context.recorder.get();
  const SignalUse use = packet.completion;
  if (use.generation != 0) {
    ECLIP_TESTPOINT("signal_use_begun");
    if (recorder != nullptr) recorder->collect();
  }
  if (!lease.writer.push(packet)) {
    if (use.generation != 0) context.signals->cancel_use(use);
    if (own_signal) recorder->give_back(use.signal);
    return -EAGAIN;
  }
  ECLIP_TESTPOINT("index_stored");
  context.wake_forwarder();
  // The lease may have ended while the packet was written. Either eclipd has taken the packet, or
  // it has dropped it, or it has not even seen it and never will.
  if (lease.state() == LeaseState::ended && !lease.was_accepted(lease.writer.written())) {
    if (use.generation != 0) context.signals->abandon_use(use);
    if (own_signal) recorder->give_back(use.signal);
    return -ESTALE;
  }
  if (recorder != nullptr && packet.type == LeasePacketType::dispatch)
    recorder->submitted(lease.id, packet.dispatch, use, own_signal);
  return 0;
}

int check(const eclip_dispatch& dispatch) {
  std::uint32_t workgroup = 1;
  for (std::size_t i = 0; i < 3; ++i) {
    if (dispatch.grid_size[i] == 0 || dispatch.workgroup_size[i] == 0)
      return report(EINVAL, "grid_size and workgroup_size must be positive in all dimensions");
    if (dispatch.workgroup_size[i] > largest_workgroup / workgroup)
      return report(
          EINVAL, "a workgroup has more than " + std::to_string(largest_workgroup) + " work items");
    workgroup *= dispatch.workgroup_size[i];
  }
  if (dispatch.reserved != 0) return report(EINVAL, "reserved must be 0");
  if (dispatch.kernarg_offset % kernarg_alignment != 0)
    return report(EINVAL, "kernarg_offset " + std::to_string(dispatch.kernarg_offset) +
                              " is not a multiple of " + std::to_string(kernarg_alignment));
  if (dispatch.kernarg_memory == 0 && dispatch.kernarg_offset != 0)
    return report(EINVAL, "kernarg_offset without kernarg_memory");
  return 0;
}

LeaseDispatch lease_dispatch(const eclip_dispatch& dispatch) {
  return {.kernel = dispatch.kernel,
          .grid_size = std::to_array(dispatch.grid_size),
          .workgroup_size = std::to_array(dispatch.workgroup_size),
          .reserved = 0,
          .group_segment_bytes = dispatch.group_segment_bytes,
          .kernarg_memory = dispatch.kernarg_memory,
          .kernarg_offset = dispatch.kernarg_offset};
}

namespace {

int submit_dispatch(eclip_lease* lease, const eclip_dispatch* given, eclip_token* token) {
  if (lease == nullptr) return report(EINVAL, "the lease is NULL");
  eclip_dispatch dispatch;
  if (const int failed = read_struct(given, dispatch); failed != 0) return failed;
  if (const int failed = check(dispatch); failed != 0) return failed;
  LeasePacket packet{};
  packet.type = LeasePacketType::dispatch;
  packet.dispatch = lease_dispatch(dispatch);
  return push(*lease, packet, dispatch.flags, dispatch.signal, token);
}

int submit_barrier(eclip_lease* lease, const eclip_barrier* given, eclip_token* token) {
  if (lease == nullptr) return report(EINVAL, "the lease is NULL");
  eclip_barrier barrier;
  if (const int failed = read_struct(given, barrier); failed != 0) return failed;
  LeasePacket packet{};
  if (barrier.dependency_count > packet.barrier.dependencies.size())
    return report(EINVAL, "a barrier has at most 5 dependencies, not " +
                              std::to_string(barrier.dependency_count));
  if (barrier.kind != ECLIP_BARRIER_AND && barrier.kind != ECLIP_BARRIER_OR)
    return report(EINVAL, "unknown kind of barrier " + std::to_string(barrier.kind));
  if (barrier.reserved != 0) return report(EINVAL, "reserved must be 0");
  packet.type = barrier.kind == ECLIP_BARRIER_AND ? LeasePacketType::barrier_and
                                                  : LeasePacketType::barrier_or;
  packet.barrier = {};
  for (std::size_t i = 0; i < barrier.dependency_count; ++i) {
    const SignalUse use{barrier.dependencies[i].signal, barrier.dependencies[i].generation};
    if (use.generation == 0) continue;
    // eclipd would wait for ever for a use that nobody submits.
    if (use.signal >= WorkerState::signal_count || !lease->context->signals->was_begun(use))
      return report(EINVAL, "dependency " + std::to_string(i) + " is not of a submitted packet");
    packet.barrier.dependencies[i] = use;
  }
  return push(*lease, packet, barrier.flags, barrier.signal, token);
}

}  // namespace
}  // namespace eclip

int eclip_submit_dispatch(eclip_lease* lease, const struct eclip_dispatch* dispatch,
                          struct eclip_token* token) {
  return eclip::guarded([&] { return eclip::submit_dispatch(lease, dispatch, token); });
}

int eclip_submit_barrier(eclip_lease* lease, const struct eclip_barrier* barrier,
                         struct eclip_token* token) {
  return eclip::guarded([&] { return eclip::submit_barrier(lease, barrier, token); });
}
