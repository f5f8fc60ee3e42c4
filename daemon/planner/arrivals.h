// Requests that arrive at random.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>
#include <random>

namespace eclip::planner {

/// Times of Poisson arrivals; they depend on seed, worker and rate only. Not
/// std::exponential_distribution, whose numbers are the library's own.
class Arrivals {
 public:
  Arrivals(std::uint64_t seed, std::size_t worker, double per_s)
      : random_(seed * 1'000'003 + worker), mean_us_(1e6 / per_s) {}
  /// The next one, after the one before.
  std::chrono::nanoseconds next() {
    constexpr double steps = 9007199254740992.0;  // 2^53
    const double uniform = (static_cast<double>(random_() >> 11U) + 1) / steps;
    at_us_ -= mean_us_ * std::log(uniform);
    return std::chrono::nanoseconds(std::llround(at_us_ * 1000));
  }

 private:
  std::mt19937_64 random_;
  double mean_us_;
  double at_us_ = 0;
};

}  // namespace eclip::planner
