#include "tools/eclipctl/query.h"

namespace eclip::ctl {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds timeout{2000};

/// A request without a payload.
struct Nothing {};

tl::unexpected<Error> unexpected_reply(const Message& message) {
  return fail(Errc::malformed, "eclipd answered with message type " +
                                   std::to_string(static_cast<unsigned>(message.header.type)) +
                                   "; install the same version of eclipd and eclipctl");
}

}  // namespace

Result<DaemonConnection> DaemonConnection::open(const std::filesystem::path& socket) {
  auto connected = connect_control(socket, timeout);
  if (!connected) return tl::unexpected(connected.error());
  return DaemonConnection(std::move(*connected));
}

template <class Answer>
Result<Answer> DaemonConnection::ask(MessageType request, MessageType answer) {
  const auto reply =
      exchange(socket_.get(), make_message(request, ++sequence_, Nothing{}), {}, timeout);
  if (!reply) return tl::unexpected(reply.error());
  if (reply->message.header.type != answer) return unexpected_reply(reply->message);
  return payload_of<Answer>(reply->message);
}

Result<StatusReply> DaemonConnection::status() {
  return ask<StatusReply>(MessageType::get_status, MessageType::status);
}
Result<BudgetReply> DaemonConnection::budget() {
  return ask<BudgetReply>(MessageType::get_budget, MessageType::budget);
}

template <class Record>
Result<std::vector<Record>> DaemonConnection::list(MessageType request, MessageType record) {
  const auto deadline = Clock::now() + timeout;
  std::vector<Record> records;
  auto reply = exchange(socket_.get(), make_message(request, ++sequence_, Nothing{}), {}, timeout);
  while (reply && reply->message.header.type != MessageType::end) {
    if (reply->message.header.type == MessageType::error)
      return tl::unexpected(error_of(reply->message));
    if (reply->message.header.type != record || reply->message.header.sequence != sequence_)
      return unexpected_reply(reply->message);
    records.push_back(payload_of<Record>(reply->message));
    reply = await_message(socket_.get(), std::chrono::duration_cast<std::chrono::milliseconds>(
                                             deadline - Clock::now()));
  }
  if (!reply) return tl::unexpected(reply.error());
  return records;
}

Result<std::vector<StreamRecord>> DaemonConnection::streams() {
  return list<StreamRecord>(MessageType::list_streams, MessageType::stream_record);
}
Result<std::vector<ClientRecord>> DaemonConnection::clients() {
  return list<ClientRecord>(MessageType::list_clients, MessageType::client_record);
}
Result<std::vector<LeaseRecord>> DaemonConnection::leases() {
  return list<LeaseRecord>(MessageType::list_leases, MessageType::lease_record);
}
Result<std::vector<IoctlRecord>> DaemonConnection::ioctls() {
  return list<IoctlRecord>(MessageType::list_ioctls, MessageType::ioctl_record);
}
Result<std::vector<KfdProcessRecord>> DaemonConnection::kfd_processes() {
  return list<KfdProcessRecord>(MessageType::list_kfd_processes, MessageType::kfd_process_record);
}
Result<std::vector<DenialRecord>> DaemonConnection::denials() {
  return list<DenialRecord>(MessageType::list_denials, MessageType::denial_record);
}

Result<void> DaemonConnection::revoke(std::uint64_t lease,
                                      std::optional<std::chrono::milliseconds> grace) {
  const LeaseRevoke request{
      .lease = lease,
      .grace_ms = grace ? static_cast<std::uint32_t>(grace->count()) : LeaseRevoke::default_grace,
      .reserved = 0};
  const auto reply = exchange(
      socket_.get(), make_message(MessageType::lease_revoke, ++sequence_, request), {}, timeout);
  if (!reply) return tl::unexpected(reply.error());
  if (reply->message.header.type != MessageType::ok) return unexpected_reply(reply->message);
  return {};
}

}  // namespace eclip::ctl
