// What libeclip wrote of a connection under $ECLIP_RECORD (libeclip/recorder.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/model/request_pattern.h"
#include "ipc/result.h"

namespace eclip::profile {

struct Recording {
  std::string gpu;
  std::uint32_t gpu_cus = 0;
  std::string worker;
  std::vector<std::uint32_t> lease_cus;  ///< of each lease, in the order of acquisition
  std::uint64_t dropped = 0;             ///< packets that were dropped with their lease
  bool ended = false;                    ///< the worker disconnected
  model::Trace trace;                    ///< of all leases, in the order of submission
};

/// Errc::malformed names source, line and remedy.
Result<Recording> parse_recording(std::string_view text, const std::string& source);
Result<Recording> load_recording(const std::filesystem::path& file);

}  // namespace eclip::profile
