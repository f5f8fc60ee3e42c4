// kfdsim's command line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "ipc/result.h"
#include "tools/kfdsim/fault_spec.h"
#include "tools/kfdsim/fuse_connection.h"

namespace eclip::kfdsim {

struct Options {
  std::string gpu = "mi50";  ///< a name in the data directory, or a file
  double time_scale = 1;
  std::optional<Mapping> mapping;  ///< nullopt: passthrough where it is possible
  std::optional<std::filesystem::path> trace;
  std::optional<std::filesystem::path> data;
  std::vector<std::filesystem::path> shadows;   ///< libraries of shadow kernels
  std::vector<std::filesystem::path> profiles;  ///< whose kernels' times are known
  bool quiet = false;
  std::vector<FaultSpec> faults;
  std::uint64_t seed = 0;
  std::vector<std::string> command;
};

/// What main has to do: run with the options, or exit with a status (after --help or an error,
/// which have been printed).
struct ParsedCommandLine {
  std::optional<Options> options;
  int exit_status = 0;
};
ParsedCommandLine parse_command_line(int argc, char** argv);

/// Where the data files are: `given`, or beside the program, or where they get installed.
std::vector<std::filesystem::path> data_directories(
    const std::optional<std::filesystem::path>& given);

/// The description that --gpu names. Errc::not_found lists the names that there are.
Result<model::GpuDescription> find_gpu(const std::string& name_or_file,
                                       const std::vector<std::filesystem::path>& directories);

/// Errc::invalid_argument unless the factor is one with which times fit into their 64 bits.
Result<void> check_time_scale(double scale);

}  // namespace eclip::kfdsim
