// A measured scenario (colocation.h) as workers of a closed loop: profiles, masks, and the stream
// of every kernel as they were recorded.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "daemon/planner/closed_loop.h"
#include "ipc/result.h"
#include "tools/eclip-bench/colocation.h"

namespace eclip::bench {

using Kernels = std::vector<std::shared_ptr<const model::Kernel>>;

/// Profiles of a folder by name ("vgg19-b8"), each read once.
class ProfileShelf {
 public:
  explicit ProfileShelf(std::filesystem::path folder) : folder_(std::move(folder)) {}
  Result<Kernels> kernels(const std::string& name);

 private:
  std::filesystem::path folder_;
  std::map<std::string, Kernels> kernels_;
};

/// Whether parameters were fitted on this mix; the others judge them.
bool is_fitted(const std::string& mix);
/// Whether the scenario runs one request at a time, over all workers in turn.
bool is_serial(const Scenario& scenario);
/// Whether the scenario's streams and assignment were recorded.
bool is_recorded(const Scenario& scenario);

/// The scenario's workers. Errc::malformed when runs name no stream or do not cover a profile's
/// kernels; the message names mix, scenario and worker.
Result<std::vector<planner::LoopWorker>> recorded_plan(const model::GpuDescription& gpu,
                                                       const Mix& mix, const Scenario& scenario,
                                                       ProfileShelf& profiles);

}  // namespace eclip::bench
