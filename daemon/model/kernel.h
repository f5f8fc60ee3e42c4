// What the device model knows of a kernel: its launch shape and its time on c compute units.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ipc/result.h"

namespace eclip::model {

/// Launch geometry and resources of one kernel, in the units of the HSA dispatch packet.
struct LaunchShape {
  std::uint32_t workgroups = 1;       ///< 0: not a kernel but a copy or fill; t(c) alone counts
  std::uint32_t workgroup_size = 64;  ///< work items in a workgroup
  std::uint32_t registers_per_thread = 0;  ///< 0: unknown, does not limit occupancy
  std::uint32_t local_memory_bytes = 0;    ///< LDS (shared memory) of a workgroup
  friend bool operator==(const LaunchShape&, const LaunchShape&) = default;
};

/// One measured point of t(c).
struct TimePoint {
  std::uint32_t cus;  ///< compute units that the kernel had
  double time_us;     ///< its time on them
};

/// Kernels first to last of a request that must run on one stream: cooperative kernels, or those of
/// a library that assumes that the number of CUs does not change.
struct KernelRange {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
  friend bool operator==(const KernelRange&, const KernelRange&) = default;
};

/// A kernel's measured time curve t(c) and launch shape. Immutable. t is interpolated in log-log
/// between points, made monotone (more CUs never take longer: points that rise are pooled at their
/// geometric mean), and extrapolated below the first point as if time x CUs were constant, above
/// the last point as constant.
class Kernel {
 public:
  /// Errc::malformed when there is no point, CU counts are not strictly ascending and positive, or
  /// a time is not positive and finite, or a point is beyond CuMask::max_size.
  static Result<Kernel> create(LaunchShape shape, std::span<const TimePoint> points);

  /// The same kernel with times multiplied by a factor above 0.
  [[nodiscard]] Kernel scaled(double factor) const;

  [[nodiscard]] const LaunchShape& shape() const { return shape_; }
  /// The measured points, made monotone.
  [[nodiscard]] std::span<const TimePoint> points() const { return points_; }
  /// Time in microseconds on `cus` compute units, cus > 0, fractions allowed.
  [[nodiscard]] double time_us(double cus) const;
  /// The same on a mask of its own. Between measured points the time of one round of workgroups is
  /// interpolated, not t itself: 196 workgroups take three rounds on 66 CUs and four on 65.
  [[nodiscard]] double time_on_mask_us(std::uint32_t cus) const;
  /// The smallest number of CUs at which the kernel reaches 1/slowdown of its speed on `cus` CUs.
  [[nodiscard]] double cus_for_slowdown(double cus, double slowdown) const;

 private:
  Kernel(LaunchShape shape, std::vector<TimePoint> points);

  /// time_on_mask_us between the first and the last point.
  [[nodiscard]] double rounded_time_us(std::uint32_t cus) const;

  struct LogPoint {
    double cus;
    double time;
  };

  LaunchShape shape_;
  std::vector<TimePoint> points_;     // monotone
  std::vector<LogPoint> log_points_;  // logarithms of points_
  std::vector<double> on_masks_;      // for each number of CUs from the first point to the last
};

}  // namespace eclip::model
