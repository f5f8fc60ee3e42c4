#include "tools/kfdsim/kernel_times.h"

#include <cxxabi.h>

#include <cstdlib>
#include <utility>

#include "daemon/model/profile.h"

namespace eclip::kfdsim {
namespace {

/// The name itself when it is not a mangled one.
std::string demangled(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), &std::free);
  return status == 0 ? text.get() : name;
}

}  // namespace

Result<void> KernelTimes::load(const std::filesystem::path& profile) {
  auto loaded = model::load_profile(profile);
  if (!loaded) return tl::unexpected(loaded.error());
  for (model::ProfiledKernel& kernel : loaded->kernels) {
    by_name_[kernel.name].push_back(
        std::make_shared<const model::Kernel>(std::move(kernel.kernel)));
  }
  return {};
}

std::shared_ptr<const model::Kernel> KernelTimes::find(const std::string& name,
                                                       std::uint64_t workgroups,
                                                       std::uint64_t workgroup_size) const {
  if (by_name_.empty()) return nullptr;
  auto found = by_name_.find(name);
  if (found == by_name_.end()) found = by_name_.find(demangled(name));
  if (found == by_name_.end()) return nullptr;
  for (const auto& kernel : found->second) {
    const model::LaunchShape& shape = kernel->shape();
    if (shape.workgroups == workgroups && shape.workgroup_size == workgroup_size) return kernel;
  }
  return nullptr;
}

}  // namespace eclip::kfdsim
