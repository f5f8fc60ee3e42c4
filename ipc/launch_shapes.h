// A check value over the launches of a group of kernels, by which a scheduler sees that a request
// is the one that the plan knows. eclipd makes it of the profile, the worker of what it dispatches.
#pragma once

#include <cstdint>

namespace eclip {

/// FNV-1a over the numbers of workgroups, in program order. A copy or fill, which a profile knows
/// as a kernel without workgroups, counts as one.
class LaunchShapes {
 public:
  void add(std::uint32_t workgroups) {
    value_ = (value_ ^ (workgroups == 0 ? 1 : workgroups)) * 16777619U;
  }
  /// Never 0, which stands for shapes that are not known.
  [[nodiscard]] std::uint32_t value() const { return value_ == 0 ? 1 : value_; }

 private:
  std::uint32_t value_ = 2166136261U;
};

}  // namespace eclip
