#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "daemon/control_server.h"

namespace eclip::daemon {

Result<ListeningSocket> ListeningSocket::open(const Config& config) {
  const auto& path = config.daemon.socket;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof address.sun_path)
    return fail(Errc::invalid_argument, "daemon.socket '" + path.string() + "' is longer than " +
                                            std::to_string(sizeof address.sun_path - 1) +
                                            " characters");
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  if (error) return fail_errno(error.value(), "create " + path.parent_path().string());

  // The lock, not the socket's file, tells whether somebody listens: a file may be left over.
  const std::string lock_path = path.string() + ".lock";
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) return fail_errno(errno, "open " + lock_path);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
    return fail(Errc::already_in_use,
                "another eclipd listens on " + path.string() + "; stop it first");
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail_errno(errno, "open the control socket");
  struct stat left_over {};
  if (::lstat(path.c_str(), &left_over) == 0) {
    if (!S_ISSOCK(left_over.st_mode))
      return fail(Errc::invalid_argument, "daemon.socket '" + path.string() +
                                              "' is a file that is no socket; move it away");
    ::unlink(path.c_str());
  }
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "bind the control socket to " + path.string());
  ListeningSocket listening(std::move(lock), std::move(socket), path);
  if (!config.daemon.socket_group.empty()) {
    const group* entry = ::getgrnam(config.daemon.socket_group.c_str());
    if (entry == nullptr)
      return fail(Errc::not_found, "daemon.socket_group = \"" + config.daemon.socket_group +
                                       "\": there is no such group");
    if (::chown(path.c_str(), static_cast<uid_t>(-1), entry->gr_gid) != 0)
      return fail_errno(errno, "give " + path.string() + " to group " + config.daemon.socket_group);
  }
  if (::chmod(path.c_str(), 0660) != 0)
    return fail_errno(errno, "set the mode of " + path.string());
  if (::listen(listening.fd(), SOMAXCONN) != 0)
    return fail_errno(errno, "listen on " + path.string());
  return listening;
}

ListeningSocket::~ListeningSocket() {
  if (!socket_) return;
  ::unlink(path_.c_str());
  // The lock file stays: unlinking it would take the lock from under whoever has opened it
  // meanwhile.
}

}  // namespace eclip::daemon
