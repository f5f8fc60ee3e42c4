// A profile that learns from what kernels take in service. Pure; nothing calls it yet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "daemon/model/kernel.h"

namespace eclip::planner {

struct RefinementOptions {
  double rate = 1.0 / 16;          ///< weight of a new observation, once there are many, 0 .. 1
  double largest_step = 2;         ///< an observation further off than by this factor counts so
  double largest_factor = 32;      ///< no kernel becomes slower or faster by more
  std::size_t max_classes = 2048;  ///< kernels beyond share the last class
  std::size_t max_cu_counts = 16;  ///< the one observed longest ago makes room for a new one
};

/// One worker's kernels with a factor for each class of kernels (equal launch shape and times) at
/// each number of CUs seen: observed time = profile's time x factor. Factors are exponentially
/// weighted means of logarithms; the profile itself counts as the first observation. Memory is
/// bounded by classes x CU counts, whatever is observed.
class ProfileRefinement {
 public:
  /// `kernels`: one request's, in program order.
  explicit ProfileRefinement(std::vector<std::shared_ptr<const model::Kernel>> kernels,
                             const RefinementOptions& options = {});

  /// The kernels `first` .. `first + count - 1` took `observed_us` in all, gaps between them not
  /// counted, on `cus` CUs that they had alone: waiting for co-runners is the cost model's, not the
  /// profile's. The deviation goes to the classes in the way that changes factors least: to those
  /// that take most of the time. False, and nothing changes, when there are no such kernels or the
  /// values are no time and no CUs.
  bool observe(std::size_t first, std::size_t count, std::uint32_t cus, double observed_us);
  bool observe(std::size_t kernel, std::uint32_t cus, double observed_us) {
    return observe(kernel, 1, cus, observed_us);
  }

  /// The kernels as they are now believed to be. Between CU counts with observations factors are
  /// interpolated in the logarithms of both, beyond them they are the nearest one's. A kernel whose
  /// class was never observed is the profile's.
  [[nodiscard]] std::vector<std::shared_ptr<const model::Kernel>> refined() const;
  /// Of one kernel on so many CUs; 1 when its class was never observed. `kernel` must exist.
  [[nodiscard]] double factor(std::size_t kernel, double cus) const;

 private:
  struct Estimate {
    float log_factor = 0;
    std::uint32_t observations = 0;
  };
  struct Column {
    std::vector<Estimate> of_class;
    std::uint64_t last_used = 0;
  };

  Column& column(std::uint32_t cus);
  [[nodiscard]] double log_factor(std::size_t kernel_class, double cus) const;

  std::vector<std::shared_ptr<const model::Kernel>> kernels_;
  RefinementOptions options_;
  std::vector<std::uint32_t> class_of_kernel_;
  std::size_t classes_ = 0;
  std::map<std::uint32_t, Column> columns_;  // by number of CUs
  std::uint64_t observations_ = 0;
};

}  // namespace eclip::planner
