// eclip-plan: the planner on the command line, and how good its predictions are.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "tools/eclip-plan/evaluate.h"

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

int run(int argc, char** argv) {
  CLI::App app("Plans which worker's kernels run on which CUs", "eclip-plan");
  app.require_subcommand(1);
  EvaluateOptions evaluate;
  add_evaluate(app, evaluate);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return run_evaluate(evaluate);
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
