#include "ipc/control_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstdlib>

#include "ipc/testpoint.h"

namespace eclip {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t max_fds = 4;

/// Waits until `events` or hang-up; Errc::timed_out at the deadline.
Result<void> wait_for(int socket, short events, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd entry{.fd = socket, .events = events, .revents = 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::max<long long>(left, 0)));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "wait for eclipd");
    if (ready == 0) return fail(Errc::timed_out, "eclipd did not answer in time");
  }
}

}  // namespace

std::filesystem::path socket_path_from_environment() {
  const char* path = std::getenv("ECLIP_SOCKET");
  return path != nullptr && *path != '\0' ? path : default_socket_path;
}

Result<void> send_message(int socket, const Message& message, std::span<const int> fds) {
  if (fds.size() > max_fds)
    return fail(Errc::invalid_argument, "too many descriptors in a message");
  Message copy = message;
  iovec vector{.iov_base = &copy, .iov_len = sizeof copy};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * max_fds)> control{};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* entry = CMSG_FIRSTHDR(&header);
    entry->cmsg_level = SOL_SOCKET;
    entry->cmsg_type = SCM_RIGHTS;
    entry->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(entry), fds.data(), fds.size_bytes());
  }
  while (::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return fail(Errc::again, "the peer does not read its messages");
    if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
      return fail(Errc::gone, "the peer has closed the connection");
    return fail_errno(errno, "send a control message");
  }
  return {};
}

Result<std::optional<ReceivedMessage>> receive_message(int socket) {
  ReceivedMessage received{};
  // One byte more than a message, so that a longer one is noticed.
  std::array<std::byte, sizeof(Message) + 1> buffer;
  iovec vector{.iov_base = buffer.data(), .iov_len = buffer.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * max_fds)> control{};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t size = 0;
  do {
    size = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size < 0) {
    if (errno == EAGAIN) return std::nullopt;
    if (errno == ECONNRESET) return fail(Errc::gone, "the peer has closed the connection");
    return fail_errno(errno, "receive a control message");
  }
  for (cmsghdr* entry = CMSG_FIRSTHDR(&header); entry != nullptr;
       entry = CMSG_NXTHDR(&header, entry)) {
    if (entry->cmsg_level != SOL_SOCKET || entry->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (entry->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(entry) + i * sizeof(int), sizeof fd);
      received.fds.emplace_back(fd);
    }
  }
  if (size == 0) return fail(Errc::gone, "the peer has closed the connection");
  if (static_cast<std::size_t>(size) != sizeof(Message) || (header.msg_flags & MSG_CTRUNC) != 0)
    return fail(Errc::malformed, "a control message of " + std::to_string(size) +
                                     " bytes or with too many descriptors; " +
                                     std::to_string(sizeof(Message)) + " bytes are expected");
  std::memcpy(&received.message, buffer.data(), sizeof(Message));
  return received;
}

Result<UniqueFd> connect_control(const std::filesystem::path& path,
                                 std::chrono::milliseconds timeout) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof address.sun_path)
    return fail(Errc::invalid_argument, "socket path '" + path.string() + "' is too long");
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail_errno(errno, "open a control socket");
  const auto deadline = Clock::now() + timeout;
  while (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
         0) {
    switch (errno) {
      case EINTR:
        continue;
      case ENOENT:
      case ECONNREFUSED:
        return fail(Errc::gone, "eclipd is not running: nobody listens on " + path.string());
      case EACCES:
        return fail(Errc::access_denied, "not allowed to connect to " + path.string() +
                                             ": the user must be in the socket's group");
      case EAGAIN: {
        // The backlog is full; AF_UNIX has no event for room in it.
        if (Clock::now() >= deadline)
          return fail(Errc::timed_out, "eclipd takes no connections on " + path.string());
        constexpr timespec pause{.tv_sec = 0, .tv_nsec = 1'000'000};
        ::nanosleep(&pause, nullptr);
        continue;
      }
      default:
        return fail_errno(errno, "connect to " + path.string());
    }
  }
  return socket;
}

Result<ReceivedMessage> await_message(int socket, std::chrono::milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  while (true) {
    auto received = receive_message(socket);
    if (!received) return tl::unexpected(received.error());
    if (received->has_value()) {
      if (auto checked = check_header((*received)->message.header); !checked)
        return tl::unexpected(checked.error());
      return std::move(**received);
    }
    if (auto waited = wait_for(socket, POLLIN, deadline); !waited)
      return tl::unexpected(waited.error());
  }
}

Result<ReceivedMessage> exchange(int socket, const Message& request, std::span<const int> fds,
                                 std::chrono::milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  while (true) {
    auto sent = send_message(socket, request, fds);
    if (sent) break;
    if (sent.error().code != Errc::again) return tl::unexpected(sent.error());
    if (auto waited = wait_for(socket, POLLOUT, deadline); !waited)
      return tl::unexpected(waited.error());
  }
  ECLIP_TESTPOINT("request_sent");
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    auto reply = await_message(socket, left);
    if (!reply) return reply;
    // A reply to an earlier request that timed out is of no use any more.
    if (reply->message.header.sequence != request.header.sequence) continue;
    if (reply->message.header.type == MessageType::error)
      return tl::unexpected(error_of(reply->message));
    return reply;
  }
}

}  // namespace eclip
