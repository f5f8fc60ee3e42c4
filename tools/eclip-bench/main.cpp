// eclip-bench: benchmarks of ECLIP in virtual time.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "daemon/model/data_dir.h"
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

int run(int argc, char** argv) {
  CLI::App app("Benchmarks of ECLIP in virtual time", "eclip-bench");
  app.require_subcommand(1);
  ValidateOptions validate;
  add_validate(app, validate);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return run_validate(validate);
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
