// eclip-bench: benchmarks of ECLIP in virtual time.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "daemon/model/data_dir.h"
#include "daemon/planner/plan_document.h"
#include "tools/eclip-bench/colocate.h"
#include "tools/eclip-bench/colocate_report.h"
#include "tools/eclip-bench/plan_replay.h"
#include "tools/eclip-bench/report.h"
#include "tools/eclip-bench/validation.h"

namespace {

namespace fs = std::filesystem;

struct ValidateOptions {
  fs::path data = eclip::model::default_data_dir();
  fs::path gpu;
  bool json = false;
  bool detail = false;
  eclip::bench::LoopOptions loop;
};

int run_validate(const ValidateOptions& options) {
  const fs::path file = options.gpu.empty() ? options.data / "gpus" / "h100.toml" : options.gpu;
  const auto gpu = eclip::model::load_gpu_description(file);
  if (!gpu) {
    std::fprintf(stderr, "eclip-bench: %s\n", gpu.error().message().c_str());
    return EXIT_FAILURE;
  }
  const auto validation = eclip::bench::validate(*gpu, options.data, options.loop);
  if (!validation) {
    std::fprintf(stderr, "eclip-bench: %s\n", validation.error().message().c_str());
    return EXIT_FAILURE;
  }
  const std::string report = options.json ? eclip::bench::json_report(*validation, *gpu)
                                          : eclip::bench::text_report(*validation, *gpu);
  if (options.detail && !options.json)
    std::fputs(eclip::bench::detail_report(*validation).c_str(), stdout);
  std::fputs(report.c_str(), stdout);
  return EXIT_SUCCESS;
}

void add_validate(CLI::App& app, ValidateOptions& options) {
  CLI::App* command = app.add_subcommand(
      "validate", "Compare the device model with co-location measured on an H100");
  command
      ->add_option("--data", options.data, "Folder with colocation-h100.json, profiles/ and gpus/")
      ->envname("ECLIP_DATA_DIR")
      ->capture_default_str();
  command->add_option("--gpu", options.gpu, "GPU description to use; default: gpus/h100.toml");
  command->add_option("--requests", options.loop.requests, "Requests of the slowest worker")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      ->add_option("--request-overhead-us", options.loop.request_overhead_us,
                   "Host time from a completion to the next request")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  command->add_flag("--detail", options.detail, "Print every worker of every scenario first");
  command->add_flag("--json", options.json, "Print every point as JSON");
}

struct ColocateCommand {
  eclip::bench::ColocateOptions options;
  std::vector<std::string> gpus{"mi50", "h100"};
  std::vector<std::string> policies;
  std::vector<std::string> loads;
  std::string objective = "latency";
  bool json = false;
  bool detail = false;
};

/// By its name in gpus/, or a file.
eclip::Result<eclip::model::GpuDescription> load_gpu(const fs::path& data,
                                                     const std::string& name) {
  const bool is_file = fs::path(name).extension() == ".toml";
  return eclip::model::load_gpu_description(is_file ? fs::path(name)
                                                    : data / "gpus" / (name + ".toml"));
}

eclip::Result<void> read_choices(ColocateCommand& command) {
  auto& options = command.options;
  for (const std::string& name : command.gpus) {
    const auto gpu = load_gpu(options.data, name);
    if (!gpu) return tl::unexpected(gpu.error());
    options.gpus.push_back(*gpu);
  }
  for (const std::string& name : command.policies)
    options.policies.push_back(*eclip::bench::policy_of(name));  // checked when parsed
  for (const std::string& load : command.loads)
    options.loads.push_back(load == "closed" ? eclip::bench::closed_loop : std::stod(load));
  options.objective = *eclip::planner::objective_of(command.objective);
  return {};
}

int run_colocate(ColocateCommand& command) {
  if (auto read = read_choices(command); !read) {
    std::fprintf(stderr, "eclip-bench: %s\n", read.error().message().c_str());
    return EXIT_FAILURE;
  }
  const auto colocation = eclip::bench::colocate(command.options);
  if (!colocation) {
    std::fprintf(stderr, "eclip-bench: %s\n", colocation.error().message().c_str());
    return EXIT_FAILURE;
  }
  const std::string report =
      command.json ? eclip::bench::colocate_json(*colocation, command.options)
                   : eclip::bench::colocate_text(*colocation, command.options, command.detail);
  std::fputs(report.c_str(), stdout);
  return EXIT_SUCCESS;
}

std::string check_load(const std::string& load) {
  if (load == "closed") return "";
  char* end = nullptr;
  const double share = std::strtod(load.c_str(), &end);
  if (!load.empty() && *end == '\0' && share > 0 && share <= 2) return "";
  return "'" + load + "' is no load; give closed, or a share above 0 and up to 2";
}

void add_colocate(CLI::App& app, ColocateCommand& command) {
  CLI::App* add = app.add_subcommand(
      "colocate", "Compare ECLIP with other ways of sharing a GPU, in virtual time");
  auto& options = command.options;
  options.data = eclip::model::default_data_dir();
  options.jobs = std::max(1U, std::thread::hardware_concurrency());
  add->add_option("--data", options.data, "Folder with colocation-h100.json, profiles/ and gpus/")
      ->envname("ECLIP_DATA_DIR")
      ->capture_default_str();
  add->add_option("--gpu", command.gpus, "Names in gpus/, or files")
      ->delimiter(',')
      ->capture_default_str();
  add->add_option("--mix", options.mixes, "Mixes of colocation-h100.json; default: all")
      ->delimiter(',');
  std::vector<std::string> policies;
  policies.reserve(std::size(eclip::bench::all_policies));
  for (const auto policy : eclip::bench::all_policies)
    policies.emplace_back(eclip::bench::name_of(policy));
  add->add_option("--policy", command.policies, "Policies; default: all")
      ->delimiter(',')
      ->check(CLI::IsMember(policies));
  add->add_option(
         "--load", command.loads,
         "closed, or shares of the workers' rates in a closed loop without masks; default: "
         "closed,0.4,0.6,0.8")
      ->delimiter(',')
      ->check(check_load);
  add->add_option("--seeds", options.seeds, "Runs of each cell")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  add->add_option("--requests", options.requests, "Requests of the slowest worker in each run")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  add->add_option("--objective", command.objective, "What plans minimise")
      ->check(CLI::IsMember({"latency", "throughput", "energy"}))
      ->capture_default_str();
  add->add_option("--group-us", options.group_us, "Least length of the groups that plans are for")
      ->check(CLI::Range(1.0, 1e9))
      ->capture_default_str();
  add->add_option("--backlog", options.backlog,
                  "Experiment: a worker with so many requests heeds only others that have as many; "
                  "0: never")
      ->capture_default_str();
  add->add_option("--jobs", options.jobs, "Threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  add->add_option("--trace", options.trace,
                  "Write what ran when, as Chrome trace JSON; for one cell");
  add->add_flag("--detail", command.detail, "Print every cell first");
  add->add_flag("--json", command.json, "Print everything as JSON");
}

struct ReplayCommand {
  eclip::bench::PlanReplayOptions options;
  std::string gpu = "mi50";
  bool json = false;
};

int run_replay(const ReplayCommand& command) {
  const auto gpu = load_gpu(command.options.data, command.gpu);
  const auto replay = gpu ? eclip::bench::replay_plan(*gpu, command.options)
                          : eclip::Result<eclip::bench::PlanReplay>(tl::unexpected(gpu.error()));
  if (!replay) {
    std::fprintf(stderr, "eclip-bench: %s\n", replay.error().message().c_str());
    return EXIT_FAILURE;
  }
  const std::string report = command.json ? eclip::bench::plan_replay_json(*replay)
                                          : eclip::bench::plan_replay_text(*replay);
  std::fputs(report.c_str(), stdout);
  return EXIT_SUCCESS;
}

void add_replay(CLI::App& app, ReplayCommand& command) {
  CLI::App* add =
      app.add_subcommand("replay", "Run the workers of a plan of eclipd in virtual time");
  auto& options = command.options;
  options.data = eclip::model::default_data_dir();
  add->add_option("--plan", options.plan, "Plan, as eclipctl plan show --json prints it")
      ->required()
      ->type_name("FILE");
  add->add_option("--data", options.data, "Folder with profiles/ and gpus/")
      ->envname("ECLIP_DATA_DIR")
      ->capture_default_str();
  add->add_option("--gpu", command.gpu, "Name in gpus/, or a file")->capture_default_str();
  add->add_option("--requests", options.requests, "Requests of the slowest worker")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  add->add_option("--seed", options.seed, "Of arrivals and first requests")->capture_default_str();
  add->add_flag("--json", command.json, "Print as JSON");
}

int run(int argc, char** argv) {
  CLI::App app("Benchmarks of ECLIP in virtual time", "eclip-bench");
  app.require_subcommand(1);
  ValidateOptions validate;
  add_validate(app, validate);
  ColocateCommand colocate;
  add_colocate(app, colocate);
  ReplayCommand replay;
  add_replay(app, replay);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  if (app.got_subcommand("replay")) return run_replay(replay);
  return app.got_subcommand("colocate") ? run_colocate(colocate) : run_validate(validate);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "eclip-bench: %s\n", error.what());
  } catch (...) {
    std::fputs("eclip-bench: unknown error\n", stderr);
  }
  return EXIT_FAILURE;
}
