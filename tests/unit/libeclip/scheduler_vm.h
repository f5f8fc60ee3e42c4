// A machine of nothing but order, to prove that the scheduler keeps every dependency: random
// programs of several workers go through their schedulers into queues that do whatever AQL allows,
// at whatever moment. Each kernel reads its inputs when it starts and writes its outputs when it
// ends, so that a dependency that was not kept shows in the values.
//
// All of it follows from the seed, and takes place in one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "ipc/worker_regions.h"

namespace eclip::test {

/// What is taken away from one packet, to see that the machine notices.
enum class Mutation : std::uint8_t {
  barrier_packet,  ///< a barrier-AND packet that waits for something
  dependency,      ///< one of those for which it waits
  dispatch_bit,    ///< the barrier bit of a kernel
  marker_bit,      ///< the barrier bit of a barrier packet that has a completion signal
  marker_packet,   ///< such a packet: its signal is complete at once
  count,
  none = count,
};
[[nodiscard]] const char* name_of(Mutation mutation);

struct DagCase {
  std::uint64_t seed = 0;
  std::uint32_t kernels = 1000;  ///< of all workers, about
  bool dense = false;            ///< few buffers: nearly each two kernels depend on each other
  Mutation mutation = Mutation::none;
  std::uint64_t mutate_at = 0;  ///< of the packets that the mutation fits, which
};

struct DagResult {
  /// Empty: all kernels ran, each saw what it should, and nothing is left. Else the first failure:
  /// seed, worker, program, kernel, streams.
  std::string failure;
  bool final_values_differ = false;
  bool order_differs = false;   ///< a kernel began before one that it depends on had ended
  bool told_too_early = false;  ///< that a request or event was complete
  std::uint64_t kernels = 0;
  std::uint64_t moves = 0;  ///< changes of a stream
  std::uint64_t scheduled = 0;
  std::array<std::uint64_t, static_cast<std::size_t>(BypassReason::count)> bypassed{};
  std::uint64_t killed = 0;
  std::uint64_t calls = 0;
  /// Packets that each mutation fits.
  std::array<std::uint64_t, static_cast<std::size_t>(Mutation::count)> candidates{};
};

[[nodiscard]] DagResult run_dag(const DagCase& dag);

}  // namespace eclip::test
