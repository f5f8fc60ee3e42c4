// A worker's requests to eclipd over the control socket.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <span>

#include "ipc/control_socket.h"
#include "ipc/messages.h"
#include "ipc/result.h"
#include "ipc/unique_fd.h"

namespace eclip {

/// The connected socket. Any thread may call anything.
class ControlChannel {
 public:
  ControlChannel(UniqueFd socket, std::chrono::milliseconds timeout);

  /// Sends a request and returns its reply of type `expected` or `alternative`. Errc::gone also in
  /// a child of fork(): the socket is its parent's. Errc::timed_out, Errc::malformed for another
  /// type of reply, and what eclipd's error reply says.
  template <class Payload>
  Result<ReceivedMessage> request(MessageType type, const Payload& payload, MessageType expected,
                                  std::span<const int> fds = {},
                                  std::optional<MessageType> alternative = {}) {
    return request(make_message(type, 0, payload), expected, fds, alternative);
  }

  /// Whether this is a child of the process that connected.
  [[nodiscard]] bool is_parents() const;
  /// For each request.
  [[nodiscard]] std::chrono::milliseconds timeout() const { return timeout_; }

  /// Whether eclipd has closed the connection; a system call.
  bool look_for_hangup();
  /// Whether a request or look_for_hangup found eclipd gone; one load.
  [[nodiscard]] bool gone() const { return gone_.load(std::memory_order_relaxed); }

 private:
  Result<ReceivedMessage> request(Message message, MessageType expected, std::span<const int> fds,
                                  std::optional<MessageType> alternative);

  UniqueFd socket_;
  std::chrono::milliseconds timeout_;
  pid_t owner_;
  /// One request at a time. Not a std::timed_mutex: GCC's ThreadSanitizer does not know the call
  /// that it makes (pthread_mutex_clocklock).
  class Turn;
  std::mutex mutex_;
  std::condition_variable turn_ended_;
  bool taken_ = false;          // guarded by mutex_
  std::uint32_t sequence_ = 0;  // of whoever has the turn
  std::atomic<bool> gone_ = false;
};

}  // namespace eclip
