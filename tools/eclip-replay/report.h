// What eclip-replay says at the end, for people and for programs.
#pragma once

#include <cstdint>
#include <eclip/eclip.hpp>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "daemon/model/profile.h"
#include "tools/eclip-replay/measurement.h"
#include "tools/eclip-replay/program.h"
#include "tools/eclip-replay/work.h"

namespace eclip::replay {

struct Latency {
  double mean_ms = 0;
  double p50_ms = 0;
  double p95_ms = 0;
  double p99_ms = 0;
  double max_ms = 0;
};

/// Of host times, in device time; percentiles by nearest rank. All 0 for no latencies.
Latency summarise(std::span<const std::chrono::nanoseconds> latencies, double device_time_rate);

struct Report {
  std::string name;
  std::string model;
  std::uint32_t batch = 0;
  std::string gpu;
  bool simulated = false;
  double device_time_rate = 1;
  std::string arrivals;
  std::uint64_t requests = 0;
  std::uint64_t unmeasured_requests = 0;
  double throughput_rps = 0;  ///< requests in a device second
  Latency latency;
  std::uint64_t kernels_per_request = 0;
  std::uint64_t distinct_kernels = 0;
  std::uint64_t packets = 0;
  std::uint64_t switches = 0;
  std::vector<Work::Stream> streams;
  std::optional<eclip_scheduler_state> scheduler;  ///< when the plan chose the streams
  std::int64_t first_request_ns = 0;               ///< host CLOCK_MONOTONIC, when measuring began
  std::int64_t last_request_ns = 0;                ///< and when the last measured request ended
  std::optional<MixOutcome> mix;
  std::optional<SessionRecord> session;
  bool interrupted = false;
};

Report make_report(const Options& options, const model::Profile& profile, const Program& program,
                   const eclip_gpu& gpu, const Work& work, const Measurement& measurement);

nlohmann::json to_json(const Report& report);
std::string to_text(const Report& report);

}  // namespace eclip::replay
