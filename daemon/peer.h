// Who is at the other end of a control connection, as the kernel says.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "ipc/result.h"
#include "ipc/unique_fd.h"

namespace eclip::daemon {

/// A connected process: pid and start time name it for as long as the machine is up, `pidfd` refers
/// to it and to no later process of the same pid.
struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
  std::uint64_t start_ticks = 0;  ///< since boot, from /proc/PID/stat; 0: not to be read
  UniqueFd pidfd;                 ///< readable once the process has died
  std::string command;            ///< its /proc/PID/comm at connect
};

/// When a process started, in clock ticks since boot. Errors: the system's, Errc::malformed.
Result<std::uint64_t> read_start_ticks(pid_t pid);

/// The peer of a connected AF_UNIX socket. Errc::gone when it has died already.
Result<Peer> identify_peer(int socket);

}  // namespace eclip::daemon
