// Which worker used how much of the GPU's energy. Pure: figures in, figures out.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "ipc/strong_id.h"

namespace eclip::daemon {

/// Gives the energy of each interval to those that kept CUs busy in it, in proportion to CUs x
/// device time; what the GPU uses while nobody's packets run is nobody's.
class EnergyLedger {
 public:
  struct Use {
    LeaseId lease;
    WorkerId worker;
    std::uint32_t cu_count;
    std::uint64_t device_ns;  ///< of the lease so far
  };

  /// The interval since the last call ends; `energy_uj` is the GPU's counter now.
  void account(std::uint64_t energy_uj, std::span<const Use> uses) {
    const std::uint64_t spent =
        last_energy_uj_ && energy_uj > *last_energy_uj_ ? energy_uj - *last_energy_uj_ : 0;
    last_energy_uj_ = energy_uj;
    double all = 0;
    for (const Use& use : uses) all += weight(use);
    for (const Use& use : uses) {
      if (all > 0) workers_[use.worker.value] += static_cast<double>(spent) * weight(use) / all;
      seen_ns_[use.lease.value] = use.device_ns;
    }
  }
  [[nodiscard]] std::uint64_t energy_uj(WorkerId worker) const {
    const auto found = workers_.find(worker.value);
    return found == workers_.end() ? 0 : static_cast<std::uint64_t>(found->second);
  }
  void forget(LeaseId lease) { seen_ns_.erase(lease.value); }
  void forget(WorkerId worker) { workers_.erase(worker.value); }

 private:
  [[nodiscard]] double weight(const Use& use) const {
    const auto seen = seen_ns_.find(use.lease.value);
    const std::uint64_t before = seen == seen_ns_.end() ? 0 : seen->second;
    return use.device_ns > before ? static_cast<double>(use.device_ns - before) * use.cu_count : 0;
  }

  std::optional<std::uint64_t> last_energy_uj_;
  std::map<std::uint64_t, std::uint64_t> seen_ns_;  // by LeaseId
  std::map<std::uint64_t, double> workers_;         // by WorkerId, uJ
};

}  // namespace eclip::daemon
