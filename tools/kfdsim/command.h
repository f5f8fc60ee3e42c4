// COMMAND as a child process.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "ipc/result.h"

namespace eclip::kfdsim {

/// Exit statuses that shells use.
inline constexpr int exit_own_failure = 125;
inline constexpr int exit_not_executable = 126;
inline constexpr int exit_not_found = 127;
inline constexpr int exit_signal_base = 128;

/// Blocks the signals that run_command takes from a descriptor. To be called while the process
/// has one thread, so that all threads inherit it.
void block_command_signals();

/// Runs the command until it ends. SIGINT, SIGTERM, SIGHUP and SIGQUIT that somebody sends to this
/// process are passed on (the terminal's go to COMMAND anyway). When this process dies, COMMAND
/// gets SIGTERM. The calling thread must stay until the end. Returns the exit status for this
/// process; errors are this process's own, after which COMMAND does not run.
Result<int> run_command(const std::vector<std::string>& arguments);

}  // namespace eclip::kfdsim
