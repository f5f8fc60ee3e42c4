// Asking a running eclipd; no worker's handshake is needed for that.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <vector>

#include "ipc/control_socket.h"
#include "ipc/messages.h"
#include "ipc/result.h"

namespace eclip::ctl {

class DaemonConnection {
 public:
  /// Errc::gone when eclipd is not running.
  static Result<DaemonConnection> open(const std::filesystem::path& socket);

  Result<StatusReply> status();
  Result<std::vector<StreamRecord>> streams();
  Result<std::vector<ClientRecord>> clients();
  Result<std::vector<LeaseRecord>> leases();
  // Errc::unsupported, with the reason, when eclipd does not measure ioctls.
  Result<std::vector<IoctlRecord>> ioctls();
  Result<std::vector<KfdProcessRecord>> kfd_processes();
  Result<BudgetReply> budget();
  /// Errc::unsupported, with the reason, when there is no budget guard.
  Result<std::vector<DenialRecord>> denials();
  /// Takes a lease back; without `grace`, with eclipd's configured one. What eclipd refuses is an
  /// error.
  Result<void> revoke(std::uint64_t lease, std::optional<std::chrono::milliseconds> grace);

 private:
  explicit DaemonConnection(UniqueFd socket) : socket_(std::move(socket)) {}

  /// The payload of a reply that is one message.
  template <class Answer>
  Result<Answer> ask(MessageType request, MessageType answer);
  /// The payloads of all records up to the end of the list.
  template <class Record>
  Result<std::vector<Record>> list(MessageType request, MessageType record);

  UniqueFd socket_;
  std::uint32_t sequence_ = 0;
};

}  // namespace eclip::ctl
