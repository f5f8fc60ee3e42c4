#include "daemon/peer.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "ipc/printable.h"

namespace eclip::daemon {
namespace {

// Linux 6.5; not in Debian 12's headers.
constexpr int so_peerpidfd = 77;

}  // namespace

Result<std::uint64_t> read_start_ticks(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return fail(Errc::not_found, "read " + path);
  // The second field, the command's name in parentheses, may hold anything; the last ")" ends it.
  // Field 22 is wanted, the 20th after it.
  const auto name_end = line.rfind(')');
  std::istringstream fields(name_end == std::string::npos ? "" : line.substr(name_end + 1));
  std::string skipped;
  for (int field = 3; field < 22; ++field) fields >> skipped;
  std::uint64_t ticks = 0;
  if (!(fields >> ticks)) return fail(Errc::malformed, path + " has no start time");
  return ticks;
}

Result<Peer> identify_peer(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
    return fail_errno(errno, "read a client's credentials");
  Peer peer{
      .pid = credentials.pid, .uid = credentials.uid, .start_ticks = 0, .pidfd = {}, .command = {}};
  int pidfd = -1;
  length = sizeof pidfd;
  if (::getsockopt(socket, SOL_SOCKET, so_peerpidfd, &pidfd, &length) != 0) {
    // Older kernels: the pid may have been reused between connect and here; the check below that
    // the connection is still open closes all but a fork's inheritance of it.
    pidfd = static_cast<int>(::syscall(SYS_pidfd_open, credentials.pid, 0));
  }
  peer.pidfd.reset(pidfd);
  pollfd connection{.fd = socket, .events = 0, .revents = 0};
  if (!peer.pidfd || ::poll(&connection, 1, 0) != 0)
    return fail(Errc::gone, "the client (pid " + std::to_string(credentials.pid) +
                                ") was gone before its connection was taken");
  std::ifstream comm("/proc/" + std::to_string(peer.pid) + "/comm");
  std::getline(comm, peer.command);
  peer.command = printable(peer.command);
  peer.start_ticks = read_start_ticks(peer.pid).value_or(0);
  // What /proc said is this process's if it has not ended meanwhile: its pid was taken then.
  pollfd ended{.fd = peer.pidfd.get(), .events = POLLIN, .revents = 0};
  if (::poll(&ended, 1, 0) != 0)
    return fail(Errc::gone, "the client (pid " + std::to_string(credentials.pid) +
                                ") died before its connection was taken");
  return peer;
}

}  // namespace eclip::daemon
