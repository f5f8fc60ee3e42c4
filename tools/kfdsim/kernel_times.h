// Measured kernel times from profiles, by the kernels' names.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "daemon/model/kernel.h"
#include "ipc/result.h"

namespace eclip::kfdsim {

class KernelTimes {
 public:
  /// Adds the kernels of a profile (schema eclip.profile/1). Errors as of model::load_profile.
  Result<void> load(const std::filesystem::path& profile);
  /// The kernel of this name, as the symbol table has it or demangled, that was measured with this
  /// launch; of several, the first in program order. Null when there is none.
  [[nodiscard]] std::shared_ptr<const model::Kernel> find(const std::string& name,
                                                          std::uint64_t workgroups,
                                                          std::uint64_t workgroup_size) const;

 private:
  std::unordered_map<std::string, std::vector<std::shared_ptr<const model::Kernel>>> by_name_;
};

}  // namespace eclip::kfdsim
