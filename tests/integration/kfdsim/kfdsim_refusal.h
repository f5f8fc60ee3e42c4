// Whether kfdsim can run on this machine, asked of kfdsim itself.
#pragma once

#include <stdio.h>
#include <sys/wait.h>

#include <array>
#include <cstdlib>
#include <string>

namespace eclip::test {

/// The --mapping that these tests are to run with: ECLIP_KFDSIM_MAPPING, by default auto.
inline std::string kfdsim_mapping() {
  const char* given = std::getenv("ECLIP_KFDSIM_MAPPING");
  return given != nullptr ? given : "auto";
}

/// kfdsim's own line about what this machine lacks (root or user namespaces, /dev/fuse, FUSE
/// passthrough); "" when it runs. Any other failure of kfdsim is no reason to skip a test, and
/// gives "" too.
inline std::string kfdsim_refusal() {
  const std::string command =
      "'" KFDSIM_PROGRAM "' run --quiet --mapping '" + kfdsim_mapping() + "' -- /bin/true 2>&1";
  FILE* probe = ::popen(command.c_str(), "r");
  if (probe == nullptr) return {};
  std::string said;
  std::array<char, 512> line{};
  while (::fgets(line.data(), line.size(), probe) != nullptr) said += line.data();
  const int status = ::pclose(probe);
  constexpr int refused = 125;
  const bool machine_lacks_something =
      WIFEXITED(status) && WEXITSTATUS(status) == refused &&
      (said.find("root") != std::string::npos || said.find("/dev/fuse") != std::string::npos ||
       said.find("passthrough") != std::string::npos);
  return machine_lacks_something ? said : std::string();
}

}  // namespace eclip::test
