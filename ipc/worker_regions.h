// The two regions that eclipd and one worker share beside the lease rings: what eclipd tells the
// worker (signals, faults) and what the worker asks of eclipd (wake-ups).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "ipc/lease_slot.h"
#include "ipc/plan_table.h"

namespace eclip {

/// A signal as the hardware knows it (amd_signal_t of hsa/amd_hsa_signal.h; daemon/worker.cpp
/// asserts that they agree) and the generation that tells one use of it from the next.
///
/// Life of one use, generation g (SignalUse in ipc/lease_ring.h):
///   eclipd, forwarding the packet:  value = 1, then generation = g (release)
///   the GPU, completing the packet: value = 0
///   the worker: complete when generation is past g, or is g and value is 0
/// or, when the packet was dropped with its lease:
///   eclipd:                         cancelled = g, value = 0, then generation = g (release)
///   the worker: not done, when generation is g and cancelled is g
struct alignas(64) SignalSlot {
  std::int64_t kind;                ///< writer: eclipd, once
  std::atomic<std::int64_t> value;  ///< writers: eclipd (1), the GPU (0); readers: worker, GPU
  std::uint64_t event_mailbox_ptr;  ///< writer: eclipd (daemon/completion_interrupt.h)
  std::uint32_t event_id;           ///< writer: eclipd
  std::uint32_t reserved1;
  std::uint64_t start_ts;  ///< writer: the GPU, in ticks of its clock counter
  std::uint64_t end_ts;    ///< writer: the GPU
  std::uint64_t reserved2;
  std::array<std::uint32_t, 2> reserved3;
  alignas(64) std::atomic<std::uint32_t> generation;  ///< writer: eclipd; readers: the worker
  std::atomic<std::uint32_t> cancelled;  ///< last generation that was dropped. Writer: eclipd
  /// Raised, and woken as a futex, when a use has completed or was dropped while
  /// WorkerRequest::waiters of the signal was not 0, and when the worker is cut off. Writer:
  /// eclipd.
  std::atomic<std::uint32_t> wakes;
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free);
static_assert(sizeof(SignalSlot) == 128);
static_assert(offsetof(SignalSlot, value) == 8);
static_assert(offsetof(SignalSlot, start_ts) == 32);
static_assert(offsetof(SignalSlot, generation) == 64);
static_assert(offsetof(SignalSlot, wakes) == 72);

/// Payload of RegionKind::worker_state: eclipd and the GPU write, the worker reads.
struct WorkerState {
  static constexpr std::uint32_t signal_count = 1024;

  /// An Errc; not 0: eclipd has cut the worker off and takes no more packets. Writer: eclipd,
  /// release after fault_lease and fault_packet.
  alignas(64) std::atomic<std::uint32_t> fault;
  std::atomic<std::uint64_t> fault_lease;   ///< LeaseId of the packet that was refused
  std::atomic<std::uint64_t> fault_packet;  ///< its number in that lease's ring, from 0
  std::array<LeaseSlot, max_leases_per_worker> leases;
  std::array<SignalSlot, signal_count> signals;
  PlanTables plans;
};
static_assert(offsetof(WorkerState, leases) == 64);
static_assert(offsetof(WorkerState, signals) == 64 + max_leases_per_worker * 64);

/// Why a kernel was not sent by the plan, but stayed on the stream that the worker was on.
enum class BypassReason : std::uint8_t {
  no_plan,          ///< eclipd has none for this worker
  outside_request,  ///< no request was begun
  unknown,          ///< the request is not the one that the plan knows (LaunchShapes)
  cooperative,
  persistent,
  uniform,  ///< of a library that needs the same number of CUs each time
  graph,
  count,
};
/// Why a worker changed its stream.
enum class SwitchReason : std::uint8_t {
  active_set,  ///< other workers became active or idle
  plan,        ///< the plan has another stream for the next group
  new_plan,    ///< another plan came in force
  pin,         ///< to the stream that kernels are pinned to, or back
  count,
};
[[nodiscard]] constexpr const char* name_of(BypassReason reason) {
  constexpr std::array<const char*, static_cast<std::size_t>(BypassReason::count)> names{
      "no plan",     "outside a request", "unknown request",
      "cooperative", "persistent",        "uniform library",
      "graph"};
  return names[static_cast<std::size_t>(reason)];
}
[[nodiscard]] constexpr const char* name_of(SwitchReason reason) {
  constexpr std::array<const char*, static_cast<std::size_t>(SwitchReason::count)> names{
      "active set", "plan", "new plan", "pin"};
  return names[static_cast<std::size_t>(reason)];
}

/// Who goes first where workers meet on a stream.
enum class LatencyClass : std::uint32_t { throughput = 0, latency = 1 };

/// What a worker's scheduler has done, for people, and how its kernels run, for the plan. Writer:
/// the worker. eclipd takes all of it as a hint.
struct SchedulerReport {
  /// Of the request in flight with the earliest deadline, CLOCK_MONOTONIC in ns; 0: none.
  alignas(64) std::atomic<std::uint64_t> deadline_ns;
  std::atomic<std::uint64_t> requests;   ///< begun
  std::atomic<std::uint64_t> scheduled;  ///< kernels sent by the plan
  std::array<std::atomic<std::uint64_t>, static_cast<std::size_t>(BypassReason::count)> bypassed;
  std::array<std::atomic<std::uint64_t>, static_cast<std::size_t>(SwitchReason::count)> switches;
  std::atomic<std::uint64_t> barriers;  ///< barrier packets, all
  /// Observed time of the groups in permille of the predicted, exponentially weighted; 0: not
  /// known. Of the plan of `drift_epoch`.
  std::array<std::atomic<std::uint16_t>, PlanTable::max_groups> group_permille;
  std::atomic<std::uint64_t> drift_epoch;
};

/// Payload of RegionKind::worker_request: the worker writes, eclipd reads.
struct WorkerRequest {
  /// Raised and woken as a futex by the worker when it needs a forwarder that is asleep
  /// (Board::forwarder_asleep).
  alignas(64) std::atomic<std::uint32_t> wake;
  std::array<LeaseRequest, max_leases_per_worker> leases;
  /// For each signal: threads of the worker that sleep on its SignalSlot::wakes, or are about to.
  /// Raised before the last look at the signal. Eclipd takes it as a hint: a wrong value costs the
  /// worker's own wake-ups.
  alignas(64) std::array<std::atomic<std::uint16_t>, WorkerState::signal_count> waiters;
  /// Requests that it gets in 1000 s, as it measures them; 0: not known. A hint for the plan.
  std::atomic<std::uint32_t> requests_per_1000_s;
  /// Time of its requests in permille of what its profile says; 0: not known. Likewise.
  std::atomic<std::uint32_t> time_permille;
  SchedulerReport scheduler;
};
static_assert(std::atomic<std::uint16_t>::is_always_lock_free);
static_assert(offsetof(WorkerRequest, leases) == 4);
static_assert(offsetof(WorkerRequest, waiters) == 128);

}  // namespace eclip
