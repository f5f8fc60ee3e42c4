// Acquiring, renewing and releasing streams.
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "ipc/cu_mask.h"
#include "ipc/futex.h"
#include "ipc/testpoint.h"
#include "libeclip/context.h"
#include "libeclip/errors.h"
#include "libeclip/versioned_struct.h"

namespace eclip {
namespace {

using Clock = std::chrono::steady_clock;

/// As of waiters for packets: how soon the end of eclipd is noticed, which wakes nobody.
constexpr std::chrono::milliseconds longest_lease_sleep{100};

static_assert(ECLIP_ANY_STREAM == LeaseAcquire::any_stream);
static_assert(ECLIP_PRIORITY_LOW + 1 == static_cast<int>(LeasePriority::low));
static_assert(ECLIP_PRIORITY_HIGH + 1 == static_cast<int>(LeasePriority::high));
static_assert(ECLIP_LEASE_ACTIVE == static_cast<unsigned>(LeaseState::active));
static_assert(ECLIP_LEASE_REVOKED == static_cast<unsigned>(LeaseState::revoked));
static_assert(ECLIP_LEASE_ENDED == static_cast<unsigned>(LeaseState::ended));
static_assert(ECLIP_REASON_ADMINISTRATOR == static_cast<unsigned>(LeaseEnd::administrator));
static_assert(ECLIP_REASON_EXPIRED == static_cast<unsigned>(LeaseEnd::expired));
static_assert(ECLIP_REASON_CUT_OFF == static_cast<unsigned>(LeaseEnd::cut_off));

/// A number in the environment; 0 when the variable is not set. 0 or -EINVAL.
int read_number(const char* variable, std::uint32_t largest, const char* meaning,
                std::uint32_t& number) {
  number = 0;
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, number);
  if (error != std::errc() || stop != end || number < 1 || number > largest)
    return report(EINVAL, std::string(variable) + " is \"" + text + "\"; it must be " + meaning +
                              " from 1 to " + std::to_string(largest));
  return 0;
}

/// Puts $ECLIP_CUS, when it is set, in the place of the stream that a request asks for. 0 or
/// -EINVAL.
int apply_cus(eclip_lease_request& request) {
  std::uint32_t cus = 0;
  if (const int failed = read_number("ECLIP_CUS", CuMask::max_size, "a number of CUs", cus);
      failed != 0 || cus == 0)
    return failed;
  request.stream = ECLIP_ANY_STREAM;
  request.cu_count = cus;
  return 0;
}

/// Puts $ECLIP_SHARE into a request that names no share. 0 or -EINVAL.
int apply_share(eclip_lease_request& request) {
  if (request.share_percent > 100)
    return report(EINVAL, "share_percent is " + std::to_string(request.share_percent) +
                              "; it must be at most 100");
  if (request.share_percent != 0) return 0;
  return read_number("ECLIP_SHARE", 100, "a whole number of percent", request.share_percent);
}

/// The lease of a lease_granted.
int open_lease(eclip_context& context, ReceivedMessage reply, eclip_lease** lease) {
  if (reply.fds.size() != 1) return report(EPROTO, "eclipd granted a lease without a ring");
  auto ring =
      Region::open(std::move(reply.fds[0]), RegionKind::lease_ring, sizeof(LeaseRing), true);
  if (!ring) return report(ring.error());
  const auto granted = payload_of<LeaseGranted>(reply.message);
  if (granted.slot >= max_leases_per_worker)
    return report(EPROTO, "eclipd granted a lease in slot " + std::to_string(granted.slot));
  auto region = std::make_shared<const Region>(std::move(*ring));
  auto& payload = region->payload<LeaseRing>();
  *lease =
      context.adopt(std::make_unique<eclip_lease>(context, std::move(region), payload, granted));
  return 0;
}

/// What a lease that ended in the queue is to its caller.
int report_unserved(LeaseEnd reason) {
  switch (reason) {
    case LeaseEnd::wait_over:
    case LeaseEnd::not_claimed:
      return report(ETIMEDOUT, std::string("queued for a stream: ") + describe(reason));
    default:
      return report(ESTALE, std::string("taken out of the queue: ") + describe(reason));
  }
}

/// Sleeps on the slot until eclipd offers a stream, and takes it.
int await_offer(eclip_context& context, const LeaseQueued& queued, Clock::time_point deadline,
                eclip_lease** lease) {
  if (queued.slot >= max_leases_per_worker)
    return report(EPROTO, "eclipd queued a lease in slot " + std::to_string(queued.slot));
  ECLIP_TESTPOINT("lease_queued");
  const LeaseSlot& slot = context.state().leases[queued.slot];
  const auto give_up = [&](int result) {
    static_cast<void>(
        context.control.request(MessageType::lease_release, Handle{queued.lease}, MessageType::ok));
    return result;
  };
  while (true) {
    const std::uint32_t seen = slot.state.load(std::memory_order_acquire);
    if (const int failed = context.check_alive(); failed != 0) return failed;
    if (seen == static_cast<std::uint32_t>(LeaseState::offered)) {
      ECLIP_TESTPOINT("lease_offered");
      auto reply = context.control.request(MessageType::lease_claim, Handle{queued.lease},
                                           MessageType::lease_granted);
      ECLIP_TESTPOINT("lease_claimed");
      if (reply) return open_lease(context, std::move(*reply), lease);
      if (reply.error().code != Errc::lease_ended) return give_up(report(reply.error()));
      continue;  // the offer has run out; the slot says so
    }
    if (seen == static_cast<std::uint32_t>(LeaseState::ended))
      return give_up(
          report_unserved(static_cast<LeaseEnd>(slot.reason.load(std::memory_order_relaxed))));
    const auto left = deadline - Clock::now();
    if (left <= left.zero())
      return give_up(report(ETIMEDOUT, "no stream became free in time, and eclipd is silent"));
    futex_wait(slot.state, seen, std::min<std::chrono::nanoseconds>(left, longest_lease_sleep));
    context.control.look_for_hangup();
  }
}

int acquire(eclip_context* context, const eclip_lease_request* given, eclip_lease** lease) {
  if (context == nullptr || lease == nullptr)
    return report(EINVAL, "the context or the place for the lease is NULL");
  *lease = nullptr;
  eclip_lease_request request{};
  if (const int failed = read_struct(given, request); failed != 0) return failed;
  if (request.priority < ECLIP_PRIORITY_LOW || request.priority > ECLIP_PRIORITY_HIGH)
    return report(EINVAL, "there is no priority " + std::to_string(request.priority));
  if (const int failed = apply_share(request); failed != 0) return failed;
  if (const int failed = apply_cus(request); failed != 0) return failed;
  // eclipd ends the wait; this is for an eclipd that has stopped.
  const auto deadline =
      Clock::now() + std::chrono::milliseconds(request.wait_ms) + context->control.timeout();
  auto reply = context->control.request(
      MessageType::lease_acquire,
      LeaseAcquire{.stream = request.stream,
                   .cu_count = request.cu_count,
                   .share_percent = request.share_percent,
                   .priority = static_cast<std::uint32_t>(request.priority + 1),
                   .wait_ms = request.wait_ms,
                   .duration_ms = request.duration_ms},
      MessageType::lease_granted, {},
      request.wait_ms == 0 ? std::nullopt : std::optional(MessageType::lease_queued));
  if (!reply) return report(reply.error());
  ECLIP_TESTPOINT("lease_granted");
  if (reply->message.header.type == MessageType::lease_granted)
    return open_lease(*context, std::move(*reply), lease);
  return await_offer(*context, payload_of<LeaseQueued>(reply->message), deadline, lease);
}

int renew(eclip_lease* lease) {
  if (lease == nullptr) return report(EINVAL, "the lease is NULL");
  if (lease->state() != LeaseState::active)
    return report(ESTALE, "lease " + std::to_string(lease->id) + " is " + describe(lease->state()) +
                              "; release it and plan anew");
  auto& renewals = lease->context->request().leases[lease->slot].renewals;
  // One thread at a time uses a lease: nobody else writes this word.
  renewals.store(renewals.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  ECLIP_TESTPOINT("lease_renewed");
  return 0;
}

}  // namespace
}  // namespace eclip

int eclip_lease_acquire(eclip_context* context, const struct eclip_lease_request* request,
                        eclip_lease** lease) {
  return eclip::guarded([&] { return eclip::acquire(context, request, lease); });
}

int eclip_lease_renew(eclip_lease* lease) {
  return eclip::guarded([&] { return eclip::renew(lease); });
}

void eclip_lease_release(eclip_lease* lease) {
  if (lease == nullptr) return;
  static_cast<void>(eclip::guarded([&] {
    lease->context->release(lease);
    return 0;
  }));
}

int eclip_lease_describe(eclip_lease* lease, struct eclip_lease_state* state) {
  return eclip::guarded([&] {
    if (lease == nullptr) return eclip::report(EINVAL, "the lease is NULL");
    if (const int failed = eclip::check_struct_size(state); failed != 0) return failed;
    eclip_lease_state described{};
    described.stream = lease->stream;
    described.cu_count = lease->cu_count;
    described.id = lease->id;
    described.packets_submitted = lease->writer.written();
    const auto& slot = lease->context->state().leases[lease->slot];
    described.state = static_cast<std::uint32_t>(lease->state());
    described.reason = slot.reason.load(std::memory_order_relaxed);
    described.deadline_ns = slot.deadline_ns.load(std::memory_order_relaxed);
    described.packets_accepted = slot.accepted.load(std::memory_order_relaxed);
    eclip::write_struct(described, state);
    return 0;
  });
}
