#include "tools/eclip-bench/colocate_judgement.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace eclip::bench {
namespace {

constexpr double least_throughput = 0.98;
/// "No worse": to two decimals, which is all that a p95 of so few requests is worth.
constexpr double no_worse = 1.005;

/// Multiplies up to a geometric mean; 0 of nothing.
class GeometricMean {
 public:
  void add(double value) {
    sum_ += std::log(value);
    ++count_;
  }
  [[nodiscard]] double value() const {
    return count_ == 0 ? 0 : std::exp(sum_ / static_cast<double>(count_));
  }
  [[nodiscard]] std::size_t count() const { return count_; }

 private:
  double sum_ = 0;
  std::size_t count_ = 0;
};

const Cell* beside(const Colocation& colocation, const Cell& cell, Policy policy) {
  return colocation.find(cell.gpu, cell.mix, cell.load, policy);
}

}  // namespace

bool Rivalry::keeps_throughput() const {
  return throughput >= least_throughput;
}
bool Rivalry::keeps_p95() const {
  return p95 <= no_worse;
}

std::vector<PolicySummary> summaries(const Colocation& colocation) {
  std::set<std::tuple<std::string, LoadShare, Policy>> keys;
  for (const Cell& cell : colocation.cells) keys.emplace(cell.gpu, cell.load, cell.policy);
  std::vector<PolicySummary> found;
  for (const auto& [gpu, load, policy] : keys) {
    PolicySummary summary{.gpu = gpu, .load = load, .policy = policy};
    GeometricMean throughput;
    GeometricMean p95;
    GeometricMean worst;
    GeometricMean per_joule;
    for (const Cell& cell : colocation.cells) {
      if (cell.gpu != gpu || cell.load != load || cell.policy != policy) continue;
      const Cell* unmasked = beside(colocation, cell, Policy::unmasked);
      if (unmasked == nullptr) continue;
      throughput.add(relative_stp(cell, *unmasked));
      p95.add(mean_relative_p95(cell, *unmasked));
      per_joule.add(relative_work_per_joule(cell, *unmasked));
      const std::vector<double> workers = relative_p95(cell, *unmasked);
      const double worst_here = *std::max_element(workers.begin(), workers.end());
      worst.add(worst_here);
      summary.worst_p95 = std::max(summary.worst_p95, worst_here);
      summary.fairness += cell.fairness.median;
    }
    summary.mixes = throughput.count();
    if (summary.mixes == 0) continue;
    summary.throughput = throughput.value();
    summary.p95 = p95.value();
    summary.requests_per_joule = per_joule.value();
    summary.worst_p95_mean = worst.value();
    summary.fairness /= static_cast<double>(summary.mixes);
    found.push_back(std::move(summary));
  }
  return found;
}

std::vector<Rivalry> rivalries(const Colocation& colocation) {
  std::vector<Rivalry> found;
  for (const Cell& cell : colocation.cells) {
    if (cell.policy != Policy::eclip) continue;
    const Cell* unmasked = beside(colocation, cell, Policy::unmasked);
    const Cell* model_wise = beside(colocation, cell, Policy::model_wise);
    if (unmasked == nullptr || model_wise == nullptr) continue;
    const double p95_of_unmasked = mean_relative_p95(cell, *unmasked);
    const double p95_of_model_wise = mean_relative_p95(cell, *model_wise);
    Rivalry rivalry{
        .cell = &cell,
        .throughput = std::min(relative_stp(cell, *unmasked), relative_stp(cell, *model_wise)),
        .p95 = std::max(p95_of_unmasked, p95_of_model_wise),
        .worst_worker = {},
        .rival = p95_of_unmasked >= p95_of_model_wise ? Policy::unmasked : Policy::model_wise};
    const std::vector<double> workers = relative_p95(cell, *unmasked);
    const auto worst = std::max_element(workers.begin(), workers.end());
    rivalry.worst_p95 = *worst;
    for (const MixInfo& mix : colocation.mixes)
      if (mix.gpu == cell.gpu && mix.mix == cell.mix)
        rivalry.worst_worker = mix.profiles[static_cast<std::size_t>(worst - workers.begin())];
    for (const WorkerFigures& worker : cell.workers)
      rivalry.intrusion_share = std::max(rivalry.intrusion_share, worker.intrusion_share.median);
    found.push_back(std::move(rivalry));
  }
  return found;
}

std::vector<ColocateTarget> targets_of(const Colocation& colocation) {
  std::vector<ColocateTarget> targets;
  const std::vector<PolicySummary> all = summaries(colocation);
  const std::vector<Rivalry> rivals = rivalries(colocation);
  std::set<std::string> gpus;
  for (const Cell& cell : colocation.cells) gpus.insert(cell.gpu);
  for (const std::string& gpu : gpus) {
    GeometricMean open_p95;
    for (const PolicySummary& summary : all) {
      if (summary.gpu != gpu || summary.policy != Policy::eclip) continue;
      if (summary.load != closed_loop) {
        for (std::size_t mix = 0; mix < summary.mixes; ++mix) open_p95.add(summary.p95);
        continue;
      }
      targets.push_back(
          {gpu, "closed loop: throughput of unmasked", 1.13, true, summary.throughput});
      targets.push_back({gpu, "closed loop: requests per joule of unmasked", 1.25, true,
                         summary.requests_per_joule});
      targets.push_back({gpu, "closed loop: p95 of unmasked", no_worse, false, summary.p95});
    }
    if (open_p95.count() > 0)
      targets.push_back({gpu, "open loop: p95 of unmasked", 0.55, false, open_p95.value()});
    double throughput = 0;
    double p95 = 0;
    for (const Rivalry& rivalry : rivals) {
      if (rivalry.cell->gpu != gpu) continue;
      throughput = throughput == 0 ? rivalry.throughput : std::min(throughput, rivalry.throughput);
      p95 = std::max(p95, rivalry.p95);
    }
    if (p95 == 0) continue;
    targets.push_back({gpu, "every cell: throughput of the better of unmasked and model-wise",
                       least_throughput, true, throughput});
    targets.push_back(
        {gpu, "every cell: p95 of the better of unmasked and model-wise", no_worse, false, p95});
  }
  return targets;
}

}  // namespace eclip::bench
