// `eclipctl budget`: what the budget is used for, and its guard and gate, which root changes with
// or without eclipd.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "tools/eclipctl/output.h"

namespace eclip::ctl {

class BudgetCommand {
 public:
  explicit BudgetCommand(CLI::App& app);
  /// The exit code; nullopt when the command line asked for another command.
  std::optional<int> run(const Options& options);

 private:
  CLI::App* budget_;
  CLI::App* set_;
  CLI::App* guard_on_;
  CLI::App* guard_off_;
  CLI::App* gate_on_;
  CLI::App* gate_off_;
  CLI::App* grant_;
  std::string policy_;
  std::optional<std::string> guard_policy_;
  bool gate_drm_devices_ = false;
  std::string cgroup_;
  std::uint32_t grantee_ = 0;
  std::uint32_t granted_queues_ = 0;
};

}  // namespace eclip::ctl
