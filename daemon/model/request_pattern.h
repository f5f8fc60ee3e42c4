// From a trace of dispatches to a profile: which of its kernels are requests, and how long each
// kernel of a request takes (docs/profiles.md, "Matching").
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "daemon/model/profile_document.h"

namespace eclip::model {

/// One kernel that ran, copies and fills too.
struct TracedKernel {
  std::uint32_t name;  ///< index in Trace::names
  LaunchShape shape;   ///< workgroups 0: a copy or fill
  double start_us;     ///< on the device's clock
  double duration_us;
};

/// One run of a worker on a number of CUs, in program order.
struct Trace {
  std::string source;  ///< what errors call it
  std::uint32_t cus = 0;
  std::vector<std::string> names;
  std::vector<TracedKernel> kernels;
};

struct MatchOptions {
  std::uint32_t skip = 1;  ///< requests at the beginning of each trace that do not count
  std::uint32_t kernels_per_request = 0;  ///< 0: found
};

/// How the profile came about.
struct MatchReport {
  std::vector<std::size_t> requests;  ///< of each trace, those that do not count too
  std::vector<std::size_t> outside;   ///< of each trace, kernels that are part of no request
  std::size_t overlaps = 0;  ///< kernels of requests that began before the one before ended
};

/// A request is the sequence of kernels, equal in name and workgroups, that repeats in each trace
/// and covers most of it; what is around it (warm-up, tails that differ from request to request) is
/// left out. Fills in counts, times, spreads, samples, request times and kernels; `request_us_
/// unmasked` becomes the time on most CUs. Times are medians over the requests of all traces with
/// that number of CUs. Errc::invalid_argument names the trace, the kernel and the remedy.
Result<ProfileDocument> profile_from_traces(std::span<const Trace> traces,
                                            const MatchOptions& options, MatchReport& report);

}  // namespace eclip::model
