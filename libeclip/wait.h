// Waiting for uses of signals.
#pragma once

#include <atomic>
#include <chrono>
#include <span>

#include "libeclip/context.h"

namespace eclip {

/// As eclip_wait, for a use that was begun.
int wait_for(eclip_context* context, SignalUse use, std::uint64_t timeout_ns);

inline constexpr std::size_t most_uses = 16;

/// Spins briefly, then sleeps until one of the uses, at most most_uses, has completed or was
/// dropped, `word`, a futex, is not `seen`, or the timeout passes. Also returns without a reason,
/// on old kernels often. 0, -EPROTO or -ECONNRESET, reported.
int wait_for_any(eclip_context& context, std::span<const SignalUse> uses,
                 const std::atomic<std::uint32_t>& word, std::uint32_t seen,
                 std::chrono::nanoseconds timeout);

}  // namespace eclip
