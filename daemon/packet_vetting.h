// From a worker's packet to one that the hardware may see: every field is checked, every handle and
// offset is replaced by the address that eclipd itself knows.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "daemon/aql_ring.h"
#include "ipc/board.h"
#include "ipc/lease_ring.h"
#include "ipc/plan_table.h"
#include "ipc/result.h"
#include "ipc/worker_regions.h"

namespace eclip::daemon {

/// Those of the pool, and those without a CU mask, of which each worker of a plan has one.
inline constexpr std::size_t max_forwarded_streams = Board::max_streams + PlanTable::max_workers;

/// What a worker may refer to in its packets, and how far its signals have got. The forwarder's
/// own: nothing in it can be written by the worker.
struct WorkerObjects {
  struct Kernel {
    std::uint64_t object;  ///< GPU address of the kernel descriptor
    std::uint32_t kernarg_bytes;
    std::uint32_t group_segment_bytes;  ///< static LDS, from the descriptor
  };
  struct Memory {
    std::uint64_t gpu_address;
    std::uint64_t bytes;
  };
  /// A signal's uses as far as eclipd has forwarded them.
  struct Signal {
    std::uint32_t generation = 0;  ///< last use forwarded or dropped; 0: none
    std::uint32_t cancelled = 0;   ///< last use that was dropped; 0: none
    /// For each stream: one past the number of the last barrier packet that waits for this signal.
    std::array<std::uint64_t, max_forwarded_streams> barriers_end{};
    std::uint32_t barrier_streams = 0;  ///< bit i: barriers_end[i] may be ahead
  };

  std::vector<Kernel> kernels;  ///< handle h is kernels[h - 1]
  std::unordered_map<std::uint32_t, Memory> memory;
  std::vector<Signal> signals = std::vector<Signal>(WorkerState::signal_count);
  SignalSlot* signal_slots = nullptr;
  std::uint64_t signals_gpu_address = 0;
  std::uint32_t max_group_segment_bytes = 65536;

  [[nodiscard]] std::uint64_t signal_gpu_address(std::uint32_t signal) const {
    return signals_gpu_address + signal * sizeof(SignalSlot);
  }
  /// True when this use comes after the last one forwarded or dropped. Generations wrap.
  [[nodiscard]] bool is_ahead(const SignalUse& use) const {
    return static_cast<std::int32_t>(use.generation - signals[use.signal].generation) > 0;
  }
  /// True when the signal's last forwarded use has completed (or there was none).
  [[nodiscard]] bool is_complete(std::uint32_t signal) const {
    return signals[signal].generation == 0 ||
           signal_slots[signal].value.load(std::memory_order_acquire) == 0;
  }
};

/// A packet that passed. When `hold`, it may not go to the hardware yet: it depends on one that has
/// not been forwarded; ask again later.
struct VettedPacket {
  AqlImage image{};
  bool hold = false;
  SignalUse missing{};     ///< with `hold`: what it depends on
  bool cancelled = false;  ///< waits for a packet that was dropped: it will never be right
  std::uint32_t wait_count = 0;
  SignalUse completion{};                   ///< to be armed just before the packet is pushed
  std::optional<std::uint32_t> own_signal;  ///< the forwarder's, in place of a completion
  std::array<std::uint32_t, 5> waits_for;   ///< signals that a barrier waits for
};

/// Flags that packets of a lease may have.
[[nodiscard]] constexpr std::uint8_t packet_flags(bool scheduled) {
  return LeasePacket::flag_barrier | (scheduled ? LeasePacket::flag_group_end : 0);
}

/// Checks a copied packet. Pure, but for reading the signals' values. `flags`: those allowed.
/// Errc::malformed says which field is wrong and what is allowed.
Result<void> vet_packet(const LeasePacket& packet, const WorkerObjects& objects, std::uint8_t flags,
                        VettedPacket& vetted);
inline Result<VettedPacket> vet_packet(const LeasePacket& packet, const WorkerObjects& objects,
                                       std::uint8_t flags = packet_flags(false)) {
  VettedPacket vetted;
  const auto passed = vet_packet(packet, objects, flags, vetted);
  if (!passed) return tl::unexpected(passed.error());
  return vetted;
}

}  // namespace eclip::daemon
