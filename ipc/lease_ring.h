// The lease ring: packets from a worker to the forwarder, single producer, single consumer.
//
// The worker writes slots and `written`; eclipd copies each slot once and validates the copy
// (daemon/packet_vetting.h). Nothing here is trusted by eclipd: it keeps its own read index and
// takes `written` modulo nothing but its distance from that index.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "ipc/testpoint.h"

namespace eclip {

enum class LeasePacketType : std::uint8_t {
  none = 0,
  dispatch = 1,
  barrier_and = 2,
  barrier_or = 3
};

/// A use of a signal: complete when its generation's packet has completed. Signals are indices into
/// the worker's own signals (ipc/worker_regions.h); each use as a completion signal raises the
/// signal's generation by one, starting from 1. Generation 0: no signal.
struct SignalUse {
  std::uint32_t signal;
  std::uint32_t generation;
  friend bool operator==(const SignalUse&, const SignalUse&) = default;
};

/// Geometry and arguments of a dispatch; all references are the worker's own handles and offsets.
struct LeaseDispatch {
  std::uint32_t kernel;                         ///< from kernel_register
  std::array<std::uint32_t, 3> grid_size;       ///< work items
  std::array<std::uint16_t, 3> workgroup_size;  ///< work items
  std::uint16_t reserved;                       ///< 0
  std::uint32_t group_segment_bytes;            ///< LDS of a workgroup
  std::uint32_t kernarg_memory;                 ///< handle; 0: the kernel takes no arguments
  std::uint64_t kernarg_offset;                 ///< into kernarg_memory, 16-byte aligned
};

struct LeaseBarrier {
  std::array<SignalUse, 5> dependencies;
};

/// One 64-byte slot.
struct LeasePacket {
  static constexpr std::uint8_t flag_barrier = 1;  ///< AQL barrier bit
  /// The last packet of a group: here others may have their turn on the stream. Scheduled leases
  /// only.
  static constexpr std::uint8_t flag_group_end = 2;

  LeasePacketType type;
  std::uint8_t flags;
  std::uint16_t reserved;
  SignalUse completion;
  std::uint32_t reserved2;
  union {
    LeaseDispatch dispatch;
    LeaseBarrier barrier;
  };
};
static_assert(sizeof(LeaseDispatch) == 40);
static_assert(sizeof(LeasePacket) == 56);
static_assert(offsetof(LeasePacket, dispatch) == 16);

/// Payload of a RegionKind::lease_ring region.
struct LeaseRing {
  static constexpr std::uint64_t slot_count = 1024;  ///< a power of two

  /// Packets written so far. Writer: the worker, release after the slot. Reader: eclipd, acquire.
  alignas(64) std::atomic<std::uint64_t> written;
  /// Packets that eclipd has taken. Writer: eclipd, release. Reader: the worker, acquire (free
  /// room).
  alignas(64) std::atomic<std::uint64_t> taken;
  struct alignas(64) Slot {
    LeasePacket packet;
  };
  std::array<Slot, slot_count> slots;
};
static_assert(sizeof(LeaseRing::Slot) == 64);
static_assert(offsetof(LeaseRing, taken) == 64);
static_assert(offsetof(LeaseRing, slots) == 128);

/// Payload of a RegionKind::lease_rings region: the rings of a worker's scheduled leases
/// (Scheduled::leases, in that order).
struct LeaseRings {
  static constexpr std::size_t count = 8;
  std::array<LeaseRing, count> rings;
};

/// The worker's end. One thread at a time.
class LeaseRingWriter {
 public:
  explicit LeaseRingWriter(LeaseRing& ring) : ring_(&ring) {}
  /// False when the ring is full; nothing is written then.
  bool push(const LeasePacket& packet) {
    if (written_ - taken_ >= LeaseRing::slot_count) {
      taken_ = ring_->taken.load(std::memory_order_acquire);
      if (written_ - taken_ >= LeaseRing::slot_count) return false;
    }
    ring_->slots[written_ % LeaseRing::slot_count].packet = packet;
    ECLIP_TESTPOINT("slot_written");
    ring_->written.store(++written_, std::memory_order_release);
    return true;
  }
  [[nodiscard]] std::uint64_t written() const { return written_; }

 private:
  LeaseRing* ring_;
  std::uint64_t written_ = 0;
  std::uint64_t taken_ = 0;
};

/// eclipd's end. One thread at a time.
class LeaseRingReader {
 public:
  explicit LeaseRingReader(LeaseRing& ring) : ring_(&ring) {}
  /// How many packets the worker says are waiting. More than slot_count means that it lies.
  [[nodiscard]] std::uint64_t waiting() const {
    return ring_->written.load(std::memory_order_acquire) - taken_;
  }
  /// A copy of the next slot; the worker may change the original at any time.
  [[nodiscard]] LeasePacket copy_next() const {
    LeasePacket packet;
    const volatile auto* from = reinterpret_cast<const volatile std::uint64_t*>(
        &ring_->slots[taken_ % LeaseRing::slot_count]);
    std::array<std::uint64_t, sizeof(LeasePacket) / sizeof(std::uint64_t)> words;
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = from[i];
    __builtin_memcpy(&packet, words.data(), sizeof packet);
    return packet;
  }
  void pop() {
    skip();
    publish();
  }
  /// pop() in two steps, for bursts: the worker sees the room after publish().
  void skip() { ++taken_; }
  void publish() { ring_->taken.store(taken_, std::memory_order_release); }
  [[nodiscard]] std::uint64_t taken() const { return taken_; }

 private:
  LeaseRing* ring_;
  std::uint64_t taken_ = 0;
};

}  // namespace eclip
