// Kernels of a profiler's trace, of one GPU.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "tools/eclip-profile/import.h"

namespace eclip::profile {

class ForeignKernels {
 public:
  /// `only_gpu`: the GPU whose kernels count; "": all, which must be of one.
  ForeignKernels(std::string source, std::string only_gpu)
      : source_(std::move(source)), only_gpu_(std::move(only_gpu)) {}

  /// False when a kernel of another GPU has been added before, and none was chosen.
  bool add(const std::string& gpu, const std::string& name, model::TracedKernel kernel) {
    if (!only_gpu_.empty() && gpu != only_gpu_) return true;
    if (!gpu_) gpu_ = gpu;
    if (*gpu_ != gpu) return false;
    const auto known = names_.try_emplace(name, static_cast<std::uint32_t>(names_.size())).first;
    kernel.name = known->second;
    kernels_.push_back(kernel);
    return true;
  }
  [[nodiscard]] const std::string& gpu() const { return *gpu_; }

  /// Errc::invalid_argument when there is none.
  Result<model::Trace> take() {
    if (kernels_.empty())
      return fail(Errc::invalid_argument,
                  source_ + ": has no kernels" +
                      (only_gpu_.empty() ? "; trace kernel dispatches"
                                         : " of GPU '" + only_gpu_ + "'; name another"));
    std::stable_sort(kernels_.begin(), kernels_.end(),
                     [](const auto& a, const auto& b) { return a.start_us < b.start_us; });
    model::Trace trace{.source = source_, .names = {}, .kernels = std::move(kernels_)};
    trace.names.resize(names_.size());
    for (const auto& [name, index] : names_) trace.names[index] = name;
    return trace;
  }

 private:
  std::string source_;
  std::string only_gpu_;
  std::optional<std::string> gpu_;
  std::map<std::string, std::uint32_t> names_;
  std::vector<model::TracedKernel> kernels_;
};

}  // namespace eclip::profile
