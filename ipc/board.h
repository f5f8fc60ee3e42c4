// The board: what eclipd publishes to every worker, read-only for them.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace eclip {

/// Payload of RegionKind::board. Everything but the atomics is written before the region is
/// published.
struct Board {
  static constexpr std::size_t max_streams = 7;  ///< the budget of CU-masked streams of a GPU
  static constexpr std::size_t mask_words = 32;  ///< CuMask::max_size / 32
  static constexpr std::chrono::milliseconds heartbeat_period{20};
  static constexpr std::chrono::milliseconds heartbeat_stale{60};

  struct Stream {
    std::uint32_t cu_count;  ///< CUs in the mask
    std::array<std::uint32_t, mask_words> mask;
    /// LeaseId that holds the stream, the first of several, 0 when free. Writer: eclipd.
    std::atomic<std::uint64_t> lease;
  };

  /// 1 while the forwarder sleeps and must be woken through WorkerRequest::wake. Writer: eclipd,
  /// sequentially consistent with its last look at the rings.
  alignas(64) std::atomic<std::uint32_t> forwarder_asleep;
  /// CLOCK_MONOTONIC in ns, stored every `heartbeat_period` while eclipd lives. A worker that finds
  /// it older than `heartbeat_stale` asks its socket whether eclipd is gone: a system call, which
  /// it so never makes while all is well. Writer: eclipd's control thread.
  alignas(64) std::atomic<std::uint64_t> heartbeat_ns;
  /// Rises with every change of the pool's leases. Writer: eclipd.
  alignas(64) std::atomic<std::uint64_t> epoch;
  /// Device nanoseconds that pass in 2^32 host nanoseconds, measured from the GPU's own clock
  /// counter: 2^32 on hardware, less on a GPU whose clocks are slowed. Writer: eclipd.
  std::atomic<std::uint64_t> device_time_rate;
  /// Of the plan in force (ipc/plan_table.h); 0: none. Writer: eclipd, when all tables are written.
  std::atomic<std::uint64_t> plan_epoch;
  std::uint64_t gpu_counter_hz;  ///< frequency of the clock that SignalSlot::start_ts counts
  std::uint32_t gpu_node;        ///< topology node
  std::uint32_t gpu_cu_count;
  std::array<char, 64> gpu_name;  ///< as the topology reports it, zero-terminated
  std::uint32_t stream_count;
  std::array<Stream, max_streams> streams;
};
static_assert(offsetof(Board, heartbeat_ns) == 64);
static_assert(offsetof(Board, epoch) == 128);
static_assert(sizeof(Board::Stream) == 144);

}  // namespace eclip
