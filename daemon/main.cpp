// eclipd: the daemon that owns a GPU's pool of CU-masked streams and leases them to workers.
#include <signal.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/sinks/systemd_sink.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <string_view>

#include "daemon/config.h"
#include "daemon/control_server.h"
#include "daemon/kfd_device.h"
#include "daemon/probes.h"
#include "daemon/sandbox.h"
#include "daemon/service.h"
#include "daemon/supervisor.h"

namespace {

using namespace eclip;
using namespace eclip::daemon;

constexpr const char* default_config = "/etc/eclip/eclipd.toml";

void set_up_logging(const std::string& level) {
  // Under systemd, priorities go to the journal as such; elsewhere lines go to standard error.
  const bool journal = std::getenv("JOURNAL_STREAM") != nullptr;
  auto logger = journal ? spdlog::systemd_logger_mt("eclipd") : spdlog::stderr_color_mt("eclipd");
  if (!journal) logger->set_pattern("%H:%M:%S.%e %n %^%l%$: %v");
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

/// The configuration: of --config, else of the default file if there is one, else the defaults.
Result<Config> configuration(const std::string& file) {
  if (!file.empty()) return load_config(file);
  std::error_code error;
  if (std::filesystem::exists(default_config, error)) return load_config(default_config);
  return Config{};
}

/// Tells whoever started eclipd that it serves: systemd, and a line on `ready_fd` unless negative.
void announce_ready(int ready_fd) {
  ::sd_notify(0, "READY=1");
  if (ready_fd < 0) return;
  constexpr std::string_view line = "ready\n";
  if (::write(ready_fd, line.data(), line.size()) < 0)
    spdlog::warn("--ready-fd {}: {}", ready_fd, std::generic_category().message(errno));
  if (ready_fd > STDERR_FILENO) ::close(ready_fd);
}

/// Each worker needs a handful of descriptors; systemd's soft limit is made for select().
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0)
    spdlog::warn("raise the limit of descriptors: {}", std::generic_category().message(errno));
}

/// The plans of before. Without a place for them, plans are forgotten with eclipd.
PlanHistory past_plans(const Config& config, const GpuTopology& gpu) {
  if (!config.planner.enabled) return {};
  auto history =
      PlanHistory::open(config.planner.state_dir, "plans-node" + std::to_string(gpu.node.value));
  if (history) return std::move(*history);
  spdlog::warn("plans will not outlive eclipd (planner.state_dir): {}", history.error().message());
  return {};
}

/// The serving process, from its start to its end.
ServingEnd serve(const Config& config, int listening_fd, const std::function<void()>& ready) {
  const auto say = [](const Error& error, ServingEnd end) {
    spdlog::critical("{}", error.message());
    return end;
  };
  // Blocked since the supervisor's start, so that only the signalfd sees them.
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  const UniqueFd signal_fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signal_fd)
    return say(Error{std::error_code(errno, std::generic_category()), "create a signalfd"},
               ServingEnd::failed);
  Probes probes = attach_probes(config);
  const SandboxNeeds needs{.bpf = probes.guard || probes.ioctls};
  if (config.daemon.sandbox)
    if (auto dropped = drop_capabilities(needs); !dropped)
      return say(dropped.error(), ServingEnd::failed);
  const auto end_of = [](const Error& error) {
    return error.code == Errc::device_failed ? ServingEnd::gpu_missing : ServingEnd::failed;
  };
  auto device = KfdDevice::open(config.gpu.node);
  if (!device) return say(device.error(), end_of(device.error()));
  auto history = past_plans(config, (*device)->topology());
  auto service = Service::create(config, std::move(*device), std::move(probes), std::move(history));
  if (!service) return say(service.error(), end_of(service.error()));
  if (config.daemon.sandbox)
    if (auto filtered = filter_system_calls(needs); !filtered)
      return say(filtered.error(), ServingEnd::failed);
  ControlServer server(**service, listening_fd, signal_fd.get());
  spdlog::info("eclipd {} ready on {}", ECLIP_VERSION, config.daemon.socket.string());
  ready();
  const auto served = server.run();
  if (served) {
    spdlog::info("stopped");
    return ServingEnd::stopped;
  }
  if (served.error().code != Errc::device_failed) return say(served.error(), ServingEnd::failed);
  // No goodbye to a GPU that has failed: its driver frees all that the process had, in its time.
  say(served.error(), ServingEnd::gpu_failed);
  spdlog::shutdown();
  ::_exit(static_cast<int>(ServingEnd::gpu_failed));
}

/// eclipd's exit status.
int supervise(const Config& config, int ready_fd) {
  ::signal(SIGPIPE, SIG_IGN);  // whoever reads our log may go before us
  raise_descriptor_limit();
  // The socket first: a second eclipd must not touch the GPU.
  auto socket = ListeningSocket::open(config);
  if (!socket) {
    spdlog::critical("{}", socket.error().message());
    return 1;
  }
  Supervisor supervisor(
      {},
      [&](const std::function<void()>& ready) {
        if (ready_fd > STDERR_FILENO) ::close(ready_fd);  // the supervisor's
        return serve(config, socket->fd_for_serving(), ready);
      },
      [&] { announce_ready(ready_fd); });
  const int status = supervisor.run();
  ::sd_notify(0, "STOPPING=1");
  return status;
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app{"eclipd: leases CU-masked streams of an AMD GPU to inference workers"};
  std::string config_file;
  std::string log_level;
  bool check_config = false;
  int ready_fd = -1;
  app.add_option("--config", config_file,
                 "Configuration (TOML); " + std::string(default_config) + " if it exists");
  app.add_option("--log-level", log_level, "Overrides daemon.log_level")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error", "critical"}));
  app.add_flag("--check-config", check_config, "Check the configuration and exit");
  app.add_option("--ready-fd", ready_fd,
                 "Write a line to this descriptor when clients can connect, and close it")
      ->check(CLI::NonNegativeNumber);
  app.set_version_flag("--version", std::string("eclipd ") + ECLIP_VERSION);
  CLI11_PARSE(app, argc, argv);

  auto config = configuration(config_file);
  if (!config) {
    std::cerr << "eclipd: " << config.error().message() << "\n";
    return 2;
  }
  if (check_config) {
    std::cout << "eclipd: the configuration is valid\n";
    return 0;
  }
  set_up_logging(log_level.empty() ? config->daemon.log_level : log_level);
  return supervise(*config, ready_fd);
} catch (const std::exception& exception) {
  // Out of memory or of threads; all other failures are Results.
  std::cerr << "eclipd: " << exception.what() << "\n";
  return 1;
}
