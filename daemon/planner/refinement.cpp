#include "daemon/planner/refinement.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ipc/cu_mask.h"

namespace eclip::planner {
namespace {

/// Kernels for which these are equal are one class.
std::vector<double> class_key(const model::Kernel& kernel) {
  const model::LaunchShape& shape = kernel.shape();
  std::vector<double> key{static_cast<double>(shape.workgroups),
                          static_cast<double>(shape.workgroup_size),
                          static_cast<double>(shape.registers_per_thread),
                          static_cast<double>(shape.local_memory_bytes)};
  for (const model::TimePoint& point : kernel.points()) {
    key.push_back(point.cus);
    key.push_back(point.time_us);
  }
  return key;
}

}  // namespace

ProfileRefinement::ProfileRefinement(std::vector<std::shared_ptr<const model::Kernel>> kernels,
                                     const RefinementOptions& options)
    : kernels_(std::move(kernels)), options_(options) {
  std::map<std::vector<double>, std::uint32_t> known;
  class_of_kernel_.reserve(kernels_.size());
  for (const auto& kernel : kernels_) {
    const auto next = static_cast<std::uint32_t>(std::min(known.size(), options_.max_classes - 1));
    class_of_kernel_.push_back(known.try_emplace(class_key(*kernel), next).first->second);
  }
  classes_ = std::min(known.size(), options_.max_classes);
}

ProfileRefinement::Column& ProfileRefinement::column(std::uint32_t cus) {
  const auto found = columns_.find(cus);
  if (found == columns_.end() && columns_.size() >= options_.max_cu_counts)
    columns_.erase(std::min_element(
        columns_.begin(), columns_.end(),
        [](const auto& a, const auto& b) { return a.second.last_used < b.second.last_used; }));
  Column& column = columns_[cus];
  column.of_class.resize(classes_);
  column.last_used = ++observations_;
  return column;
}

bool ProfileRefinement::observe(std::size_t first, std::size_t count, std::uint32_t cus,
                                double observed_us) {
  if (count == 0 || first >= kernels_.size() || count > kernels_.size() - first || cus == 0 ||
      cus > CuMask::max_size || !std::isfinite(observed_us) || observed_us <= 0)
    return false;
  std::map<std::uint32_t, double> predicted_us;  // by class
  double sum_us = 0;
  for (std::size_t k = first; k < first + count; ++k) {
    const double time_us = kernels_[k]->time_on_mask_us(cus) * factor(k, cus);
    predicted_us[class_of_kernel_[k]] += time_us;
    sum_us += time_us;
  }
  const double limit = std::log(options_.largest_step);
  const double deviation = std::clamp(std::log(observed_us / sum_us), -limit, limit);
  // d(log sum) = sum of share x d(log factor): of all changes that make up for the deviation, the
  // one with the least sum of squares is in proportion to the shares.
  double squares = 0;
  for (const auto& [kernel_class, time_us] : predicted_us)
    squares += (time_us / sum_us) * (time_us / sum_us);
  // What the class was believed to be here, by interpolation, is where a new column starts.
  std::map<std::uint32_t, double> believed;
  for (const auto& [kernel_class, time_us] : predicted_us)
    believed[kernel_class] = log_factor(kernel_class, cus);
  Column& here = column(cus);
  const double largest = std::log(options_.largest_factor);
  for (const auto& [kernel_class, time_us] : predicted_us) {
    Estimate& estimate = here.of_class[kernel_class];
    ++estimate.observations;
    const double weight = std::max(options_.rate, 1.0 / (estimate.observations + 1.0));
    const double change = time_us / sum_us / squares * deviation;
    estimate.log_factor =
        static_cast<float>(std::clamp(believed[kernel_class] + weight * change, -largest, largest));
  }
  return true;
}

double ProfileRefinement::log_factor(std::size_t kernel_class, double cus) const {
  const std::pair<const std::uint32_t, Column>* below = nullptr;
  for (const auto& entry : columns_) {
    const Estimate& estimate = entry.second.of_class[kernel_class];
    if (estimate.observations == 0) continue;
    if (entry.first < cus) {
      below = &entry;
      continue;
    }
    if (below == nullptr || entry.first == cus) return estimate.log_factor;
    const double from = below->second.of_class[kernel_class].log_factor;
    const double part =
        (std::log(cus) - std::log(below->first)) / (std::log(entry.first) - std::log(below->first));
    return from + part * (estimate.log_factor - from);
  }
  return below == nullptr ? 0 : below->second.of_class[kernel_class].log_factor;
}

double ProfileRefinement::factor(std::size_t kernel, double cus) const {
  return std::exp(log_factor(class_of_kernel_[kernel], cus));
}

std::vector<std::shared_ptr<const model::Kernel>> ProfileRefinement::refined() const {
  std::vector<std::shared_ptr<const model::Kernel>> of_class(classes_);
  std::vector<std::shared_ptr<const model::Kernel>> refined;
  refined.reserve(kernels_.size());
  for (std::size_t k = 0; k < kernels_.size(); ++k) {
    const std::size_t kernel_class = class_of_kernel_[k];
    const bool observed =
        std::any_of(columns_.begin(), columns_.end(), [kernel_class](const auto& entry) {
          return entry.second.of_class[kernel_class].observations > 0;
        });
    if (!observed) {
      refined.push_back(kernels_[k]);
      continue;
    }
    const bool shared_class = kernel_class + 1 == options_.max_classes;  // of different kernels
    if (!shared_class && of_class[kernel_class]) {
      refined.push_back(of_class[kernel_class]);
      continue;
    }
    std::map<std::uint32_t, double> times_us;
    for (const model::TimePoint& point : kernels_[k]->points())
      times_us[point.cus] = point.time_us * factor(k, point.cus);
    for (const auto& [cus, column] : columns_) {
      if (column.of_class[kernel_class].observations == 0) continue;
      times_us[cus] = kernels_[k]->time_on_mask_us(cus) * factor(k, cus);
    }
    std::vector<model::TimePoint> points;
    points.reserve(times_us.size());
    for (const auto& [cus, time_us] : times_us) points.push_back({cus, time_us});
    std::shared_ptr<const model::Kernel> kernel = kernels_[k];
    // Positive times at ascending counts: it cannot fail but for times that overflow.
    if (auto made = model::Kernel::create(kernel->shape(), points))
      kernel = std::make_shared<const model::Kernel>(std::move(*made));
    of_class[kernel_class] = kernel;
    refined.push_back(kernel);
  }
  return refined;
}

}  // namespace eclip::planner
