// eclip-plan: the planner on the command line, and how good its predictions are.
#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "daemon/model/profile.h"
#include "daemon/planner/closed_loop.h"
#include "daemon/planner/planner.h"
#include "tools/eclip-plan/evaluate.h"
#include "tools/eclip-plan/plan_report.h"

namespace {

namespace fs = std::filesystem;

/// Where the data is when nobody says: beside an installed ECLIP, else in the source tree.
fs::path default_data() {
  std::error_code error;
  if (fs::exists(fs::path(ECLIP_INSTALLED_DATA_DIR) / "gpus", error))
    return ECLIP_INSTALLED_DATA_DIR;
  return ECLIP_SOURCE_DATA_DIR;
}

int report(const eclip::Error& error) {
  std::fprintf(stderr, "eclip-plan: %s\n", error.message().c_str());
  return EXIT_FAILURE;
}

struct EvaluateOptions {
  fs::path data = default_data();
  fs::path gpu;
  bool json = false;
  bool detail = false;
};

void add_evaluate(CLI::App& app, EvaluateOptions& options) {
  CLI::App* command = app.add_subcommand(
      "evaluate",
      "Compare the cost models and the simulation with co-location measured on an H100");
  command
      ->add_option("--data", options.data, "Folder with colocation-h100.json, profiles/ and gpus/")
      ->envname("ECLIP_DATA_DIR")
      ->capture_default_str();
  command->add_option("--gpu", options.gpu, "GPU description to use; default: gpus/h100.toml");
  command->add_flag("--detail", options.detail, "Print every worker of every scenario too");
  command->add_flag("--json", options.json, "Print everything as JSON");
}

int run_evaluate(const EvaluateOptions& options) {
  using eclip::plan::Judge;
  const fs::path file = options.gpu.empty() ? options.data / "gpus" / "h100.toml" : options.gpu;
  const auto gpu = eclip::model::load_gpu_description(file);
  if (!gpu) return report(gpu.error());
  std::vector<eclip::plan::Evaluation> evaluations;
  for (const Judge judge : {Judge::waiting, Judge::proportional, Judge::simulation}) {
    auto validation = eclip::plan::evaluate(*gpu, options.data, judge);
    if (!validation) return report(validation.error());
    evaluations.push_back({judge, std::move(*validation)});
  }
  const std::string text = options.json
                               ? eclip::plan::evaluation_json(evaluations)
                               : eclip::plan::evaluation_report(evaluations, options.detail);
  std::fputs(text.c_str(), stdout);
  return EXIT_SUCCESS;
}

struct PlanOptions {
  fs::path data = default_data();
  fs::path gpu;
  std::vector<std::string> workers;
  std::string objective = "latency";
  eclip::planner::PlannerOptions planner;
  double time_limit_ms = 0;
  bool analytic = false;
  bool json = false;
};

void add_plan(CLI::App& app, PlanOptions& options) {
  CLI::App* command = app.add_subcommand("plan", "Plan for workers, and explain the plan");
  command
      ->add_option("--worker", options.workers,
                   "A profile, a file or a name in the data's profiles/, and the worker's requests "
                   "per second; without a rate: a closed loop. Once for each worker")
      ->required()
      ->type_name("PROFILE[:RATE]");
  command->add_option("--data", options.data, "Folder with profiles/ and gpus/")
      ->envname("ECLIP_DATA_DIR")
      ->capture_default_str();
  command->add_option("--gpu", options.gpu, "GPU description to use; default: gpus/h100.toml");
  command->add_option("--objective", options.objective, "What to minimise")
      ->check(CLI::IsMember({"latency", "throughput", "energy"}))
      ->capture_default_str();
  command->add_option("--group-us", options.planner.group_us, "Least time between switches")
      ->check(CLI::Range(1.0, 1e9))
      ->capture_default_str();
  command->add_option("--restarts", options.planner.search.restarts, "Random starts")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  command
      ->add_option("--time-limit-ms", options.time_limit_ms,
                   "Stop the search then, with the best plan so far; 0: never")
      ->check(CLI::Range(0.0, 1e9));
  command->add_flag("--analytic", options.analytic,
                    "Decide by the cost model alone, without simulating the best candidates");
  command->add_flag("--json", options.json, "Print the plan as JSON (eclip.plan/1)");
}

/// PROFILE[:RATE]. What follows the last colon is a rate when it is a number.
eclip::Result<eclip::planner::Worker> read_worker(const std::string& text, const fs::path& data) {
  std::string name = text;
  double rate = 0;
  if (const std::size_t colon = text.rfind(':'); colon != std::string::npos) {
    const char* end = text.data() + text.size();
    const auto [last, error] = std::from_chars(text.data() + colon + 1, end, rate);
    if (error != std::errc{} || last != end || rate <= 0)
      return eclip::fail(eclip::Errc::invalid_argument,
                         "--worker " + text + ": '" + text.substr(colon + 1) +
                             "' is not a rate; give requests per second above 0, or no colon");
    name.resize(colon);
  }
  std::error_code error;
  const fs::path file =
      fs::exists(name, error) ? fs::path(name) : data / "profiles" / (name + ".h100.json");
  const auto profile = eclip::model::load_profile(file);
  if (!profile) return eclip::fail(profile.error(), "--worker " + text);
  return eclip::planner::Worker{
      .name = name, .kernels = eclip::planner::kernels_of(*profile), .requests_per_s = rate};
}

int run_plan(PlanOptions options) {
  using Clock = std::chrono::steady_clock;
  const fs::path file = options.gpu.empty() ? options.data / "gpus" / "h100.toml" : options.gpu;
  const auto gpu = eclip::model::load_gpu_description(file);
  if (!gpu) return report(gpu.error());
  std::vector<eclip::planner::Worker> workers;
  for (const std::string& text : options.workers) {
    auto worker = read_worker(text, options.data);
    if (!worker) return report(worker.error());
    workers.push_back(std::move(*worker));
  }
  if (options.time_limit_ms > 0) {
    const auto until =
        Clock::now() + std::chrono::duration<double, std::milli>(options.time_limit_ms);
    options.planner.search.out_of_time = [until] { return Clock::now() >= until; };
  }
  using eclip::planner::Objective;
  const auto objective = options.objective == "latency"      ? Objective::latency
                         : options.objective == "throughput" ? Objective::throughput
                                                             : Objective::energy;
  options.planner.search.objective = objective;
  options.planner.judge_by_simulation = !options.analytic;
  const auto plan = eclip::planner::make_plan(*gpu, workers, options.planner);
  if (!plan) return report(plan.error());
  const std::string text = options.json ? eclip::plan::plan_json(*plan, workers, *gpu, objective)
                                        : eclip::plan::plan_report(*plan, workers, *gpu, objective);
  std::fputs(text.c_str(), stdout);
  return EXIT_SUCCESS;
}

int run(int argc, char** argv) {
  CLI::App app("Plans which worker's kernels run on which CUs", "eclip-plan");
  app.require_subcommand(1);
  EvaluateOptions evaluate;
  add_evaluate(app, evaluate);
  PlanOptions plan;
  add_plan(app, plan);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return app.got_subcommand("plan") ? run_plan(plan) : run_evaluate(evaluate);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "eclip-plan: %s\n", error.what());
  } catch (...) {
    std::fputs("eclip-plan: unknown error\n", stderr);
  }
  return EXIT_FAILURE;
}
