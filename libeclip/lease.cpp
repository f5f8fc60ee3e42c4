// Acquiring and releasing streams.
#include "ipc/testpoint.h"
#include "libeclip/context.h"
#include "libeclip/errors.h"
#include "libeclip/versioned_struct.h"

namespace eclip {
namespace {

int acquire(eclip_context* context, const eclip_lease_request* given, eclip_lease** lease) {
  if (context == nullptr || lease == nullptr)
    return report(EINVAL, "the context or the place for the lease is NULL");
  *lease = nullptr;
  eclip_lease_request request{};
  if (const int failed = read_struct(given, request); failed != 0) return failed;
  static_assert(ECLIP_ANY_STREAM == LeaseAcquire::any_stream);
  auto reply = context->control.request(MessageType::lease_acquire,
                                        LeaseAcquire{.stream = request.stream,
                                                     .cu_count = request.cu_count,
                                                     .share_percent = 0,
                                                     .priority = 1,
                                                     .wait_ms = 0,
                                                     .duration_ms = 0},
                                        MessageType::lease_granted);
  if (!reply) return report(reply.error());
  ECLIP_TESTPOINT("lease_granted");
  if (reply->fds.size() != 1) return report(EPROTO, "eclipd granted a lease without a ring");
  auto ring =
      Region::open(std::move(reply->fds[0]), RegionKind::lease_ring, sizeof(LeaseRing), true);
  if (!ring) return report(ring.error());
  const auto granted = payload_of<LeaseGranted>(reply->message);
  if (granted.slot >= max_leases_per_worker)
    return report(EPROTO, "eclipd granted a lease in slot " + std::to_string(granted.slot));
  *lease = context->adopt(std::make_unique<eclip_lease>(*context, std::move(*ring), granted));
  return 0;
}

}  // namespace
}  // namespace eclip

int eclip_lease_acquire(eclip_context* context, const struct eclip_lease_request* request,
                        eclip_lease** lease) {
  return eclip::guarded([&] { return eclip::acquire(context, request, lease); });
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
    eclip::write_struct(described, state);
    return 0;
  });
}
