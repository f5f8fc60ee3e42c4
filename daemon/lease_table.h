// Who holds, waits for and loses which stream. Pure bookkeeping: no clock, thread or device; the
// caller says what time it is and carries out what take_changes() lists.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "ipc/cu_mask.h"
#include "ipc/lease_slot.h"
#include "ipc/result.h"
#include "ipc/strong_id.h"

namespace eclip::daemon {

/// The streams of one GPU's pool and their leases, whose life is the table in ipc/lease_slot.h.
///
/// Waiting requests stand in one line: higher priority first, then first come, first served. A
/// stream with room goes to the first in line that it fits, so that no request ever finds one that
/// fits somebody before it.
///
/// Scheduled leases (schedule()) are beside all this: a worker has one on each stream of the pool
/// and on a queue without a CU mask of its own. They have the same life, but no term, and occupy no
/// stream: whoever else leases it takes turns with them.
class LeaseTable {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::nanoseconds;

  struct Policy {
    std::uint32_t gpu_cu_count = 0;            ///< what share_percent is of
    std::uint32_t max_holders_per_stream = 1;  ///< leases on a stream at a time
    bool preempt = false;                      ///< higher priorities take streams from lower ones
    Duration grace{};                          ///< of a lease that is preempted or expired
    Duration claim_time{};                     ///< within which an offer must be taken
    std::uint32_t unmasked_queues = 0;         ///< streams without a CU mask, after the pool's
  };
  /// What a worker asks for.
  struct Terms {
    std::optional<StreamId> stream;   ///< none: the smallest with room and enough CUs
    std::uint32_t cu_count = 0;       ///< at least as many, as far as share_percent allows
    std::uint32_t share_percent = 0;  ///< at most so many of the GPU's CUs; 0: all
    std::uint32_t priority = 1;       ///< LeasePriority
    Duration wait{};                  ///< how long it may be queued; 0: not at all
    Duration duration{};              ///< of a term; 0: without end
  };
  struct Lease {
    WorkerId worker;
    Terms terms;
    LeaseState state = LeaseState::none;
    LeaseEnd reason = LeaseEnd::none;
    /// Held or offered; also when ended, until closed() says that its packets have completed. A
    /// scheduled lease's may be one without a CU mask (is_unmasked()).
    std::optional<StreamId> stream;
    std::optional<Time> deadline;  ///< when the state ends by itself
    Time since{};                  ///< of the request, or, once it was active, of the grant
    bool released = false;         ///< ended, and its worker has no more use for it
    bool scheduled = false;        ///< one of those that schedule() has granted
  };
  /// One step of one lease. from == to: its deadline alone has changed, or, when ended, what is
  /// left in its ring is to be dropped after all.
  struct Change {
    LeaseId lease;
    WorkerId worker;
    LeaseState from;
    LeaseState to;
    LeaseEnd reason;
    std::optional<Time> deadline;
    bool drop;  ///< to ended: packets still in the ring are not forwarded
  };

  LeaseTable(const std::vector<CuMask>& masks, Policy policy);

  /// Grants a stream (the lease is active) or queues the request. Errc::no_stream when none that
  /// fits has room and the request will not wait, Errc::invalid_argument when none could ever fit.
  Result<LeaseId> acquire(WorkerId worker, const Terms& terms, Time now);
  /// Grants a lease on each stream of the pool and, as the last one, on a stream without a CU mask
  /// if one is left. Errc::already_in_use: the worker has scheduled leases that it has not
  /// released.
  Result<std::vector<LeaseId>> schedule(WorkerId worker, Time now);
  /// The worker takes what it was offered. Errc::not_found; Errc::lease_ended: nothing is offered.
  Result<void> claim(LeaseId lease, WorkerId worker, Time now);
  /// The worker has no more use for it, whatever its state. Errc::not_found.
  Result<void> release(LeaseId lease, WorkerId worker, Time now);
  /// Takes a lease back after a grace period, or at once from the queue. A second time, the shorter
  /// grace counts; of a lease that has ended but still runs, what is then left is dropped.
  /// Errc::not_found: no such lease, or it has ended entirely.
  Result<void> revoke(LeaseId lease, LeaseEnd reason, Duration grace, Time now);
  /// It has ended already, by the forwarder. Nothing when it is not active or revoked.
  void has_ended(LeaseId lease, LeaseEnd reason);
  /// Ends all leases of a worker; `released`: it will not ask for them again.
  void end_all(WorkerId worker, LeaseEnd reason, bool released, Time now);
  /// The packets of an ended lease have completed: its place on the stream is free.
  void closed(LeaseId lease, Time now);

  /// Ends whatever is due: waits, offers, terms, grace periods. `renewed` is asked at the end of a
  /// term whether the worker has renewed since it was asked last.
  void advance(Time now, const std::function<bool(LeaseId)>& renewed);
  /// When advance() has something to do; nullopt: never.
  [[nodiscard]] std::optional<Time> next_deadline() const;

  /// All steps since the last call, in order. A step to `none` is a lease's last.
  [[nodiscard]] std::vector<Change> take_changes();

  [[nodiscard]] const std::map<std::uint64_t, Lease>& leases() const { return leases_; }
  [[nodiscard]] const Lease* find(LeaseId lease) const;
  /// How many are before a queued lease.
  [[nodiscard]] std::uint32_t position(LeaseId lease) const;
  [[nodiscard]] std::uint32_t queued() const;

  [[nodiscard]] const std::vector<CuMask>& masks() const { return masks_; }
  /// Of the queues after the pool's streams.
  [[nodiscard]] bool is_unmasked(StreamId stream) const { return stream.value >= masks_.size(); }
  /// CUs that a stream's kernels can run on.
  [[nodiscard]] std::uint32_t cu_count(StreamId stream) const {
    return is_unmasked(stream) ? policy_.gpu_cu_count : masks_[stream.value].count();
  }
  /// The worker has scheduled leases that it has not released.
  [[nodiscard]] bool is_scheduled(WorkerId worker) const;
  struct StreamUse {
    std::vector<LeaseId> holders;  ///< offered, active or revoked; oldest first; none scheduled
    bool draining = false;         ///< packets of ended leases are still to complete
    std::uint32_t scheduled = 0;   ///< scheduled leases that are active or revoked
  };
  [[nodiscard]] StreamUse use_of(StreamId stream) const;

 private:
  using Entry = std::pair<const std::uint64_t, Lease>;

  Result<Lease*> find_of(LeaseId lease, WorkerId worker);
  /// The only place that changes a state; asserts that the step is legal.
  void step(LeaseId id, Lease& lease, LeaseState to, LeaseEnd reason, bool drop = false);
  void note(LeaseId id, const Lease& lease, bool drop);
  void activate(LeaseId id, Lease& lease, Time now);
  /// Forgets the lease when it has ended, is released, and holds no stream.
  void forget_if_done(LeaseId id);
  void end(LeaseId id, Lease& lease, LeaseEnd reason, bool drop);

  [[nodiscard]] std::uint32_t cu_limit(const Terms& terms) const;
  [[nodiscard]] bool fits(const Terms& terms, std::uint32_t stream) const;
  [[nodiscard]] Result<void> check_possible(const Terms& terms) const;
  [[nodiscard]] std::uint32_t occupants(std::uint32_t stream) const;
  [[nodiscard]] std::optional<StreamId> best_stream(const Terms& terms) const;
  [[nodiscard]] std::vector<LeaseId> line() const;
  /// Offers streams with room to those in line; where there is none, makes room if it may.
  void serve_line(Time now);
  void make_room(const std::vector<LeaseId>& waiting, Time now);
  [[nodiscard]] std::optional<LeaseId> victim_for(const Terms& terms) const;

  const std::vector<CuMask> masks_;
  const Policy policy_;
  std::uint32_t smallest_ = 0;             // CUs of the smallest stream
  std::map<std::uint64_t, Lease> leases_;  // by LeaseId, so by arrival
  std::uint64_t last_lease_ = 0;
  std::vector<Change> changes_;
};

}  // namespace eclip::daemon
