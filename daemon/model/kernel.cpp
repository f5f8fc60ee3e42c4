#include "daemon/model/kernel.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "ipc/cu_mask.h"

namespace eclip::model {
namespace {

/// Makes times non-increasing with the least change: neighbours that rise are pooled at their
/// geometric mean (isotonic regression in the logarithm), so that noise is not a bias.
void make_monotone(std::vector<double>& log_times) {
  struct Pool {
    double mean;
    std::size_t size;
  };
  std::vector<Pool> pools;
  for (const double value : log_times) {
    pools.push_back({value, 1});
    while (pools.size() > 1 && pools[pools.size() - 2].mean < pools.back().mean) {
      const Pool last = pools.back();
      pools.pop_back();
      Pool& into = pools.back();
      const std::size_t size = into.size + last.size;
      into.mean = (into.mean * static_cast<double>(into.size) +
                   last.mean * static_cast<double>(last.size)) /
                  static_cast<double>(size);
      into.size = size;
    }
  }
  auto out = log_times.begin();
  for (const Pool& pool : pools)
    out = std::fill_n(out, static_cast<std::ptrdiff_t>(pool.size), pool.mean);
}

/// Workgroups that the busiest of `cus` compute units runs.
double rounds(const LaunchShape& shape, double cus) {
  return std::ceil(std::max(shape.workgroups, 1U) / cus);
}

}  // namespace

Kernel::Kernel(LaunchShape shape, std::vector<TimePoint> points)
    : shape_(shape), points_(std::move(points)) {
  std::vector<double> log_times;
  log_times.reserve(points_.size());
  for (const TimePoint& point : points_) log_times.push_back(std::log(point.time_us));
  // A curve that is monotone already keeps its measured times to the last bit.
  const auto rises = [](const TimePoint& a, const TimePoint& b) { return a.time_us < b.time_us; };
  if (std::adjacent_find(points_.begin(), points_.end(), rises) != points_.end()) {
    make_monotone(log_times);
    for (std::size_t i = 0; i < points_.size(); ++i) points_[i].time_us = std::exp(log_times[i]);
  }
  log_points_.reserve(points_.size());
  for (std::size_t i = 0; i < points_.size(); ++i)
    log_points_.push_back({std::log(static_cast<double>(points_[i].cus)), log_times[i]});
  for (std::uint32_t cus = points_.front().cus; cus <= points_.back().cus; ++cus)
    on_masks_.push_back(rounded_time_us(cus));
}

Kernel Kernel::scaled(double factor) const {
  std::vector<TimePoint> points = points_;
  for (TimePoint& point : points) point.time_us *= factor;
  return {shape_, std::move(points)};
}

Result<Kernel> Kernel::create(LaunchShape shape, std::span<const TimePoint> points) {
  if (points.empty())
    return fail(Errc::malformed, "a kernel needs at least one point of t(c); it has none");
  std::uint32_t previous = 0;
  if (points.back().cus > CuMask::max_size)
    return fail(Errc::malformed, "t(c) has a point at " + std::to_string(points.back().cus) +
                                     " compute units; a mask has at most " +
                                     std::to_string(CuMask::max_size));
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::string where = "point " + std::to_string(i) + " of t(c)";
    if (points[i].cus <= previous)
      return fail(Errc::malformed, where + " has " + std::to_string(points[i].cus) +
                                       " compute units after " + std::to_string(previous) +
                                       "; give positive counts in ascending order");
    if (!std::isfinite(points[i].time_us) || points[i].time_us <= 0)
      return fail(Errc::malformed, where + " has the time " + std::to_string(points[i].time_us) +
                                       " us; give a positive, finite time");
    previous = points[i].cus;
  }
  return Kernel(shape, std::vector<TimePoint>(points.begin(), points.end()));
}

double Kernel::time_us(double cus) const {
  const auto after = std::find_if(points_.begin(), points_.end(),
                                  [cus](const TimePoint& point) { return point.cus >= cus; });
  if (after == points_.end()) return points_.back().time_us;
  if (after->cus == cus) return after->time_us;
  if (after == points_.begin()) return after->time_us * after->cus / cus;
  const auto index = static_cast<std::size_t>(after - points_.begin());
  const LogPoint& left = log_points_[index - 1];
  const LogPoint& right = log_points_[index];
  if (left.time == right.time) return after->time_us;
  const double part = (std::log(cus) - left.cus) / (right.cus - left.cus);
  return std::exp(left.time + part * (right.time - left.time));
}

double Kernel::time_on_mask_us(std::uint32_t cus) const {
  const std::uint32_t first = points_.front().cus;
  if (cus < first) return time_us(cus);
  return on_masks_[std::min<std::size_t>(cus - first, on_masks_.size() - 1)];
}

double Kernel::rounded_time_us(std::uint32_t cus) const {
  const auto after = std::find_if(points_.begin(), points_.end(),
                                  [cus](const TimePoint& point) { return point.cus >= cus; });
  if (after->cus == cus) return after->time_us;
  const auto before = std::prev(after);
  const LogPoint& left = log_points_[static_cast<std::size_t>(before - points_.begin())];
  const LogPoint& right = log_points_[static_cast<std::size_t>(after - points_.begin())];
  const double part = (std::log(cus) - left.cus) / (right.cus - left.cus);
  const double left_round = left.time - std::log(rounds(shape_, before->cus));
  const double right_round = right.time - std::log(rounds(shape_, after->cus));
  const double round_us = std::exp(left_round + part * (right_round - left_round));
  return std::clamp(rounds(shape_, cus) * round_us, after->time_us, before->time_us);
}

double Kernel::cus_for_slowdown(double cus, double slowdown) const {
  const double allowed_us = time_us(cus) * slowdown;
  // t falls, so the first point that is fast enough bounds the answer from above.
  const auto enough =
      std::find_if(points_.begin(), points_.end(),
                   [allowed_us](const TimePoint& point) { return point.time_us <= allowed_us; });
  if (enough == points_.end()) return cus;
  if (enough == points_.begin()) return std::min(cus, enough->time_us * enough->cus / allowed_us);
  const auto index = static_cast<std::size_t>(enough - points_.begin());
  const LogPoint& left = log_points_[index - 1];
  const LogPoint& right = log_points_[index];
  const double part = (std::log(allowed_us) - left.time) / (right.time - left.time);
  return std::min(cus, std::exp(left.cus + part * (right.cus - left.cus)));
}

}  // namespace eclip::model
