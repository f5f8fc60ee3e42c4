#include "daemon/probes.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "ipc/board.h"

namespace eclip::daemon {
namespace {

Result<bpf::BudgetGuard> budget_guard(const Config& config) {
  if (config.budget.policy == BudgetTier::off) {
    if (!bpf::BudgetGuard::is_installed())
      return fail(Errc::unsupported,
                  "no budget guard: budget.policy = \"off\" in eclipd's configuration");
    spdlog::info(
        "a budget guard is installed, and used though budget.policy is \"off\"; eclipctl budget "
        "guard off removes it");
    return bpf::BudgetGuard::open();
  }
  auto installed = bpf::BudgetGuard::install(
      {.policy = config.budget.policy == BudgetTier::enforce ? guard_enforce : guard_audit,
       .budget = Board::max_streams,
       .gate_drm_devices = config.budget.gate_drm_devices});
  if (!installed) return tl::unexpected(installed.error());
  const auto state = installed->guard.state();
  if (!state) return tl::unexpected(state.error());
  spdlog::info("budget guard {}, policy {}: {}", installed->taken_over ? "taken over" : "installed",
               state->policy == guard_enforce ? "enforce" : "audit", bpf::describe(state->tier));
  return std::move(installed->guard);
}

}  // namespace

Probes attach_probes(const Config& config) {
  Probes probes{.guard = budget_guard(config)};
  const bool wants_guard = config.budget.policy != BudgetTier::off;
  if (!probes.guard && (wants_guard || bpf::BudgetGuard::is_installed()))
    spdlog::warn("CU masks are not held to the budget: {}", probes.guard.error().message());
  // Where the guard does not know queues, the probe does.
  bool has_ledger = false;
  if (probes.guard) {
    const auto state = probes.guard->state();
    has_ledger = state && state->tier.accounting != guard_by_returns;
  }
  if (!config.probes.measure_ioctls && (!wants_guard || has_ledger)) return probes;
  probes.ioctls = bpf::KfdIoctlProbe::attach();
  if (probes.ioctls)
    spdlog::info("KFD ioctls of all processes are measured {}{}",
                 probes.ioctls->place() == bpf::KfdIoctlProbe::Place::driver
                     ? "in the driver"
                     : "at the entry and exit of all system calls",
                 probes.guard ? "" : "; a CU mask cannot be refused");
  else
    spdlog::warn("{}", probes.ioctls.error().message());
  return probes;
}

}  // namespace eclip::daemon
