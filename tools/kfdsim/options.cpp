#include "tools/kfdsim/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <system_error>

#include "tools/kfdsim/command.h"
#include "tools/kfdsim/report.h"

namespace eclip::kfdsim {
namespace {

namespace fs = std::filesystem;

constexpr const char* description =
    "kfdsim run [OPTIONS] -- COMMAND...\n\n"
    "Runs COMMAND on a machine with a simulated AMD GPU: the unmodified libhsakmt (and what is "
    "above it) finds /dev/kfd, the topology and a render node. Needs /dev/fuse, and root or user "
    "namespaces. Nothing outside COMMAND and its children sees the GPU. All figures are simulated.";

const std::map<std::string, std::optional<Mapping>> mappings{{"auto", std::nullopt},
                                                             {"passthrough", Mapping::passthrough},
                                                             {"page-cache", Mapping::page_cache}};

}  // namespace

ParsedCommandLine parse_command_line(int argc, char** argv) {
  Options options;
  CLI::App app("Simulated AMD GPU below libhsakmt", "kfdsim");
  app.require_subcommand(1);
  app.failure_message([](const CLI::App*, const CLI::Error& error) {
    return fmt::format("kfdsim: {} (kfdsim run --help explains the options)\n", error.what());
  });
  app.set_version_flag("--version", "kfdsim " ECLIP_VERSION);
  CLI::App* run = app.add_subcommand("run", description);
  run->footer("COMMAND and its arguments come last, after --: kfdsim run -q -- rocminfo");
  run->add_option("--gpu", options.gpu, "GPU to simulate: a name in the data directory, or a file")
      ->capture_default_str();
  run->add_option(
         "--time-scale", options.time_scale,
         "Wall time for one unit of device time: with 10, kernels take ten times as long "
         "as their profiles say, and the simulator's own latency (some 50 us of wall time "
         "for each packet that waits for the host) weighs a tenth. From 0.0001 to 1000000; the "
         "GPU's clock counter, power and energy are in device time")
      ->capture_default_str();
  std::string mapping = "auto";
  run->add_option(
         "--mapping", mapping,
         "How COMMAND and the simulated GPU share memory: by FUSE passthrough (fast; needs "
         "root and Linux 6.9), by the page cache (any user, any kernel), or the better one "
         "that works")
      ->check(CLI::IsMember(mappings))
      ->capture_default_str();
  run->add_option("--trace", options.trace,
                  "Write a Chrome/Perfetto trace of all packets (ui.perfetto.dev opens it)");
  run->add_option("--shadow", options.shadows,
                  "Shared library of host functions that compute what kernels compute, by symbol "
                  "name (shadow_kernel.h); may be repeated")
      ->allow_extra_args(false);
  run->add_option("--profile", options.profiles,
                  "Profile (eclip.profile/1) whose kernels, by name and launch size, take their "
                  "measured times; may be repeated")
      ->allow_extra_args(false);
  run->add_option("--data", options.data, "Directory that holds gpus/NAME.toml");
  run->add_flag("-q,--quiet", options.quiet, "No summary at the end");
  std::vector<std::string> faults;
  run->add_option(
         "--fault", faults,
         "Inject a fault (repeatable): ioctl:NAME,error=ERRNO,delay=TIME,probability=P,"
         "after=N,count=N | hang-queue,queue=N,after=PACKETS,probability=P | "
         "stall-processor,after=PACKETS,probability=P,process=N,count=N,at=TIME,for=TIME | "
         "vram,limit=SIZE,probability=P | system-memory,limit=SIZE,probability=P | "
         "reset,after=PACKETS,probability=P,process=N,at=TIME,for=TIME. Times are the "
         "device's (docs/kfdsim.md)")
      ->expected(1)
      ->take_all()
      ->check(
          [](const std::string& text) {
            const auto spec = parse_fault_spec(text);
            return spec ? std::string() : spec.error().message();
          },
          "FAULT");
  run->add_option("--seed", options.seed,
                  "Decides which calls, queues, allocations and packets faults with a probability "
                  "hit, and how long changes of queues stall")
      ->check([](const std::string& text) {
        return text.starts_with('-') ? std::string("give a whole number from 0") : std::string();
      })
      ->capture_default_str();
  // The command is cut off first: it is nobody's to interpret (CLI11 splits "[a,b]", for example).
  char** const end = argv + argc;
  char** const separator = std::find(argv, end, std::string_view("--"));
  try {
    app.parse(static_cast<int>(separator - argv), argv);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error);
    if (status != 0 && separator == end) report("COMMAND comes after --: kfdsim run -- COMMAND...");
    return {std::nullopt, status == 0 ? 0 : exit_own_failure};
  }
  options.mapping = mappings.at(mapping);
  for (const std::string& text : faults) options.faults.push_back(*parse_fault_spec(text));
  if (separator != end) options.command.assign(separator + 1, end);
  if (options.command.empty()) {
    report("no command to run: kfdsim run [OPTIONS] -- COMMAND...");
    return {std::nullopt, exit_own_failure};
  }
  return {std::move(options), 0};
}

std::vector<fs::path> data_directories(const std::optional<fs::path>& given) {
  if (given) return {*given};
  std::vector<fs::path> directories;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) directories.push_back(program.parent_path().parent_path() / "share/eclip");
  directories.emplace_back(ECLIP_INSTALLED_DATA_DIR);
#ifdef ECLIP_SOURCE_DATA_DIR
  directories.emplace_back(ECLIP_SOURCE_DATA_DIR);
#endif
  return directories;
}

namespace {

bool has_kfd(const model::GpuDescription& gpu) {
  return gpu.topology.gfx_target_version != 0;
}

Result<model::GpuDescription> load_gpu(const fs::path& file) {
  auto gpu = model::load_gpu_description(file);
  if (!gpu || has_kfd(*gpu)) return gpu;
  return fail(
      Errc::unsupported,
      fmt::format("{} describes a GPU that no amdgpu driver serves (its gfx_target_version is "
                  "0), for the device model alone; take another, such as mi50",
                  file.string()));
}

}  // namespace

Result<model::GpuDescription> find_gpu(const std::string& name_or_file,
                                       const std::vector<fs::path>& directories) {
  std::error_code error;
  const bool is_path =
      name_or_file.find('/') != std::string::npos || name_or_file.ends_with(".toml");
  if (is_path) return load_gpu(name_or_file);
  std::set<std::string> names;
  for (const fs::path& directory : directories) {
    const fs::path file = directory / "gpus" / (name_or_file + ".toml");
    if (fs::exists(file, error)) return load_gpu(file);
    for (const auto& entry : fs::directory_iterator(directory / "gpus", error)) {
      if (entry.path().extension() != ".toml") continue;
      const auto gpu = model::load_gpu_description(entry.path());
      if (gpu && has_kfd(*gpu)) names.insert(entry.path().stem());
    }
  }
  if (names.empty()) {
    return fail(Errc::not_found,
                fmt::format("no GPU descriptions found: name the directory that holds "
                            "gpus/{}.toml with --data",
                            name_or_file));
  }
  return fail(Errc::not_found,
              fmt::format("no GPU is called \"{}\": --gpu takes {}, or the path of a .toml file",
                          name_or_file, fmt::join(names, ", ")));
}

Result<void> check_time_scale(double scale) {
  // Beyond these, times that a run can reach do not fit into 64 bits of nanoseconds.
  constexpr double least = 1e-4;
  constexpr double most = 1e6;
  if (scale >= least && scale <= most) return {};
  return fail(
      Errc::invalid_argument,
      fmt::format("--time-scale {} is not a number from {:g} to {:g}: 1 is real time, 10 is "
                  "ten times slower",
                  scale, least, most));
}

}  // namespace eclip::kfdsim
