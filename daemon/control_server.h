// eclipd's control socket: connections, messages, the death of clients.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "daemon/config.h"
#include "daemon/peer.h"
#include "daemon/service.h"
#include "ipc/control_socket.h"
#include "ipc/unique_fd.h"

namespace eclip::daemon {

/// A listening socket that no other eclipd has; its file goes with the object.
class ListeningSocket {
 public:
  /// Errc::already_in_use when another eclipd listens there; the system's errors with the path.
  static Result<ListeningSocket> open(const Config& config);
  ListeningSocket(ListeningSocket&&) noexcept = default;
  ListeningSocket& operator=(ListeningSocket&&) noexcept = default;
  ListeningSocket(const ListeningSocket&) = delete;
  ListeningSocket& operator=(const ListeningSocket&) = delete;
  ~ListeningSocket();
  [[nodiscard]] int fd() const { return socket_.get(); }
  /// In the serving process: the socket without the lock, which is the supervisor's alone.
  [[nodiscard]] int fd_for_serving() {
    lock_.reset();
    return socket_.get();
  }

 private:
  ListeningSocket(UniqueFd lock, UniqueFd socket, std::filesystem::path path)
      : lock_(std::move(lock)), socket_(std::move(socket)), path_(std::move(path)) {}
  UniqueFd lock_;
  UniqueFd socket_;
  std::filesystem::path path_;
};

/// Serves clients on one thread until a signal says stop.
class ControlServer {
 public:
  /// All must outlive it. A descriptor may be negative: there is none (tests).
  ControlServer(Service& service, int listening_fd, int signal_fd);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  /// Returns after SIGTERM or SIGINT on the signalfd. Errors: epoll's, and that the GPU has failed.
  Result<void> run();

  /// Takes what has happened, after waiting for it at most so long (-1: for ever). False: a signal
  /// said stop. Errors as of run().
  Result<bool> turn(int timeout_ms);
  /// A connected client, as if it had come through the listening socket.
  void take(UniqueFd socket);

 private:
  struct Connection {
    UniqueFd socket;
    Peer peer;
    std::optional<WorkerId> worker;
    std::deque<Message> outgoing;  ///< records that did not fit into the socket's buffer
    bool awaits_reply = false;     ///< a reply comes later; no request is read before it
  };
  struct Reply {
    Message message;
    std::vector<int> fds;
    UniqueFd owned;  ///< one of fds, closed after sending
  };

  Result<void> watch(int fd, std::uint64_t tag, std::uint32_t events) const;
  Result<void> begin();
  void accept_clients();
  void serve(std::uint64_t id, std::uint32_t events);
  void drop(std::uint64_t id, const char* why);
  void flush(std::uint64_t id, Connection& connection);
  void rearm(std::uint64_t id, const Connection& connection, std::uint32_t events) const;
  /// Carries out a request. nullopt: a reply follows later, or `outgoing` has been filled.
  Result<std::optional<Reply>> carry_out(std::uint64_t id, Connection& connection,
                                         const ReceivedMessage& request);
  template <class Record>
  static void answer_list(Connection& connection, std::uint32_t sequence, MessageType type,
                          const std::vector<Record>& records);

  Service& service_;
  const int listening_fd_;
  const int signal_fd_;
  UniqueFd epoll_;
  bool begun_ = false;
  bool listening_ = true;  ///< false: no descriptors were left
  bool refusing_ = false;  ///< there are max_connections; said once
  std::uint64_t last_connection_ = 0;
  std::map<std::uint64_t, Connection> connections_;
};

}  // namespace eclip::daemon
