// Which workers have a request in flight: one word that all workers of a GPU write.
#pragma once

#include <atomic>
#include <cstdint>

namespace eclip {

/// Payload of RegionKind::active_set. Bit i: the worker with seat i (PlanTable::seat) has a request
/// in flight or waiting. A worker sets and clears its own bit, each with one atomic operation;
/// eclipd clears it when the worker has gone. Nothing depends on it but which row of the plan is
/// taken: a worker that writes others' bits costs speed, never order or memory.
struct ActiveSet {
  alignas(64) std::atomic<std::uint32_t> workers;
};
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);
static_assert(sizeof(ActiveSet) == 64);

}  // namespace eclip
