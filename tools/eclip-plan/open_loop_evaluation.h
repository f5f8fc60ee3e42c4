// Requests that arrive at random, simulated: what a plan's active sets are worth.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "ipc/result.h"

namespace eclip::plan {

/// Ways of sharing the GPU that are compared.
enum class Sharing : std::uint8_t {
  unmasked,
  static_disjoint,  ///< everybody on a leaf sized from profiles and rates
  active_sets,      ///< the plan: at each group, its row for who is active
};
inline constexpr std::array all_sharings{Sharing::unmasked, Sharing::static_disjoint,
                                         Sharing::active_sets};

/// 95th percentiles of workers relative to unmasked.
struct Relative {
  double mean = 0;   ///< geometric, over the workers
  double worst = 0;  ///< of the worker that is worst off
};

/// A mix at one load. Measured figures where the data has them.
struct OpenLoopCell {
  std::string mix;
  double load = 0;  ///< of each worker, relative to its rate in a closed loop without masks
  std::vector<std::string> profiles;
  std::vector<std::vector<double>> p95_us;  ///< [Sharing][worker], simulated
  std::optional<Relative> measured_static;
  std::optional<Relative> measured_active;
  [[nodiscard]] Relative relative(Sharing sharing) const;
};

/// Simulates the mixes of active-sets-h100.json in the folder `data`, so many requests of each
/// worker at least, arrivals by `seed`. Errors: of files, by name and place; Errc::invalid_argument
/// when the GPU does not fit.
Result<std::vector<OpenLoopCell>> evaluate_open_loop(const model::GpuDescription& gpu,
                                                     const std::filesystem::path& data,
                                                     std::uint32_t requests, std::uint64_t seed);

std::string open_loop_report(const std::vector<OpenLoopCell>& cells, const std::string& gpu);
std::string open_loop_json(const std::vector<OpenLoopCell>& cells, const std::string& gpu);

}  // namespace eclip::plan
