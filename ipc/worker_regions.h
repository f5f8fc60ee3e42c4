// The two regions that eclipd and one worker share beside the lease rings: what eclipd tells the
// worker (signals, faults) and what the worker asks of eclipd (wake-ups).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace eclip {

/// A signal as the hardware knows it (amd_signal_t of hsa/amd_hsa_signal.h; daemon/worker.cpp
/// asserts that they agree) and the generation that tells one use of it from the next.
///
/// Life of one use, generation g (SignalUse in ipc/lease_ring.h):
///   eclipd, forwarding the packet:  value = 1, then generation = g (release)
///   the GPU, completing the packet: value = 0
///   the worker: complete when generation is past g, or is g and value is 0
struct alignas(64) SignalSlot {
  std::int64_t kind;                ///< writer: eclipd, once
  std::atomic<std::int64_t> value;  ///< writers: eclipd (1), the GPU (0); readers: worker, GPU
  std::uint64_t event_mailbox_ptr;  ///< writer: eclipd, once
  std::uint32_t event_id;           ///< writer: eclipd, once
  std::uint32_t reserved1;
  std::uint64_t start_ts;  ///< writer: the GPU, in ticks of its clock counter
  std::uint64_t end_ts;    ///< writer: the GPU
  std::uint64_t reserved2;
  std::array<std::uint32_t, 2> reserved3;
  alignas(64) std::atomic<std::uint32_t> generation;  ///< writer: eclipd; readers: the worker
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free);
static_assert(sizeof(SignalSlot) == 128);
static_assert(offsetof(SignalSlot, value) == 8);
static_assert(offsetof(SignalSlot, start_ts) == 32);
static_assert(offsetof(SignalSlot, generation) == 64);

/// Payload of RegionKind::worker_state: eclipd and the GPU write, the worker reads.
struct WorkerState {
  static constexpr std::uint32_t signal_count = 1024;

  /// Raised, and woken as a futex, after signals of this worker completed while it was waiting, and
  /// when it is cut off. Writer: eclipd.
  alignas(64) std::atomic<std::uint32_t> completions;
  /// An Errc; not 0: eclipd has cut the worker off and takes no more packets. Writer: eclipd,
  /// release after fault_lease and fault_packet.
  std::atomic<std::uint32_t> fault;
  std::atomic<std::uint64_t> fault_lease;   ///< LeaseId of the packet that was refused
  std::atomic<std::uint64_t> fault_packet;  ///< its number in that lease's ring, from 0
  std::array<SignalSlot, signal_count> signals;
};
static_assert(offsetof(WorkerState, signals) == 64);

/// Payload of RegionKind::worker_request: the worker writes, eclipd reads.
struct WorkerRequest {
  /// Raised and woken as a futex by the worker when it needs a forwarder that is asleep
  /// (Board::forwarder_asleep).
  alignas(64) std::atomic<std::uint32_t> wake;
  /// Threads of the worker that sleep on WorkerState::completions.
  std::atomic<std::uint32_t> waiters;
};
static_assert(sizeof(WorkerRequest) == 64);

}  // namespace eclip
