// `eclipctl plan`: the plan in force, why it is so, and those before it.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "tools/eclipctl/output.h"

namespace eclip::ctl {

class PlanCommand {
 public:
  explicit PlanCommand(CLI::App& app);
  /// The exit code; nullopt when the command line asked for another command.
  std::optional<int> run(const Options& options);

 private:
  CLI::App* plan_;
  CLI::App* show_;
  CLI::App* explain_;
  CLI::App* diff_;
  CLI::App* history_;
  CLI::App* apply_;
  CLI::App* rollback_;
  CLI::App* replan_;
  CLI::App* automatic_;
  std::uint64_t epoch_ = 0;
  std::uint64_t from_ = 0;
  std::uint64_t to_ = 0;
  std::string file_;
};

}  // namespace eclip::ctl
