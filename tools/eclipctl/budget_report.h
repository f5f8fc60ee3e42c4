// Who holds what of the GPU's CU-masked streams and queues, and how the budget is kept.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bpf/budget_guard.h"
#include "ipc/messages.h"

namespace eclip::ctl {

/// `eclipctl budget`, as eclipd tells.
struct BudgetReport {
  BudgetReply budget;
  std::vector<KfdProcessRecord> processes;  ///< none where eclipd knows its own only
  std::vector<DenialRecord> denials;        ///< none without a guard
};
std::string to_text(const BudgetReport& report);
nlohmann::json to_json(const BudgetReport& report);

/// The same without eclipd: what the guard knows.
struct GuardReport {
  bpf::GuardState state;
  std::vector<bpf::KfdQueues> queues;
  std::vector<DenialRecord> denials;
};
std::string to_text(const GuardReport& report);
nlohmann::json to_json(const GuardReport& report);

/// "enforce; BPF LSM refuses, ...": one line of what keeps the budget, and what that cannot do.
std::string describe(const BudgetTier& tier);
/// A process and its queues on eclipd's GPU.
nlohmann::json holder_json(const KfdProcessRecord& process);
const char* name_of_role(std::uint32_t role);

}  // namespace eclip::ctl
