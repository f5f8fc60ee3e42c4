// Profiles by name, as workers and the configuration name them.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/planner/cost_tables.h"
#include "ipc/result.h"

namespace eclip::daemon {

/// Reads profiles from directories, and remembers them. Not thread-safe.
class ProfileLibrary {
 public:
  /// Earlier directories win; one that does not exist has no profiles. `gpu`: a description's name.
  ProfileLibrary(std::vector<std::filesystem::path> directories, std::string gpu)
      : directories_(std::move(directories)), gpu_(std::move(gpu)) {}

  /// A worker that runs the profiled request; its kernels are the same objects each time.
  /// NAME.json, else NAME.GPU.json, else the first NAME.*.json by alphabet, measured on another
  /// GPU. A file that has changed since is read again. Errc::invalid_argument: no name of a
  /// profile. Errc::not_found names the directories. The loader's errors.
  Result<planner::Worker> find(const std::string& name);

 private:
  struct Loaded {
    std::filesystem::path file;
    std::filesystem::file_time_type written;
    planner::Worker worker;
  };
  [[nodiscard]] std::filesystem::path file_of(const std::string& name) const;

  std::vector<std::filesystem::path> directories_;
  std::string gpu_;
  std::map<std::string, Loaded> loaded_;
};

/// Whether a text is fit to be a profile's name: letters, digits, '.', '_', '+' and '-', not
/// beginning with a dot. Other names could lead out of the directories.
bool is_profile_name(std::string_view text);

}  // namespace eclip::daemon
