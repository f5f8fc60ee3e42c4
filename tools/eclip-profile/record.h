// eclip-profile record: runs a worker on every size of stream and makes a profile of its kernels.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "daemon/model/request_pattern.h"
#include "ipc/result.h"

namespace eclip::profile {

struct RecordOptions {
  std::vector<std::string> command;
  std::string model;  ///< "": the command's name
  std::uint32_t batch = 1;
  std::string precision;
  std::vector<std::uint32_t> cus;  ///< none: every size of the pool's streams
  std::uint32_t repeats = 3;
  model::MatchOptions match;
  std::filesystem::path socket;  ///< "": where libeclip looks by itself
  std::filesystem::path keep;    ///< a directory to leave the recordings in; "": none
};

struct Recorded {
  model::ProfileDocument profile;
  model::MatchReport report;
  std::vector<std::string> remarks;  ///< what the user should know of the measurement
};

/// Runs the command `repeats` times on a stream of each size, one run at a time; its standard
/// output goes to standard error. Errors name the run and the remedy: eclipd is not running, others
/// hold leases, the command failed or used no or several streams, its requests cannot be matched.
Result<Recorded> record(const RecordOptions& options);

}  // namespace eclip::profile
