// Whose packets go into a hardware queue that several leases share by turns.
//
// A turn lasts from a lease's first packet to another's. It may pass on at the end of a group of
// kernels (LeasePacket::flag_group_end), when its owner has nothing that can go into the queue, or
// when the owner has pushed more than max_packets without the end of a group. Who comes next: see
// choose().
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ipc/strong_id.h"
#include "ipc/worker_regions.h"

namespace eclip::daemon {

/// Pure bookkeeping for one stream: no clock, no queue.
class StreamTurns {
 public:
  /// Packets without the end of a group after which others may go.
  static constexpr std::uint32_t max_packets = 1024;
  /// Turns that a lease lets others have before it goes first.
  static constexpr std::uint32_t max_passes = 4;

  /// A lease whose next packet can go into the queue now.
  struct Waiting {
    LeaseId lease;
    LatencyClass latency_class = LatencyClass::throughput;
    std::uint64_t deadline_ns = 0;  ///< of its worker's earliest request; 0: none, which is last
  };

  /// Whose packets went in last; nullopt before the first, and when that lease is forgotten.
  [[nodiscard]] std::optional<LeaseId> owner() const { return owner_; }
  /// Its last packet was the last of a group.
  [[nodiscard]] bool at_group_end() const { return at_group_end_; }
  /// Another's packets may go in though the owner's can.
  [[nodiscard]] bool may_pass() const {
    return !owner_ || at_group_end_ || since_group_end_ > max_packets;
  }

  /// Who goes next, of at least one: who was passed over max_passes times (the most often first),
  /// then latency class, then the earliest deadline, then who has waited longest.
  [[nodiscard]] LeaseId choose(std::span<const Waiting> waiting);
  /// A packet of the lease went into the queue. True: it is the first of a turn.
  bool pushed(LeaseId lease, bool group_end);
  /// `chosen` has had its turn, or goes on after the end of a group, while these waited.
  void passed_over(std::span<const Waiting> waiting, LeaseId chosen);
  /// The lease has ended.
  void forget(LeaseId lease);
  /// The next packet begins a turn, whosever it is: what is in the queue is not known by turns.
  void begin_anew() { owner_.reset(); }

 private:
  struct Record {
    LeaseId lease;
    std::uint32_t passes = 0;
    std::uint64_t waits_since = 0;  ///< number of a choice; 0: it does not wait
    std::uint64_t last_turn = 0;    ///< number of the choice after which it went in last
  };
  Record& record(LeaseId lease);

  std::optional<LeaseId> owner_;
  bool at_group_end_ = false;
  std::uint32_t since_group_end_ = 0;  ///< packets of the owner
  std::uint64_t choices_ = 0;
  std::vector<Record> records_;  // a handful
};

}  // namespace eclip::daemon
