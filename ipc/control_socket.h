// Sending and receiving control messages and file descriptors over a connected SOCK_SEQPACKET
// socket.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "ipc/messages.h"
#include "ipc/result.h"
#include "ipc/unique_fd.h"

namespace eclip {

/// Where eclipd listens unless told otherwise; libeclip and eclipctl also read $ECLIP_SOCKET.
inline constexpr const char* default_socket_path = "/run/eclip/eclipd.sock";

/// $ECLIP_SOCKET, or the default path.
std::filesystem::path socket_path_from_environment();

struct ReceivedMessage {
  Message message;
  std::vector<UniqueFd> fds;
};

/// Sends one message without blocking. Errc::again when the peer's buffer is full, Errc::gone when
/// the peer has closed.
Result<void> send_message(int socket, const Message& message, std::span<const int> fds = {});

/// Receives one message without blocking; nullopt when none is there. Errc::gone at end of stream,
/// Errc::malformed for a message of the wrong size; the header is not checked here.
Result<std::optional<ReceivedMessage>> receive_message(int socket);

/// Connects to eclipd within the deadline. Errc::gone: nobody listens there (eclipd is not
/// running); Errc::access_denied; Errc::timed_out.
Result<UniqueFd> connect_control(const std::filesystem::path& path,
                                 std::chrono::milliseconds timeout);

/// A client's side: sends a request and waits for the reply with its sequence number, within the
/// deadline. An error reply is returned as its Error. Errc::timed_out, Errc::gone.
Result<ReceivedMessage> exchange(int socket, const Message& request, std::span<const int> fds,
                                 std::chrono::milliseconds timeout);

/// Waits for the next message after exchange(): further records of a list.
Result<ReceivedMessage> await_message(int socket, std::chrono::milliseconds timeout);

}  // namespace eclip
