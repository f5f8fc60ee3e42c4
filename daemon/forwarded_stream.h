// A stream as the forwarder sees it: its hardware queue, whose packets are in it, and for how long
// they keep it busy.
//
// With one lease open, order and dependencies are the hardware's: barrier bits and barrier packets
// go into the queue as they are. With more leases open, one worker's barrier would hold up the
// others' packets behind it in the queue. There are two ways out (ForwardedStream::Mode):
//
// - decoupled, when all leases are such that workers have acquired: dependencies are kept here. A
//   packet stays in its lease ring until it depends on nothing, and goes into the queue without
//   barrier bit (docs/adr/0007).
// - turns, as soon as one of the leases is scheduled: the queue serves one lease after the other,
// as
//   daemon/stream_turns.h says. The first packet of a turn has the barrier bit, so that the
//   hardware itself keeps it behind all that the others have in the queue (docs/adr/0011).
//
// Why no packet in hardware queues waits for ever for another's: a packet waits for those before it
// in its queue (barrier bits, the queue's order) and for those that its barrier names. The former
// were pushed earlier; the latter too, for a barrier whose dependency is not in a hardware queue is
// held back in its ring (vet_packet). So each waits only for packets pushed before it, in whatever
// queue, and there can be no cycle. In the rings a lease that is held back does not keep its turn,
// so that nothing waits for it but its own packets.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "daemon/aql_ring.h"
#include "daemon/busy_time.h"
#include "daemon/completion_interrupt.h"
#include "daemon/packet_vetting.h"
#include "daemon/signal_pool.h"
#include "daemon/stream_turns.h"
#include "ipc/strong_id.h"

namespace eclip::daemon {

struct ForwardedLease;
struct ForwardedWorker;
struct LeaseUse;

/// Whose packet a stream was at, when it is asked.
struct Blame {
  StreamId stream;
  WorkerId worker;
  LeaseId lease;
  std::uint32_t kernel;  ///< the worker's handle; 0: a barrier
  std::uint64_t packet;  ///< its number in the hardware queue
};

/// On the forwarder's thread only, but for packets().
class ForwardedStream {
 public:
  ForwardedStream(StreamId id, AqlRing& ring, SignalPool& signals);
  ForwardedStream(const ForwardedStream&) = delete;
  ForwardedStream& operator=(const ForwardedStream&) = delete;

  /// What keeps order and dependencies.
  enum class Mode {
    alone,      ///< the hardware: there is one lease
    decoupled,  ///< the forwarder, for each packet
    turns,      ///< the hardware, with a barrier between leases
  };
  /// A lease whose packets may wait in its ring. Both stay until lease_closed().
  struct Member {
    ForwardedWorker* worker;
    ForwardedLease* lease;
  };
  void lease_opened(ForwardedWorker& worker, ForwardedLease& lease);
  /// Nothing more will be pushed for the lease.
  void lease_closed(const ForwardedLease& lease);
  /// Its last packet has completed. `scheduled`: what the lease was.
  void lease_drained(bool scheduled);
  [[nodiscard]] bool is_decoupled() const { return mode_ == Mode::decoupled; }
  [[nodiscard]] bool takes_turns() const { return mode_ == Mode::turns; }
  [[nodiscard]] const std::vector<Member>& members() const { return members_; }
  [[nodiscard]] StreamTurns& turns() { return turns_; }

  /// False while nothing can be pushed: the queue is full, or waits for its fence (below).
  [[nodiscard]] bool has_room() const { return !fence_wanted_ && !ring_->full(); }
  /// In turns: whether a packet of this lease can go in now. It cannot begin another turn while
  /// enough have not begun that are in the queue: who comes next is decided late.
  [[nodiscard]] bool may_push(LeaseId lease) const;
  /// In turns: whether packets of other leases have not completed.
  [[nodiscard]] bool has_others_in_flight(LeaseId lease) const;
  /// On a decoupled stream: makes a vetted packet independent of all others, or returns false: it
  /// depends on something still, or its lease has enough in the queue.
  [[nodiscard]] bool decouple(const ForwardedLease& lease, VettedPacket& vetted);
  /// `group_end`: it is the last packet of a group.
  void push(ForwardedWorker& worker, ForwardedLease& lease, VettedPacket& vetted,
            std::uint32_t kernel, bool group_end);
  /// After a burst of push() for one lease: rings the doorbell.
  void end_burst(ForwardedWorker& worker, const ForwardedLease& lease, std::uint64_t packets);
  /// A barrier packet of eclipd's own that waits for all before it. False when it must wait.
  bool push_barrier(WorkerId worker, std::uint32_t signal);

  /// Looks which packets have completed, and adds up their time. Places the fence, if one is
  /// wanted.
  bool collect_completions(std::uint64_t counter_hz);
  /// True when collect_completions() would find something.
  [[nodiscard]] bool has_completions() const;
  /// False while packets are held back for something that no signal tells of.
  [[nodiscard]] bool waits_for_signals_only() const { return !fence_wanted_; }
  /// Of all that it waits for, but for the workers' own signals.
  void set_interrupt(const CompletionInterrupt* interrupt);
  /// All packets before `number` have completed: a barrier has told.
  void completed_until(std::uint64_t number) {
    complete_until_ = std::max(complete_until_, number);
  }
  /// As far as barriers and signals tell.
  [[nodiscard]] std::uint64_t complete_until() const { return complete_until_; }
  /// On a decoupled stream: whether packets of a worker with numbers below `end` are in the queue.
  [[nodiscard]] bool has_in_flight(WorkerId worker, std::uint64_t end) const;
  [[nodiscard]] bool waits() const { return !in_flight_.empty() || fence_; }
  [[nodiscard]] const AqlRing& ring() const { return *ring_; }
  [[nodiscard]] std::uint64_t packets() const { return packets_.load(std::memory_order_relaxed); }

  /// The oldest packet that has not completed, as far as barriers and signals tell; none when all
  /// have.
  [[nodiscard]] std::optional<Blame> unfinished() const;
  /// Numbers of packets that change while the hardware gets on, of a queue that it has not
  /// finished.
  struct Progress {
    std::uint64_t oldest;     ///< unfinished()
    std::uint64_t processed;  ///< AqlRing::processed()
    std::uint64_t seen;       ///< the first whose completion will be seen
    friend bool operator==(const Progress&, const Progress&) = default;
  };
  [[nodiscard]] std::optional<Progress> progress() const;

 private:
  /// A packet in the queue whose completion will be seen. On a decoupled stream that is each
  /// packet; else the first of a turn, the first after a pause, and the last of each burst.
  struct InFlight {
    std::uint64_t number;
    ForwardedWorker* worker;  // stays until its streams have drained
    LeaseId lease;
    std::shared_ptr<LeaseUse> use;
    SignalUse theirs;                  ///< the worker's signal, or
    std::optional<std::uint32_t> own;  ///< one of ours
    bool after_idle;                   ///< its time counts from its own start
    bool begins_turn;                  ///< the hardware begins it when all before it have completed
  };
  /// What is remembered of each packet in the queue.
  struct Owner {
    std::uint32_t worker;
    std::uint32_t lease;
    std::uint32_t kernel;
    std::uint32_t barrier;  ///< 1: it waits for all before it
  };
  static_assert(sizeof(Owner) == 16);

  void update_mode();
  void place_fence();
  [[nodiscard]] bool is_complete(const InFlight& packet) const;
  [[nodiscard]] std::size_t in_flight_of(LeaseId lease) const;
  void see_completion_of_last(ForwardedWorker& worker, const ForwardedLease& lease,
                              bool begins_turn = false);
  void account(const InFlight& packet, std::uint64_t counter_hz);
  Owner& owner(std::uint64_t number) { return owners_[number % owners_.size()]; }
  [[nodiscard]] const Owner& owner(std::uint64_t number) const {
    return owners_[number % owners_.size()];
  }

  const StreamId id_;
  AqlRing* const ring_;
  SignalPool* const signals_;
  std::atomic<std::uint64_t> packets_{0};
  std::vector<Member> members_;
  std::uint32_t open_leases_ = 0;       ///< until they have drained
  std::uint32_t scheduled_leases_ = 0;  ///< of these
  Mode mode_ = Mode::alone;
  StreamTurns turns_;
  /// Packets that went into the queue before it was decoupled are not seen to complete one by one.
  /// A barrier behind them, the fence, tells when they have.
  bool fence_wanted_ = false;
  std::optional<std::uint32_t> fence_;
  std::vector<InFlight> in_flight_;   ///< by number
  std::vector<Owner> owners_;         ///< of the packet in each slot of the queue
  SignalUse last_completion_{};       ///< of the last packet pushed
  std::uint64_t complete_until_ = 0;  ///< all packets before this number have completed
  BusyTime busy_;
};

}  // namespace eclip::daemon
