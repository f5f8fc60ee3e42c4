#include "tools/eclipctl/budget_report.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "ipc/kfd_command.h"
#include "ipc/printable.h"
#include "tools/text/table.h"

namespace eclip::ctl {
namespace {

using nlohmann::json;

constexpr std::size_t label_width = 16;

std::string line(const char* label, const std::string& value) {
  return fmt::format("{:<{}} {}\n", label, label_width, value);
}

const char* name_of_policy(std::uint32_t policy) {
  switch (policy) {
    case BudgetTier::audit:
      return "audit";
    case BudgetTier::enforce:
      return "enforce";
    default:
      return "off";
  }
}

bpf::GuardTier guard_tier_of(const BudgetTier& tier) {
  return {.verdict = static_cast<bpf::GuardVerdict>(tier.verdict),
          .accounting = static_cast<guard_accounting>(tier.accounting)};
}

/// "24 on 24 hardware slots", with what happens past them.
std::string of_limit(std::uint32_t count, std::uint32_t limit, const char* of_what) {
  if (limit == 0) return fmt::format("{}; how many {} there are is not known", count, of_what);
  return fmt::format("{} on {} {}{}", count, limit, of_what,
                     count > limit ? ": more than fit, they take turns" : "");
}

std::string denial_table(const std::vector<DenialRecord>& denials) {
  if (denials.empty()) return "";
  text::Table table({{"PID", text::Align::right},
                     {"COMMAND"},
                     {"UID", text::Align::right},
                     {"REFUSED", text::Align::right},
                     {"LET PASS", text::Align::right},
                     {"LATEST"}});
  for (const DenialRecord& denial : denials)
    table.add({std::to_string(denial.pid), printable(denial.command.str()),
               std::to_string(denial.uid), std::to_string(denial.refused),
               std::to_string(denial.audited),
               bpf::describe(static_cast<guard_reason>(denial.reason))});
  return "\n" + table.to_string();
}

json denials_json(const std::vector<DenialRecord>& denials) {
  json list = json::array();
  for (const DenialRecord& denial : denials)
    list.push_back(
        {{"pid", denial.pid},
         {"command", denial.command.str()},
         {"uid", denial.uid},
         {"refused", denial.refused},
         {"audited", denial.audited},
         {"latest", bpf::describe(static_cast<guard_reason>(denial.reason))},
         {"ioctl", denial.number != 0 ? json(name_of_kfd_command(denial.number)) : json(nullptr)}});
  return list;
}

template <class Counts>
std::uint64_t sum_of(const Counts& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

std::string guard_lines(std::uint64_t refused, std::uint64_t audited, std::uint64_t unchecked) {
  std::string text =
      line("refused", fmt::format("{}; {} more would have been (audit)", refused, audited));
  if (unchecked != 0)
    text += line("PAST THE GUARD", fmt::format("{} calls reached the driver", unchecked));
  return text;
}

}  // namespace

const char* name_of_role(std::uint32_t role) {
  switch (role) {
    case KfdProcessRecord::eclipd:
      return "eclipd";
    case KfdProcessRecord::worker:
      return "worker";
    default:
      return "other";
  }
}

json holder_json(const KfdProcessRecord& process) {
  return {{"pid", process.pid},
          {"command", process.command.str()},
          {"role", name_of_role(process.role)},
          {"uid", process.uid},
          {"queues", process.queues},
          {"queues_from_before", process.queues_from_before},
          {"masked_queues", process.masked_queues}};
}

std::string describe(const BudgetTier& tier) {
  switch (tier.kind) {
    case BudgetTier::guard:
      return fmt::format("{}; {}", name_of_policy(tier.policy), bpf::describe(guard_tier_of(tier)));
    case BudgetTier::tracepoints:
      return "tracepoints: compute queues created since eclipd's start are seen, and none is "
             "refused";
    default:
      return "none: queues of other processes are not known";
  }
}

std::string to_text(const BudgetReport& report) {
  const BudgetReply& budget = report.budget;
  const bool knows_all = budget.tier.kind != BudgetTier::none;
  std::string text =
      line("CU-masked",
           fmt::format("{} of {} streams: {} eclipd's, {} of others{}", budget.masked_queues,
                       budget.budget, budget.pool_streams,
                       knows_all ? std::to_string(budget.masked_queues - budget.pool_streams) : "?",
                       budget.masked_queues > budget.budget ? " - OVER BUDGET" : ""));
  text += line("queues", of_limit(budget.queues, budget.hardware_slots, "hardware slots"));
  if (knows_all) text += line("processes", of_limit(budget.processes, budget.vmids, "VMIDs"));
  text += line("guard", describe(budget.tier));
  if (budget.tier.kind != BudgetTier::guard && !budget.why.str().empty())
    text += line("", printable(budget.why.str()));
  if (!knows_all) return text;
  if (budget.tier.kind == BudgetTier::guard)
    text += guard_lines(budget.refused, budget.audited, budget.unchecked);
  if (budget.unseen != 0)
    text +=
        line("incomplete", fmt::format("{} calls or queues could not be accounted", budget.unseen));
  text::Table table({{"PID", text::Align::right},
                     {"COMMAND"},
                     {"ROLE"},
                     {"UID", text::Align::right},
                     {"QUEUES", text::Align::right},
                     {"MASKED", text::Align::right}});
  std::uint32_t from_before = 0;
  for (const KfdProcessRecord& process : report.processes) {
    from_before += process.queues_from_before;
    if (process.queues == 0) continue;
    table.add({std::to_string(process.pid), printable(process.command.str()),
               name_of_role(process.role), std::to_string(process.uid),
               std::to_string(process.queues),
               process.queues_from_before == 0
                   ? std::to_string(process.masked_queues)
                   : fmt::format("{} to {}", process.masked_queues,
                                 process.masked_queues + process.queues_from_before)});
  }
  if (from_before != 0)
    text += line(
        "from before",
        fmt::format("{} queues are older than what counts here; they may have masks", from_before));
  return text + "\n" + table.to_string() + denial_table(report.denials);
}

json to_json(const BudgetReport& report) {
  const BudgetReply& budget = report.budget;
  json holders = json::array();
  for (const KfdProcessRecord& process : report.processes)
    if (process.queues != 0) holders.push_back(holder_json(process));
  const auto or_null = [](std::uint32_t value) { return value != 0 ? json(value) : json(nullptr); };
  const bool is_guarded = budget.tier.kind == BudgetTier::guard;
  return {{"budget", budget.budget},
          {"pool_streams", budget.pool_streams},
          {"masked_queues", budget.masked_queues},
          {"queues", budget.queues},
          {"hardware_slots", or_null(budget.hardware_slots)},
          {"processes", budget.processes},
          {"vmids", or_null(budget.vmids)},
          {"policy", name_of_policy(budget.tier.policy)},
          {"tier", is_guarded                                    ? json("guard")
                   : budget.tier.kind == BudgetTier::tracepoints ? json("tracepoints")
                                                                 : json(nullptr)},
          {"tier_says", describe(budget.tier)},
          {"why_no_guard", is_guarded ? json(nullptr) : json(budget.why.str())},
          {"in_use", is_guarded ? json(budget.in_use) : json(nullptr)},
          {"refused", budget.refused},
          {"audited", budget.audited},
          {"past_the_guard", budget.unchecked},
          {"unaccounted", budget.unseen},
          {"holders", holders},
          {"denials", denials_json(report.denials)}};
}

std::string to_text(const GuardReport& report) {
  const bpf::GuardState& state = report.state;
  const char* policy = state.policy == guard_enforce ? "enforce" : "audit";
  std::string text = line("eclipd", "is not running; the guard is");
  text += line("CU-masked", fmt::format("{} of {} streams", state.in_use, state.limit));
  text += line("guard", fmt::format("{}; {}", policy, bpf::describe(state.tier)));
  if (state.gates_drm_devices)
    text += line("DRM devices", "are opened by processes with a lease only");
  text += guard_lines(sum_of(state.refused), sum_of(state.audited), state.unchecked);
  text::Table table({{"PID", text::Align::right},
                     {"GPU", text::Align::right},
                     {"QUEUES", text::Align::right},
                     {"MASKED", text::Align::right}});
  for (const auto& of : report.queues)
    table.add({std::to_string(of.pid), std::to_string(of.gpu_id), std::to_string(of.alive),
               std::to_string(of.masked)});
  return text + "\n" + table.to_string() + denial_table(report.denials);
}

json to_json(const GuardReport& report) {
  const bpf::GuardState& state = report.state;
  json holders = json::array();
  for (const auto& of : report.queues)
    holders.push_back({{"pid", of.pid},
                       {"gpu_id", of.gpu_id},
                       {"queues", of.alive},
                       {"masked_queues", of.masked}});
  return {{"budget", state.limit},
          {"in_use", state.in_use},
          {"policy", state.policy == guard_enforce ? "enforce" : "audit"},
          {"tier", "guard"},
          {"tier_says", bpf::describe(state.tier)},
          {"gates_drm_devices", state.gates_drm_devices},
          {"refused", sum_of(state.refused)},
          {"audited", sum_of(state.audited)},
          {"past_the_guard", state.unchecked},
          {"unaccounted", state.unaccounted},
          {"holders", holders},
          {"denials", denials_json(report.denials)}};
}

}  // namespace eclip::ctl
