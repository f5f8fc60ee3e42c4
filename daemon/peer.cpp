#include "daemon/peer.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "ipc/printable.h"

namespace eclip::daemon {
namespace {

// Linux 6.5; not in Debian 12's headers.
constexpr int so_peerpidfd = 77;

}  // namespace

Result<Peer> identify_peer(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
    return fail_errno(errno, "read a client's credentials");
  Peer peer{.pid = credentials.pid, .uid = credentials.uid, .pidfd = {}, .command = {}};
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
  return peer;
}

}  // namespace eclip::daemon
