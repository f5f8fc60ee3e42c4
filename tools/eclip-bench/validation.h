// The device model against measured co-location: what it predicts for every worker of every mix
// and scenario.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "daemon/planner/closed_loop.h"
#include "ipc/result.h"

namespace eclip::bench {

using planner::LoopOptions;
using planner::LoopOutcome;
using planner::LoopWorker;

/// One worker in one scenario of one mix.
struct WorkerPoint {
  std::string profile;
  double measured_us = 0;
  double predicted_us = 0;
  double measured_p95_us = 0;
  double predicted_p95_us = 0;
  double solo_us = 0;  ///< measured alone
  /// |predicted - measured| / measured.
  [[nodiscard]] double error() const;
  [[nodiscard]] double p95_error() const;
};

struct ScenarioOutcome {
  std::string mix;
  std::string scenario;
  bool fitted = false;  ///< the mix is one of those that the timing parameters were fitted on
  double measured_watts = 0;
  double predicted_watts = 0;
  std::vector<WorkerPoint> workers;
  /// Geometric mean over the workers: mixes hold models of very different size.
  [[nodiscard]] double measured_mean_us() const;
  [[nodiscard]] double predicted_mean_us() const;
  /// Sum over the workers of their rate relative to the measured rate alone.
  [[nodiscard]] double measured_throughput() const;
  [[nodiscard]] double predicted_throughput() const;
};

struct Validation {
  std::vector<ScenarioOutcome> outcomes;
  std::vector<std::string> skipped;  ///< "mix/scenario: reason"
};

/// The mixes that the parameters were fitted on, the others, or all.
enum class Half : std::uint8_t { both, fitted, held_out };

/// Runs every mix of the half and scenario of `data`/colocation-h100.json in virtual time with the
/// profiles of `data`/profiles.
Result<Validation> validate(const model::GpuDescription& gpu, const std::filesystem::path& data,
                            const LoopOptions& options, Half half = Half::both);

/// What a model says of workers in a closed loop, or of one request at a time over all of them.
using Predictor =
    std::function<Result<LoopOutcome>(const std::vector<LoopWorker>& workers, bool serial)>;
/// The same for another model than the device model.
Result<Validation> validate(const model::GpuDescription& gpu, const std::filesystem::path& data,
                            const Predictor& predictor, Half half = Half::both);

}  // namespace eclip::bench
