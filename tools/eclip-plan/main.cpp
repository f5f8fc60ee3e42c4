// eclip-plan: the planner on the command line, and how good its predictions are.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "daemon/model/data_dir.h"
#include "daemon/model/profile.h"
#include "daemon/planner/closed_loop.h"
#include "daemon/planner/open_loop_choice.h"
#include "daemon/planner/plan_document.h"
#include "daemon/planner/planner.h"
#include "tools/eclip-plan/evaluate.h"
#include "tools/eclip-plan/open_loop_evaluation.h"
#include "tools/text/plan_report.h"

namespace {

namespace fs = std::filesystem;

int report(const eclip::Error& error) {
  std::fprintf(stderr, "eclip-plan: %s\n", error.message().c_str());
  return EXIT_FAILURE;
}

struct EvaluateOptions {
  fs::path data = eclip::model::default_data_dir();
  fs::path gpu;
  bool json = false;
  bool detail = false;
  bool open_loop = false;
  std::uint32_t requests = 200;
  std::uint64_t seed = 1;
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
  auto* open_loop = command->add_flag("--open-loop", options.open_loop,
                                      "Instead, simulate requests that arrive at random: nobody "
                                      "masked, static leaves, active sets");
  command->add_option("--requests", options.requests, "Of each worker at least, in an open loop")
      ->needs(open_loop)
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--seed", options.seed, "Of the arrivals")
      ->needs(open_loop)
      ->capture_default_str();
}

int run_evaluate(const EvaluateOptions& options) {
  using eclip::plan::Judge;
  const fs::path file = options.gpu.empty() ? options.data / "gpus" / "h100.toml" : options.gpu;
  const auto gpu = eclip::model::load_gpu_description(file);
  if (!gpu) return report(gpu.error());
  if (options.open_loop) {
    const auto cells =
        eclip::plan::evaluate_open_loop(*gpu, options.data, options.requests, options.seed);
    if (!cells) return report(cells.error());
    const std::string text = options.json ? eclip::plan::open_loop_json(*cells, gpu->name)
                                          : eclip::plan::open_loop_report(*cells, gpu->name);
    std::fputs(text.c_str(), stdout);
    return EXIT_SUCCESS;
  }
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
  fs::path data = eclip::model::default_data_dir();
  fs::path gpu;
  std::vector<std::string> workers;
  std::vector<std::string> pool;
  std::vector<double> weights;
  std::vector<double> bounds_ms;
  std::string objective = "latency";
  eclip::planner::PlannerOptions planner;
  double time_limit_ms = 0;
  bool analytic = false;
  bool json = false;
  bool toml = false;
};

void add_plan(CLI::App& app, PlanOptions& options) {
  CLI::App* command = app.add_subcommand("plan", "Plan for workers, and explain the plan");
  command
      ->add_option("--worker", options.workers,
                   "A profile, a file or a name in the data's profiles/, or \"unknown\", and the "
                   "worker's requests per second; without a rate: a closed loop. Once for each "
                   "worker")
      ->required()
      ->type_name("PROFILE[:RATE]");
  command->add_option("--weights", options.weights,
                      "How much each worker counts, in the order of --worker; default: 1 each");
  command->add_option("--bounds-ms", options.bounds_ms,
                      "Longest time of a request of each worker once it runs, likewise; 0: any");
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
  command
      ->add_option("--time-limit-ms", options.time_limit_ms,
                   "Stop the search then, with the best plan so far; 0: never")
      ->check(CLI::Range(0.0, 1e9));
  command->add_flag("--analytic", options.analytic,
                    "Decide by the cost model alone, without simulating the best candidates");
  command
      ->add_option("--pool", options.pool,
                   "Plan for these streams only: masks as in HSA_CU_MASK (0:0-14), or \"tree\", "
                   "eclipd's own pool: the GPU, its halves and its quarters")
      ->type_name("tree | MASK...");
  auto* json = command->add_flag("--json", options.json, "Print the plan as JSON (eclip.plan/1)");
  command
      ->add_flag("--toml", options.toml,
                 "Print the plan's pool as a section of eclipd's "
                 "configuration")
      ->excludes(json);
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
  if (name == "unknown")
    return eclip::planner::Worker{
        .name = name, .kernels = {}, .requests_per_s = rate, .unknown = true};
  std::error_code error;
  const fs::path file =
      fs::exists(name, error) ? fs::path(name) : data / "profiles" / (name + ".h100.json");
  const auto profile = eclip::model::load_profile(file);
  if (!profile) return eclip::fail(profile.error(), "--worker " + text);
  return eclip::planner::profiled_worker(*profile, name, rate);
}

/// One number for each worker, or none at all.
eclip::Result<void> set_each(std::vector<eclip::planner::Worker>& workers,
                             const std::vector<double>& numbers, const char* option,
                             const std::function<void(eclip::planner::Worker&, double)>& set) {
  if (numbers.empty()) return {};
  if (numbers.size() != workers.size())
    return eclip::fail(eclip::Errc::invalid_argument,
                       std::string(option) + " has " + std::to_string(numbers.size()) +
                           " numbers for " + std::to_string(workers.size()) +
                           " workers; give one for each");
  for (std::size_t w = 0; w < workers.size(); ++w) set(workers[w], numbers[w]);
  return {};
}

/// "tree", or masks in the grammar of HSA_CU_MASK, each for GPU 0.
eclip::Result<std::vector<eclip::CuMask>> read_pool(const std::vector<std::string>& texts,
                                                    const eclip::model::GpuDescription& gpu) {
  const auto& geometry = gpu.geometry;
  if (texts.size() == 1 && texts.front() == "tree") {
    auto masks = eclip::planner::tree_masks(geometry.cu_count(), geometry.shader_engines);
    if (masks.empty())
      return eclip::fail(eclip::Errc::unsupported,
                         "--pool tree needs a multiple of 4 shader engines; " + gpu.name + " has " +
                             std::to_string(geometry.shader_engines) + ": give masks instead");
    return masks;
  }
  std::vector<eclip::CuMask> masks;
  for (const std::string& text : texts) {
    const auto entries = eclip::parse_hsa_cu_mask(text);
    if (!entries) return eclip::fail(entries.error(), "--pool " + text);
    for (const eclip::CuMaskEntry& entry : *entries) {
      if (entry.gpus != std::vector<std::uint32_t>{0})
        return eclip::fail(eclip::Errc::invalid_argument,
                           "--pool " + text + ": a plan is for one GPU; write 0: before the CUs");
      auto mask = eclip::CuMask::parse(entry.cu_list, geometry.cu_count());
      if (!mask) return eclip::fail(mask.error(), "--pool " + text);
      masks.push_back(std::move(*mask));
    }
  }
  return masks;
}

/// The plan's pool as the section of eclipd's configuration that makes eclipd create it.
std::string pool_toml(const eclip::planner::Plan& plan) {
  std::string streams;
  for (const auto& stream : plan.pool.streams)
    streams += (streams.empty() ? "\"0:" : ", \"0:") + stream.mask.to_string() + "\"";
  return "[pool]\nstreams = [" + streams + "]\n";
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
  if (auto set = set_each(workers, options.weights, "--weights",
                          [](auto& worker, double number) { worker.weight = number; });
      !set)
    return report(set.error());
  if (auto set = set_each(workers, options.bounds_ms, "--bounds-ms",
                          [](auto& worker, double ms) { worker.latency_bound_us = 1000 * ms; });
      !set)
    return report(set.error());
  if (!options.pool.empty()) {
    auto masks = read_pool(options.pool, *gpu);
    if (!masks) return report(masks.error());
    options.planner.pool = std::move(*masks);
  }
  if (options.time_limit_ms > 0) {
    const auto until =
        Clock::now() + std::chrono::duration<double, std::milli>(options.time_limit_ms);
    options.planner.search.out_of_time = [until] { return Clock::now() >= until; };
  }
  const auto objective = eclip::planner::objective_of(options.objective)
                             .value_or(eclip::planner::Objective::latency);  // checked when parsed
  options.planner.search.objective = objective;
  options.planner.judge_by_simulation = options.planner.keep_up = !options.analytic;
  auto plan = eclip::planner::make_plan(*gpu, workers, options.planner);
  const auto has_rate = [](const auto& worker) { return worker.requests_per_s > 0; };
  if (plan && !options.analytic && std::all_of(workers.begin(), workers.end(), has_rate))
    plan = eclip::planner::choose_rows(
        *gpu, workers, std::move(*plan),
        {.objective = objective, .out_of_time = options.planner.search.out_of_time});
  if (!plan) return report(plan.error());
  const auto document = eclip::planner::plan_document(*plan, workers, *gpu, objective);
  const std::string text = options.toml   ? pool_toml(*plan)
                           : options.json ? document.dump(1) + "\n"
                                          : eclip::text::plan_table(document) + "\n" +
                                                eclip::text::plan_explanation(document);
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
