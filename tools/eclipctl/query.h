// Asking a running eclipd; no worker's handshake is needed for that.
#pragma once

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ipc/control_socket.h"
#include "ipc/messages.h"
#include "ipc/result.h"

namespace eclip::ctl {

/// A request without a payload.
struct Nothing {};

class DaemonConnection {
 public:
  /// Errc::gone when eclipd is not running.
  static Result<DaemonConnection> open(const std::filesystem::path& socket);

  Result<StatusReply> status();
  Result<std::vector<StreamRecord>> streams();
  Result<std::vector<ClientRecord>> clients();
  Result<std::vector<LeaseRecord>> leases();
  /// What a worker's scheduler reports. Errc::not_found.
  Result<ScheduleRecord> schedule(std::uint64_t worker);
  // Errc::unsupported, with the reason, when eclipd does not measure ioctls.
  Result<std::vector<IoctlRecord>> ioctls();
  Result<std::vector<KfdProcessRecord>> kfd_processes();
  Result<BudgetReply> budget();
  /// Errc::unsupported, with the reason, when there is no budget guard.
  Result<std::vector<DenialRecord>> denials();
  /// The plan of an epoch, or the one in force (0): eclip.plan/1 with what eclipd knows of it.
  /// Errc::not_found, Errc::unsupported: eclipd does not plan.
  Result<nlohmann::json> plan(std::uint64_t epoch);
  Result<std::vector<PlanRecord>> plans();
  // The epoch of the plan in force then; what eclipd refuses is an error.
  Result<std::uint64_t> apply_plan(const std::string& document);
  Result<std::uint64_t> choose_plan(PlanChoice::Action action, std::uint64_t epoch);
  /// Takes a lease back; without `grace`, with eclipd's configured one. What eclipd refuses is an
  /// error.
  Result<void> revoke(std::uint64_t lease, std::optional<std::chrono::milliseconds> grace);

 private:
  explicit DaemonConnection(UniqueFd socket) : socket_(std::move(socket)) {}

  /// The payload of a reply that is one message.
  template <class Answer, class Request = Nothing>
  Result<Answer> ask(MessageType request, MessageType answer, const Request& payload = {});
  /// The payloads of all records up to the end of the list.
  template <class Record, class Request = Nothing>
  Result<std::vector<Record>> list(MessageType request, MessageType record,
                                   const Request& payload = {});

  UniqueFd socket_;
  std::uint32_t sequence_ = 0;
};

}  // namespace eclip::ctl
