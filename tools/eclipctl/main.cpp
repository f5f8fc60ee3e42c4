// eclipctl: what a running eclipd does.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "bpf/budget_guard.h"
#include "eclip/eclip.h"
#include "tools/eclipctl/budget_report.h"
#include "tools/eclipctl/ioctl_report.h"
#include "tools/eclipctl/query.h"
#include "tools/eclipctl/top.h"
#include "tools/eclipctl/views.h"

namespace eclip::ctl {
namespace {

enum ExitCode : int { exit_ok = 0, exit_failed = 1, exit_usage = 2, exit_no_daemon = 3 };

struct Options {
  std::string socket = socket_path_from_environment().string();
  bool json = false;
};

int complain(const Error& error, const Options& options) {
  if (error.code == Errc::gone) {
    fmt::print(stderr,
               "eclipctl: eclipd is not running (nobody listens on {}). Start it: systemctl start "
               "eclipd\n",
               options.socket);
    return exit_no_daemon;
  }
  fmt::print(stderr, "eclipctl: {}\n", error.message());
  return exit_failed;
}

/// JSON strings must be UTF-8; names of workers may be anything.
void print_json(const nlohmann::json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

/// Connects, asks and prints.
template <class Answer>
int show(const Options& options, Result<Answer> (DaemonConnection::*query)()) {
  auto connection = DaemonConnection::open(options.socket);
  if (!connection) return complain(connection.error(), options);
  const auto answer = ((*connection).*query)();
  if (!answer) return complain(answer.error(), options);
  if (options.json)
    print_json(to_json(*answer));
  else
    fmt::print("{}", to_text(*answer));
  return exit_ok;
}

int revoke(const Options& options, std::uint64_t lease, std::optional<std::uint32_t> grace_ms) {
  auto connection = DaemonConnection::open(options.socket);
  if (!connection) return complain(connection.error(), options);
  const auto grace = grace_ms ? std::optional(std::chrono::milliseconds(*grace_ms)) : std::nullopt;
  const auto revoked = connection->revoke(lease, grace);
  if (!revoked) return complain(revoked.error(), options);
  if (options.json)
    print_json({{"lease", lease}, {"revoked", true}});
  else
    fmt::print("lease {} is revoked\n", lease);
  return exit_ok;
}

/// What needs the guard itself, and so root: a failure says which of the two is missing.
int complain_of_guard(Error error, const Options& options) {
  if (error.code == std::errc::permission_denied ||
      error.code == std::errc::operation_not_permitted)
    error.context += " (only root may)";
  return complain(error, options);
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
    fmt::print("{}", to_text(report));
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
    fmt::print("{}", to_text(report));
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

int install_guard(const Options& options, const std::string& policy, bool gate_render_nodes) {
  const auto installed = bpf::BudgetGuard::install(
      {.policy = policy_of(policy), .gate_render_nodes = gate_render_nodes});
  if (!installed) return complain_of_guard(installed.error(), options);
  const auto state = installed->guard.state();
  if (!state) return complain_of_guard(state.error(), options);
  const std::string tier = bpf::describe(state->tier);
  return done(options,
              {{"installed", !installed->taken_over}, {"policy", policy}, {"tier_says", tier}},
              fmt::format("the budget guard {}, policy {}: {}",
                          installed->taken_over ? "was there" : "is installed", policy, tier));
}

int remove_guard(const Options& options) {
  const auto removed = bpf::BudgetGuard::remove();
  if (!removed) return complain_of_guard(removed.error(), options);
  return done(options, {{"removed", *removed}},
              *removed ? "the budget guard is removed: no CU mask is refused any more"
                       : "there was no budget guard");
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

int show_ioctls(const Options& options, std::optional<std::uint32_t> pid) {
  auto connection = DaemonConnection::open(options.socket);
  if (!connection) return complain(connection.error(), options);
  auto records = connection->ioctls();
  if (!records) return complain(records.error(), options);
  const auto status = connection->status();
  if (!status) return complain(status.error(), options);
  const IoctlReport report{
      .records = std::move(*records), .pid = pid, .dispatches = status->dispatches_forwarded};
  if (options.json)
    print_json(to_json(report));
  else
    fmt::print("{}", to_text(report));
  return exit_ok;
}

int show_ioctl_top(const Options& options, const TopOptions& top) {
  auto connection = DaemonConnection::open(options.socket);
  if (!connection) return complain(connection.error(), options);
  using Clock = std::chrono::steady_clock;
  auto before = connection->kfd_processes();
  if (!before) return complain(before.error(), options);
  auto then = Clock::now();
  const auto shown = show_repeatedly(
      top, options.json ? "" : "KFD ioctls by process; q ends", [&]() -> Result<std::string> {
        auto now = connection->kfd_processes();
        if (!now) return tl::unexpected(now.error());
        const auto at = Clock::now();
        const IoctlTop sample{
            .before = std::move(*before), .now = *now, .interval = at - std::exchange(then, at)};
        before = std::move(now);
        return options.json ? to_json(sample).dump() + "\n" : to_text(sample);
      });
  return shown ? exit_ok : complain(shown.error(), options);
}

/// eclipctl's version, and eclipd's when it runs; its absence is no failure here.
int show_version(const Options& options) {
  Result<StatusReply> status = fail(Errc::gone, "");
  if (auto connection = DaemonConnection::open(options.socket)) status = connection->status();
  if (options.json) {
    print_json({{"eclipctl", eclip_version()},
                {"eclipd", status ? nlohmann::json(status->version.str()) : nlohmann::json()}});
  } else {
    fmt::print("eclipctl {}\neclipd   {}\n", eclip_version(),
               status ? status->version.str() : "- (not running)");
  }
  return exit_ok;
}

CLI::App* add_list(CLI::App& app, const char* noun, const char* description) {
  CLI::App* group = app.add_subcommand(noun, description);
  group->require_subcommand(1);
  CLI::App* list = group->add_subcommand("list", description);
  group->fallthrough();
  list->fallthrough();
  return list;
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Shows what eclipd does: its pool of CU-masked streams, who leases them, what runs; "
      "takes leases back.",
      "eclipctl");
  app.footer(
      "\nExit codes: 0 done; 1 eclipd answered with an error; 2 bad usage; 3 eclipd is not "
      "running.");
  app.add_option("--socket", options.socket, "eclipd's socket (also $ECLIP_SOCKET)")
      ->type_name("PATH")
      ->capture_default_str();
  app.add_flag("--json", options.json, "Print JSON");
  app.require_subcommand(1);
  CLI::App* status = app.add_subcommand("status", "eclipd, its GPU and its figures");
  CLI::App* streams = add_list(app, "stream", "The pool's streams");
  CLI::App* clients = add_list(app, "client", "The connected workers");
  CLI::App* leases = add_list(app, "lease", "The leases held, asked for, and lost");
  CLI::App* take_back = app.get_subcommand("lease")->add_subcommand(
      "revoke", "Take a lease back: as root, or as the user of its worker");
  take_back->fallthrough();
  std::uint64_t lease = 0;
  std::optional<std::uint32_t> grace_ms;
  take_back->add_option("ID", lease, "The lease, as lease list shows it")->required();
  take_back
      ->add_option("--grace", grace_ms,
                   "Milliseconds that its worker has to finish; default: leases.grace_ms")
      ->type_name("MS")
      ->check(CLI::Range(0U, 86'400'000U));
  CLI::App* budget = app.add_subcommand(
      "budget", "Who holds what of the GPU's CU-masked streams and hardware queues");
  budget->fallthrough();
  budget->require_subcommand(0, 1);
  const CLI::IsMember is_policy({"audit", "enforce"});
  std::string policy = "audit";
  CLI::App* budget_set = budget->add_subcommand(
      "set", "As root: whether the guard refuses CU masks without a lease, or only counts them");
  budget_set->fallthrough();
  budget_set->add_option("POLICY", policy, "audit or enforce")->required()->check(is_policy);
  CLI::App* guard = budget->add_subcommand(
      "guard",
      "As root: the guard lives on without eclipd; eclipd installs it by itself "
      "(budget.policy)");
  guard->fallthrough();
  guard->require_subcommand(1);
  CLI::App* guard_on = guard->add_subcommand("on", "Install it");
  guard_on->fallthrough();
  bool gate_render_nodes = false;
  guard_on->add_option("--policy", policy, "audit or enforce")
      ->check(is_policy)
      ->capture_default_str();
  guard_on->add_flag("--gate-render-nodes", gate_render_nodes,
                     "Only processes with a lease may open a render node");
  CLI::App* guard_off = guard->add_subcommand("off", "Remove it");
  guard_off->fallthrough();
  CLI::App* budget_grant = budget->add_subcommand(
      "grant", "As root: let a process that is not eclipd's have CU-masked queues of its own");
  budget_grant->fallthrough();
  std::uint32_t grantee = 0;
  std::uint32_t granted_queues = 0;
  budget_grant->add_option("PID", grantee, "The process")
      ->required()
      ->check(CLI::Range(1U, 1U << 22));
  budget_grant->add_option("QUEUES", granted_queues, "At a time; 0 takes the permission back")
      ->required()
      ->check(CLI::Range(0U, 7U));
  CLI::App* ioctls = app.add_subcommand(
      "ioctl", "What KFD ioctls cost, of all processes (probes.measure_ioctls of eclipd)");
  ioctls->require_subcommand(1);
  ioctls->fallthrough();
  CLI::App* ioctl_show = ioctls->add_subcommand("show", "Counts, errors and times by command");
  ioctl_show->fallthrough();
  std::optional<std::uint32_t> pid;
  ioctl_show->add_option("--pid", pid, "Of this process only")->type_name("PID");
  CLI::App* ioctl_top = ioctls->add_subcommand("top", "Who makes them, again and again");
  ioctl_top->fallthrough();
  double interval = 1;
  std::optional<unsigned> count;
  ioctl_top->add_option("--interval", interval, "Seconds between two screens")
      ->type_name("S")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  ioctl_top->add_option("--count", count, "Screens, then the end; default: until q or Ctrl-C")
      ->type_name("N")
      ->check(CLI::Range(1U, 1'000'000U));
  CLI::App* version = app.add_subcommand("version", "Versions of eclipctl and eclipd");
  status->fallthrough();
  version->fallthrough();
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    app.exit(help);
    return exit_ok;
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "eclipctl: {}. See eclipctl --help.\n", error.what());
    return exit_usage;
  }
  if (status->parsed()) return show(options, &DaemonConnection::status);
  if (streams->parsed()) return show(options, &DaemonConnection::streams);
  if (clients->parsed()) return show(options, &DaemonConnection::clients);
  if (leases->parsed()) return show(options, &DaemonConnection::leases);
  if (budget_set->parsed()) return set_policy(options, policy);
  if (guard_on->parsed()) return install_guard(options, policy, gate_render_nodes);
  if (guard_off->parsed()) return remove_guard(options);
  if (budget_grant->parsed()) return grant(options, static_cast<pid_t>(grantee), granted_queues);
  if (budget->parsed()) return show_budget(options);
  if (ioctl_show->parsed()) return show_ioctls(options, pid);
  if (ioctl_top->parsed())
    return show_ioctl_top(options,
                          {.interval = std::chrono::duration<double>(interval), .count = count});
  if (take_back->parsed()) return revoke(options, lease, grace_ms);
  return show_version(options);
}

}  // namespace
}  // namespace eclip::ctl

int main(int argc, char** argv) {
  try {
    return eclip::ctl::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "eclipctl: {}\n", error.what());
    return 1;
  }
}
