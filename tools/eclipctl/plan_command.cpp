#include "tools/eclipctl/plan_command.h"

#include <fmt/chrono.h>
#include <fmt/core.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "ipc/printable.h"
#include "ipc/read_file.h"
#include "tools/eclipctl/query.h"
#include "tools/text/plan_report.h"
#include "tools/text/table.h"

namespace eclip::ctl {
namespace {

using nlohmann::json;

/// eclipd is asked with `ask`; what it says is shown with `show`, or as JSON.
template <class Ask, class Show>
int ask_and_show(const Options& options, Ask&& ask, Show&& show) {
  auto connection = DaemonConnection::open(options.socket);
  if (!connection) return complain(connection.error(), options);
  const auto answer = ask(*connection);
  if (!answer) return complain(answer.error(), options);
  show(*answer);
  return exit_ok;
}

/// Names in a plan are the workers' own.
std::string shown(const json& plan, std::string (*report)(const json&)) {
  json safe = plan;
  for (const char* key : {"name", "profile"})
    if (safe.contains("workers") && safe["workers"].is_array())
      for (json& worker : safe["workers"])
        if (worker.is_object() && worker.contains(key) && worker[key].is_string())
          worker[key] = printable(worker[key].get<std::string>());
  return report(safe);
}

int show_plan(const Options& options, std::uint64_t epoch, std::string (*report)(const json&)) {
  return ask_and_show(
      options, [&](DaemonConnection& connection) { return connection.plan(epoch); },
      [&](const json& plan) {
        if (options.json)
          print_json(plan);
        else
          fmt::print("{}", shown(plan, report));
      });
}

/// The epoch of the plan before the one in force.
Result<std::uint64_t> epoch_before(DaemonConnection& connection) {
  const auto plans = connection.plans();
  if (!plans) return tl::unexpected(plans.error());
  std::uint64_t before = 0;
  for (const PlanRecord& plan : *plans) {
    if (plan.in_force != 0) break;
    before = plan.epoch;
  }
  if (before == 0) return fail(Errc::not_found, "there is no plan before the one in force");
  return before;
}

int show_difference(const Options& options, std::uint64_t from, std::uint64_t to) {
  return ask_and_show(
      options,
      [&](DaemonConnection& connection) -> Result<std::pair<json, json>> {
        if (from == 0) {
          const auto before = epoch_before(connection);
          if (!before) return tl::unexpected(before.error());
          from = *before;
        }
        auto first = connection.plan(from);
        if (!first) return tl::unexpected(first.error());
        auto second = connection.plan(to);
        if (!second) return tl::unexpected(second.error());
        return std::pair{std::move(*first), std::move(*second)};
      },
      [&](const std::pair<json, json>& plans) {
        if (options.json)
          print_json(json::diff(plans.first, plans.second));
        else
          fmt::print("Plan {} -> plan {}\n\n{}", plans.first.value("epoch", json()).dump(),
                     plans.second.value("epoch", json()).dump(),
                     text::plan_difference(plans.first, plans.second));
      });
}

void print_history(const std::vector<PlanRecord>& plans, bool as_json) {
  if (as_json) {
    json list = json::array();
    for (const PlanRecord& plan : plans)
      list.push_back({{"epoch", plan.epoch},
                      {"made_at", plan.made_at},
                      {"value", plan.value},
                      {"workers", plan.workers},
                      {"in_force", plan.in_force != 0},
                      {"pinned", plan.pinned != 0},
                      {"reason", plan.reason.str()},
                      {"names", plan.names.str()}});
    return print_json(list);
  }
  text::Table table({{"PLAN", text::Align::right},
                     {"SINCE"},
                     {"STATE"},
                     {"VALUE", text::Align::right},
                     {"WORKERS"},
                     {"REASON"}});
  for (const PlanRecord& plan : plans)
    table.add(
        {std::to_string(plan.epoch),
         fmt::format("{:%Y-%m-%d %H:%M:%S}",
                     fmt::localtime(static_cast<std::time_t>(plan.made_at))),
         std::string(plan.in_force != 0 ? "in force" : "") + (plan.pinned != 0 ? ", pinned" : ""),
         fmt::format("{:.3f}", plan.value), printable(plan.names.str()),
         printable(plan.reason.str())});
  fmt::print("{}", table.to_string());
}

int say_epoch(const Options& options, const Result<std::uint64_t>& epoch, const char* text) {
  if (!epoch) return complain(epoch.error(), options);
  if (options.json)
    print_json({{"epoch", *epoch}});
  else
    fmt::print("{}\n", fmt::format(fmt::runtime(text), *epoch));
  return exit_ok;
}

}  // namespace

PlanCommand::PlanCommand(CLI::App& app)
    : plan_(app.add_subcommand("plan", "Which worker's kernels run on which stream, and why")) {
  const auto add = [&](const char* name, const char* help) {
    CLI::App* command = plan_->add_subcommand(name, help);
    command->fallthrough();
    return command;
  };
  plan_->fallthrough();
  plan_->require_subcommand(0, 1);
  show_ = add("show", "The plan in force, or an earlier one");
  explain_ = add("explain", "Each worker's streams, predicted time and energy; what was rejected");
  for (CLI::App* command : {show_, explain_})
    command->add_option("EPOCH", epoch_, "A plan of the history; default: the one in force");
  diff_ = add("diff", "What is another in the plan in force, or in a plan TO");
  diff_->add_option("FROM", from_, "A plan of the history; default: the one before");
  diff_->add_option("TO", to_, "Default: the plan in force");
  history_ = add("history", "The last plans, and why each was made");
  apply_ = add("apply", "Put a plan in force and keep it (pin): as root");
  apply_
      ->add_option("FILE", file_,
                   "Of eclip-plan plan --json, or eclipctl plan show --json; for eclipd's pool")
      ->required();
  rollback_ = add("rollback", "Put an earlier plan in force again and keep it (pin): as root");
  rollback_->add_option("EPOCH", epoch_, "A plan of the history; default: the one before");
  replan_ = add("replan", "Make a new plan now: as root");
  automatic_ = add("auto", "End the pin: plans are made automatically again: as root");
}

std::optional<int> PlanCommand::run(const Options& options) {
  if (!plan_->parsed()) return std::nullopt;
  const auto choose = [&](PlanChoice::Action action, std::uint64_t epoch, const char* text) {
    auto connection = DaemonConnection::open(options.socket);
    if (!connection) return complain(connection.error(), options);
    return say_epoch(options, connection->choose_plan(action, epoch), text);
  };
  if (explain_->parsed()) return show_plan(options, epoch_, text::plan_explanation);
  if (diff_->parsed()) return show_difference(options, from_, to_);
  if (history_->parsed())
    return ask_and_show(
        options, [](DaemonConnection& connection) { return connection.plans(); },
        [&](const std::vector<PlanRecord>& plans) { print_history(plans, options.json); });
  if (apply_->parsed()) {
    const auto text = read_file(file_);
    if (!text)
      return complain(Error{text.error().code, file_ + ": " + text.error().context}, options);
    auto connection = DaemonConnection::open(options.socket);
    if (!connection) return complain(connection.error(), options);
    return say_epoch(options, connection->apply_plan(*text),
                     "Plan {} is in force and pinned. eclipctl plan auto ends that.");
  }
  if (rollback_->parsed())
    return choose(PlanChoice::pin, epoch_,
                  "Plan {} is in force and pinned. eclipctl plan auto ends that.");
  if (replan_->parsed()) return choose(PlanChoice::replan, 0, "A new plan is being made.");
  if (automatic_->parsed()) return choose(PlanChoice::unpin, 0, "Plans are automatic again.");
  return show_plan(options, epoch_, text::plan_table);
}

}  // namespace eclip::ctl
