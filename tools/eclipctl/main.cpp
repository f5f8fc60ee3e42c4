// eclipctl: what a running eclipd does.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "eclip/eclip.h"
#include "tools/eclipctl/budget_command.h"
#include "tools/eclipctl/ioctl_report.h"
#include "tools/eclipctl/output.h"
#include "tools/eclipctl/plan_command.h"
#include "tools/eclipctl/query.h"
#include "tools/eclipctl/schedule_report.h"
#include "tools/eclipctl/top.h"
#include "tools/eclipctl/views.h"

namespace eclip::ctl {
namespace {

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

int show_client(const Options& options, std::uint64_t worker) {
  auto connection = DaemonConnection::open(options.socket);
  if (!connection) return complain(connection.error(), options);
  const auto schedule = connection->schedule(worker);
  if (!schedule) return complain(schedule.error(), options);
  const auto clients = connection->clients();
  if (!clients) return complain(clients.error(), options);
  ScheduleReport report{.client = {}, .schedule = *schedule, .plan = {}};
  report.client.worker = worker;  // it may have left meanwhile
  for (const ClientRecord& client : *clients)
    if (client.worker == worker) report.client = client;
  if (auto plan = connection->plan(0))
    report.plan = std::move(*plan);
  else if (plan.error().code != Errc::not_found && plan.error().code != Errc::unsupported)
    return complain(plan.error(), options);
  if (options.json)
    print_json(to_json(report));
  else
    fmt::print("{}", to_text(report));
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
  CLI::App* client_show = app.get_subcommand("client")->add_subcommand(
      "show", "What a worker's scheduler does, and its part in the plan");
  client_show->fallthrough();
  std::uint64_t worker = 0;
  client_show->add_option("ID", worker, "The worker, as client list shows it")->required();
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
  PlanCommand plan(app);
  BudgetCommand budget(app);
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
  if (client_show->parsed()) return show_client(options, worker);
  if (leases->parsed()) return show(options, &DaemonConnection::leases);
  if (const auto status_of_plan = plan.run(options)) return *status_of_plan;
  if (const auto status_of_budget = budget.run(options)) return *status_of_budget;
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
