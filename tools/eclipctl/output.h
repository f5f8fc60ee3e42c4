// What all commands share: their common options, exit codes, and how results and failures are said.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "ipc/control_socket.h"
#include "ipc/result.h"

namespace eclip::ctl {

enum ExitCode : int { exit_ok = 0, exit_failed = 1, exit_usage = 2, exit_no_daemon = 3 };

struct Options {
  std::string socket = socket_path_from_environment().string();
  bool json = false;
};

/// Says what failed; the exit code.
int complain(const Error& error, const Options& options);
/// JSON strings must be UTF-8; names of workers may be anything.
void print_json(const nlohmann::json& value);

}  // namespace eclip::ctl
