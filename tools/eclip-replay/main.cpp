// eclip-replay: a worker that replays a measured profile on leased streams.
#include <fmt/core.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "tools/eclip-replay/exit_codes.h"
#include "tools/eclip-replay/reattaching_runner.h"
#include "tools/eclip-replay/report.h"

namespace eclip::replay {
namespace {

std::atomic<bool> stop = false;
static_assert(std::atomic<bool>::is_always_lock_free);

void stop_on_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop = true; };
  // A second signal ends the process: the first one may wait for a request that never ends.
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

int complain(int exit_code, const std::string& text) {
  fmt::print(stderr, "eclip-replay: {}\n", text);
  return exit_code;
}

int conclude(const Options& options, const Report& report, const Measurement& measurement) {
  fmt::print("{}", options.json ? to_json(report).dump(2) + "\n" : to_text(report));
  if (report.mix && !report.mix->matches())
    return complain(exit_failed,
                    fmt::format("a kernel ran before one that it depends on: the mixed value is "
                                "{:016x}, serial execution gives {:016x}",
                                report.mix->value, report.mix->expected));
  if (measurement.cohort_error) return complain(exit_failed, measurement.cohort_error->message());
  return exit_ok;
}

int run(const Options& options) {
  const auto profile = model::load_profile(options.profile);
  if (!profile) return complain(exit_usage, profile.error().message());
  const auto program = build_program(*profile, options.mix);
  if (!program)
    return complain(exit_usage, options.profile.string() + ": " + program.error().message());

  eclip_connect_options connect{};
  connect.struct_size = sizeof connect;
  connect.socket_path = options.socket.empty() ? nullptr : options.socket.c_str();
  connect.worker_name = options.name.c_str();
  const std::string profile_name = options.profile.stem().string();
  connect.profile = profile_name.c_str();
  connect.requests_per_s = options.poisson_rate.value_or(0);
  // The library's line says that the program goes on without ECLIP; this one does not.
  connect.log = [](void*, const char*) {};
  std::optional<Connection> connection;
  std::unique_ptr<RequestRunner> runner;
  std::optional<ReattachingRunner> reattaching;
  try {
    if (options.reattach) {
      reattaching.emplace(options, *program, connect);
    } else {
      connection.emplace(&connect);
      runner = make_runner(*connection, *program, options);
    }
  } catch (const ApiError& error) {
    if (error.code().value() != ENOTCONN) throw;
    return complain(exit_no_daemon,
                    std::string(eclip_last_error()) + ". Start it: systemctl start eclipd");
  }

  std::optional<Cohort> cohort;
  if (options.cohort) {
    auto joined = Cohort::join(*options.cohort);
    if (!joined) return complain(exit_usage, joined.error().message());
    cohort.emplace(std::move(*joined));
  }
  const Workload workload{
      .run_request =
          [&](HostClock::time_point next) {
            if (reattaching) return reattaching->run(next);
            runner->run(next);
            return true;
          },
      .device_time_rate =
          [&] {
            return reattaching ? reattaching->device_time_rate()
                               : connection->gpu().device_time_rate;
          },
      .stop = &stop,
  };
  const Measurement measurement = measure(options, workload, cohort ? &*cohort : nullptr);
  const Work work = reattaching ? reattaching->work() : work_of(*runner);
  const eclip_gpu gpu = reattaching ? reattaching->gpu() : connection->gpu();
  return conclude(options, make_report(options, *profile, *program, gpu, work, measurement),
                  measurement);
}

}  // namespace
}  // namespace eclip::replay

int main(int argc, char** argv) {
  using namespace eclip::replay;
  try {
    const auto parsed = parse_options(argc, argv);
    if (const int* exit_code = std::get_if<int>(&parsed)) return *exit_code;
    stop_on_signals();
    return run(std::get<Options>(parsed));
  } catch (const eclip::ApiError& error) {
    return complain(error.code() == std::errc::invalid_argument ? exit_usage : exit_failed,
                    error.what());
  } catch (const std::exception& error) {
    return complain(exit_failed, error.what());
  }
}
