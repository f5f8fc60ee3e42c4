// Measured co-location on a real GPU (data/colocation-h100.json): mixes of workers in a closed
// loop, each under several scenarios of CU masks and kernel-to-stream assignments.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ipc/result.h"

namespace eclip::bench {

/// A worker's stream: the SM groups of its mask, or none for a stream without a mask.
using StreamGroups = std::optional<std::vector<std::uint32_t>>;

/// So many kernels in a row go to that stream of the worker.
struct AssignmentRun {
  std::uint32_t stream;
  std::uint32_t kernels;
};

struct MeasuredWorker {
  double mean_us = 0;  ///< from one completion to the next
  double p95_us = 0;
  std::vector<StreamGroups> streams;
  std::vector<AssignmentRun> assignment;  ///< empty when it was not recorded
};

struct Scenario {
  std::string name;
  double watts = 0;
  std::vector<MeasuredWorker> workers;
};

struct Mix {
  std::string name;
  std::vector<std::string> profiles;  ///< of each worker: the profile's name, "vgg19-b8"
  std::vector<double> solo_us;        ///< of each worker: its mean alone on the GPU
  std::vector<Scenario> scenarios;
};

/// Reads all mixes; errors name the file, the mix and the scenario.
Result<std::vector<Mix>> load_colocation(const std::filesystem::path& file);

}  // namespace eclip::bench
