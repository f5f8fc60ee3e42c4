// The measured run of one worker: arrivals, requests, their times.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "ipc/result.h"
#include "tools/eclip-replay/cohort.h"
#include "tools/eclip-replay/options.h"

namespace eclip::replay {

using HostClock = std::chrono::steady_clock;

/// Host times; the report converts them.
struct Measurement {
  std::vector<std::chrono::nanoseconds> latencies;  ///< of the measured requests, in order
  HostClock::time_point begin;                      ///< when measuring began
  HostClock::time_point end;                        ///< when the last measured request ended
  std::uint64_t unmeasured = 0;                     ///< requests before and after
  bool interrupted = false;
  std::optional<Error> cohort_error;  ///< other members failed; the figures may lack their load
};

/// What a run needs of the world.
struct Workload {
  /// True when the request was done; told when the next one arrives.
  std::function<bool(HostClock::time_point next)> run_request;
  std::function<double()> device_time_rate;  ///< device nanoseconds in a host nanosecond, now
  const std::atomic<bool>* stop;
};

/// Warms up, measures, and keeps up the load for the cohort (null: none). What `run_request` throws
/// passes through.
Measurement measure(const Options& options, const Workload& workload, Cohort* cohort);

}  // namespace eclip::replay
