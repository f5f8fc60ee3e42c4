// The life of a lease, as eclipd and its worker see it in shared memory.
//
//   from     to       decided by            when
//   -------  -------  -------------------- --------------------------------------------------------
//   none     active   eclipd, on request    a stream that fits is free
//   none     queued   eclipd, on request    none is free, and the worker is ready to wait
//   queued   offered  eclipd                a stream that fits became free, and it is first in line
//   queued   ended    eclipd                the wait is over, the worker gave up, or it was revoked
//   offered  active   worker, by a message  it claims the stream
//   offered  ended    eclipd                not claimed in time, or as above
//   active   active   worker, by a store    it renews (LeaseRequest::renewals); no message, no
//   system
//                                           call; eclipd looks when the lease would expire
//   active   revoked  eclipd                an administrator asks, a lease of higher priority needs
//   the
//                                           stream, or it was not renewed in time; a grace period
//                                           begins
//   active   ended    worker, by a message  it releases the lease: what is in the ring still runs
//   revoked  ended    worker, by a message  as above
//   revoked  ended    eclipd                the grace period is over: what is still in the ring is
//                                           dropped
//   any      ended    eclipd                the worker is cut off, or a packet depends on a dropped
//                                           one: what is still in the ring is dropped
//   ended    none     worker, by a message  it releases what it still has of the lease, or leaves
//
// Every other step is a bug. Owner of each word: see LeaseSlot and LeaseRequest. A worker that dies
// in any state leaves none of them behind: eclipd frees the slots with the worker.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace eclip {

enum class LeaseState : std::uint32_t {
  none = 0,
  queued = 1,
  offered = 2,
  active = 3,
  revoked = 4,
  ended = 5,
};

/// True for the steps of the table above.
[[nodiscard]] constexpr bool is_legal_step(LeaseState from, LeaseState to) {
  switch (from) {
    case LeaseState::none:
      return to == LeaseState::active || to == LeaseState::queued;
    case LeaseState::queued:
      return to == LeaseState::offered || to == LeaseState::ended;
    case LeaseState::offered:
      return to == LeaseState::active || to == LeaseState::ended;
    case LeaseState::active:
      return to == LeaseState::revoked || to == LeaseState::ended;
    case LeaseState::revoked:
      return to == LeaseState::ended;
    case LeaseState::ended:
      return to == LeaseState::none;
  }
  return false;
}

/// Why a lease was revoked, or ended.
enum class LeaseEnd : std::uint32_t {
  none = 0,           ///< it was not
  released = 1,       ///< its worker gave it back
  administrator = 2,  ///< eclipctl lease revoke
  preempted = 3,      ///< a lease of higher priority needed the stream
  expired = 4,        ///< not renewed in time
  wait_over = 5,      ///< queued for as long as it wanted to wait
  not_claimed = 6,    ///< offered, and not claimed in time
  dependency = 7,     ///< a packet waits for one that was dropped
  cut_off = 8,        ///< its worker broke the rules
  gone = 9,           ///< its worker has left or died
};

/// In words, for messages.
[[nodiscard]] constexpr const char* describe(LeaseEnd reason) {
  switch (reason) {
    case LeaseEnd::none:
      return "not ended";
    case LeaseEnd::released:
      return "released";
    case LeaseEnd::administrator:
      return "by the administrator";
    case LeaseEnd::preempted:
      return "preempted by a lease of higher priority";
    case LeaseEnd::expired:
      return "not renewed in time";
    case LeaseEnd::wait_over:
      return "no stream became free in time";
    case LeaseEnd::not_claimed:
      return "not claimed in time";
    case LeaseEnd::dependency:
      return "a packet waits for one that was dropped";
    case LeaseEnd::cut_off:
      return "its worker was cut off";
    case LeaseEnd::gone:
      return "its worker has left";
  }
  return "for an unknown reason";
}
[[nodiscard]] constexpr const char* describe(LeaseState state) {
  switch (state) {
    case LeaseState::none:
      return "none";
    case LeaseState::queued:
      return "queued";
    case LeaseState::offered:
      return "offered";
    case LeaseState::active:
      return "active";
    case LeaseState::revoked:
      return "revoked";
    case LeaseState::ended:
      return "ended";
  }
  return "unknown";
}

/// What eclipd says of one lease; the worker reads. One cache line.
///
/// Written by the control thread until the lease is active, by the forwarder from then until it has
/// ended, by the control thread again to free it: at no time by both.
struct alignas(64) LeaseSlot {
  /// LeaseState. Readers: the worker before and after each packet that it writes. Stored last,
  /// with release, after the words below; a futex that is woken with every step of a lease that was
  /// queued.
  std::atomic<std::uint32_t> state;
  std::atomic<std::uint32_t> reason;  ///< LeaseEnd
  std::atomic<std::uint64_t> lease;   ///< LeaseId; 0: none
  /// When the state ends by itself, CLOCK_MONOTONIC in ns; 0: never. active: the lease expires
  /// unless renewed; queued: the wait is over; offered: claim by then; revoked: the grace is over.
  std::atomic<std::uint64_t> deadline_ns;
  /// Packets of the lease that eclipd has taken; what has a higher number was dropped. Valid when
  /// ended.
  std::atomic<std::uint64_t> accepted;
};
static_assert(sizeof(LeaseSlot) == 64);
static_assert(offsetof(LeaseSlot, deadline_ns) == 16);

/// What the worker says of one lease; eclipd reads, and takes it for a wish.
struct LeaseRequest {
  /// Any change renews the lease for another term. Writer: the worker.
  std::atomic<std::uint32_t> renewals;
};
static_assert(sizeof(LeaseRequest) == 4);

/// Leases that a worker has at a time, queued and ended ones included.
inline constexpr std::uint32_t max_leases_per_worker = 16;

}  // namespace eclip
