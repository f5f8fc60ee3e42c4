#include "tools/eclipctl/budget_command.h"

#include <fmt/core.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "bpf/budget_guard.h"
#include "bpf/device_gate.h"
#include "ipc/printable.h"
#include "tools/eclipctl/budget_report.h"
#include "tools/eclipctl/query.h"

namespace eclip::ctl {
namespace {

/// What needs the guard itself, and so root: a failure says which of the two is missing.
int complain_of_guard(Error error, const Options& options) {
  if (error.code == std::errc::permission_denied ||
      error.code == std::errc::operation_not_permitted)
    error.context += " (only root may)";
  return complain(error, options);
}

/// Where there is a gate, and for root, who alone may look at it.
std::string gate_line() {
  const auto gate = bpf::DeviceGate::state();
  if (!gate) return "";
  return fmt::format("{:<16} {} cannot open /dev/kfd{}; {} opens refused\n", "device gate",
                     printable({gate->cgroup, ::strnlen(gate->cgroup, sizeof gate->cgroup)}),
                     gate->gates_drm_devices != 0 ? " or DRM devices" : "", gate->refused);
}

/// Without eclipd: what its guard, which lives on, knows.
int show_guard(const Options& options) {
  const auto guard = bpf::BudgetGuard::open();
  if (!guard)
    return guard.error().code == Errc::not_found
               ? complain(Error{make_error_code(Errc::gone), ""}, options)
               : complain_of_guard(guard.error(), options);
  const auto state = guard->state();
  if (!state) return complain_of_guard(state.error(), options);
  auto queues = guard->queues();
  if (!queues) return complain_of_guard(queues.error(), options);
  auto denials = guard->denials();
  if (!denials) return complain_of_guard(denials.error(), options);
  const GuardReport report{
      .state = *state, .queues = std::move(*queues), .denials = std::move(*denials)};
  if (options.json)
    print_json(to_json(report));
  else
    fmt::print("{}{}", gate_line(), to_text(report));
  return exit_ok;
}

int show_budget(const Options& options) {
  auto connection = DaemonConnection::open(options.socket);
  if (!connection)
    return connection.error().code == Errc::gone && bpf::BudgetGuard::is_installed()
               ? show_guard(options)
               : complain(connection.error(), options);
  const auto budget = connection->budget();
  if (!budget) return complain(budget.error(), options);
  BudgetReport report{.budget = *budget, .processes = {}, .denials = {}};
  if (budget->tier.kind != BudgetTier::none) {
    auto processes = connection->kfd_processes();
    if (!processes) return complain(processes.error(), options);
    report.processes = std::move(*processes);
  }
  if (budget->tier.kind == BudgetTier::guard) {
    auto denials = connection->denials();
    if (!denials) return complain(denials.error(), options);
    report.denials = std::move(*denials);
  }
  if (options.json)
    print_json(to_json(report));
  else
    fmt::print("{}{}", gate_line(), to_text(report));
  return exit_ok;
}

/// Says what was done.
int done(const Options& options, const nlohmann::json& what, const std::string& text) {
  if (options.json)
    print_json(what);
  else
    fmt::print("{}\n", text);
  return exit_ok;
}

guard_policy policy_of(const std::string& name) {
  return name == "enforce" ? guard_enforce : guard_audit;
}

int set_policy(const Options& options, const std::string& policy) {
  auto guard = bpf::BudgetGuard::open();
  if (!guard) return complain_of_guard(guard.error(), options);
  if (auto set = guard->set_policy(policy_of(policy)); !set)
    return complain_of_guard(set.error(), options);
  return done(options, {{"policy", policy}}, "the budget guard's policy is " + policy);
}

int install_guard(const Options& options, const std::optional<std::string>& policy,
                  bool gate_drm_devices) {
  auto installed = bpf::BudgetGuard::install(
      {.policy = policy_of(policy.value_or("audit")),
       .gate_drm_devices = gate_drm_devices ? std::optional(true) : std::nullopt});
  if (!installed) return complain_of_guard(installed.error(), options);
  if (policy)
    if (auto set = installed->guard.set_policy(policy_of(*policy)); !set)
      return complain_of_guard(set.error(), options);
  const auto state = installed->guard.state();
  if (!state) return complain_of_guard(state.error(), options);
  const char* in_force = state->policy == guard_enforce ? "enforce" : "audit";
  const std::string tier = bpf::describe(state->tier);
  if (!installed->taken_over && DaemonConnection::open(options.socket))
    fmt::print(stderr, "eclipctl: eclipd runs, and its pool is not under this guard: restart it\n");
  return done(options,
              {{"installed", !installed->taken_over}, {"policy", in_force}, {"tier_says", tier}},
              fmt::format("the budget guard {}, policy {}: {}",
                          installed->taken_over ? "was there" : "is installed", in_force, tier));
}

int remove_guard(const Options& options) {
  const auto removed = bpf::BudgetGuard::remove();
  if (!removed) return complain_of_guard(removed.error(), options);
  return done(options, {{"removed", *removed}},
              *removed ? "the budget guard is removed: no CU mask is refused any more"
                       : "there was no budget guard");
}

int install_gate(const Options& options, const std::string& cgroup, bool gate_drm_devices) {
  if (auto installed =
          bpf::DeviceGate::install({.cgroup = cgroup, .gate_drm_devices = gate_drm_devices});
      !installed)
    return complain_of_guard(installed.error(), options);
  return done(options, {{"cgroup", cgroup}, {"gated", true}},
              "processes in " + cgroup + " cannot open /dev/kfd; those that have it open keep it");
}

int remove_gate(const Options& options) {
  const auto removed = bpf::DeviceGate::remove();
  if (!removed) return complain_of_guard(removed.error(), options);
  return done(options, {{"removed", *removed}},
              *removed ? "the device gate is removed" : "there was no device gate");
}

int grant(const Options& options, pid_t pid, std::uint32_t queues) {
  auto guard = bpf::BudgetGuard::open();
  if (!guard) return complain_of_guard(guard.error(), options);
  if (auto granted = guard->grant(pid, queues); !granted)
    return complain_of_guard(granted.error(), options);
  return done(options, {{"pid", pid}, {"masked_queues", queues}},
              queues == 0 ? fmt::format("process {} may set no CU mask any more", pid)
                          : fmt::format("process {} may have {} CU-masked queues, until it ends or "
                                        "executes another program",
                                        pid, queues));
}

/// A subcommand that takes the common options after its name too.
CLI::App* add_command(CLI::App& parent, const char* name, const char* description) {
  CLI::App* command = parent.add_subcommand(name, description);
  command->fallthrough();
  return command;
}

}  // namespace

BudgetCommand::BudgetCommand(CLI::App& app) {
  const CLI::IsMember is_policy({"audit", "enforce"});
  budget_ = add_command(app, "budget",
                        "Who holds what of the GPU's CU-masked streams and hardware queues");
  budget_->require_subcommand(0, 1);
  set_ = add_command(*budget_, "set",
                     "As root: whether the guard refuses CU masks without a lease, or only counts "
                     "them");
  set_->add_option("POLICY", policy_, "audit or enforce")->required()->check(is_policy);
  CLI::App* guard = add_command(*budget_, "guard",
                                "As root: the guard lives on without eclipd; eclipd installs it by "
                                "itself (budget.policy)");
  guard->require_subcommand(1);
  guard_on_ = add_command(*guard, "on", "Install it");
  guard_on_
      ->add_option("--policy", guard_policy_,
                   "audit or enforce; default: as it is, or audit for a new one")
      ->check(is_policy);
  guard_on_->add_flag("--gate-drm-devices", gate_drm_devices_,
                      "Only processes with a lease may open a render node or card");
  guard_off_ = add_command(*guard, "off", "Remove it");
  CLI::App* gate = add_command(*budget_, "gate",
                               "As root: processes of a cgroup cannot open /dev/kfd, for kernels "
                               "that refuse the guard");
  gate->require_subcommand(1);
  gate_on_ = add_command(*gate, "on", "Gate a cgroup, and no other");
  gate_on_->add_option("CGROUP", cgroup_, "Its directory, as /sys/fs/cgroup/user.slice")
      ->required();
  gate_on_->add_flag("--drm-devices", gate_drm_devices_,
                     "Render nodes and cards cannot be opened either");
  gate_off_ = add_command(*gate, "off", "Remove the gate");
  grant_ = add_command(*budget_, "grant",
                       "As root: let a process that is not eclipd's have CU-masked queues of its "
                       "own");
  grant_->add_option("PID", grantee_, "The process")->required()->check(CLI::Range(1U, 1U << 22));
  grant_->add_option("QUEUES", granted_queues_, "At a time; 0 takes the permission back")
      ->required()
      ->check(CLI::Range(0U, 7U));
}

std::optional<int> BudgetCommand::run(const Options& options) {
  if (set_->parsed()) return set_policy(options, policy_);
  if (guard_on_->parsed()) return install_guard(options, guard_policy_, gate_drm_devices_);
  if (guard_off_->parsed()) return remove_guard(options);
  if (gate_on_->parsed()) return install_gate(options, cgroup_, gate_drm_devices_);
  if (gate_off_->parsed()) return remove_gate(options);
  if (grant_->parsed()) return grant(options, static_cast<pid_t>(grantee_), granted_queues_);
  if (budget_->parsed()) return show_budget(options);
  return std::nullopt;
}

}  // namespace eclip::ctl
