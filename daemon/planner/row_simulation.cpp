#include "daemon/planner/row_simulation.h"

#include <algorithm>
#include <utility>

namespace eclip::planner {
namespace {

std::vector<LoopWorker> loop_workers(std::span<const Worker> workers,
                                     const std::vector<Groups>& groups,
                                     std::span<const CuMask> masks, const Row& row) {
  std::vector<LoopWorker> loop;
  for (std::size_t w = 0; w < workers.size(); ++w) {
    if (row.streams[w].empty()) continue;
    LoopWorker worker{.kernels = workers[w].kernels, .streams = {}, .stream_of_kernel = {}};
    std::vector<std::uint32_t> used;  // in the order of worker.streams
    for (std::size_t g = 0; g < row.streams[w].size(); ++g) {
      const std::uint32_t stream = row.streams[w][g];
      const auto found = std::find(used.begin(), used.end(), stream);
      const auto index = static_cast<std::uint32_t>(found - used.begin());
      if (found == used.end()) {
        used.push_back(stream);
        worker.streams.push_back(masks[stream]);
      }
      const std::size_t end = g + 1 < groups[w].size() ? groups[w][g + 1] : worker.kernels.size();
      worker.stream_of_kernel.insert(worker.stream_of_kernel.end(), end - groups[w][g], index);
    }
    loop.push_back(std::move(worker));
  }
  return loop;
}

}  // namespace

std::vector<Violation> violations_of(std::span<const Worker> workers, WorkerSet active,
                                     const Row& row) {
  std::vector<Violation> found;
  const auto& request_us = row.simulated_us.empty() ? row.prediction.request_us : row.simulated_us;
  for (std::size_t w = 0; w < workers.size(); ++w)
    if (late_penalty(request_us[w], workers[w].latency_bound_us) > 0)
      found.push_back({active, w, request_us[w], workers[w].latency_bound_us});
  return found;
}

Result<LoopOutcome> simulate_row(const model::GpuDescription& gpu, std::span<const Worker> workers,
                                 const std::vector<Groups>& groups, std::span<const CuMask> masks,
                                 const RowSearch& search, const LoopOptions& options, Row& row) {
  auto outcome = run_closed_loop(gpu, loop_workers(workers, groups, masks, row), options);
  if (!outcome) return outcome;
  row.simulated_us.assign(workers.size(), 0);
  std::size_t at = 0;
  for (std::size_t w = 0; w < workers.size(); ++w)
    if (!row.streams[w].empty()) row.simulated_us[w] = outcome->mean_us[at++];
  row.simulated_value = search.value_of(row.simulated_us, row.prediction.joules);
  return outcome;
}

}  // namespace eclip::planner
