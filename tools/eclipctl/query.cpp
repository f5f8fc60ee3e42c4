#include "tools/eclipctl/query.h"

#include <algorithm>
#include <span>

#include "ipc/region.h"

namespace eclip::ctl {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds timeout{2000};

tl::unexpected<Error> unexpected_reply(const Message& message) {
  return fail(Errc::malformed, "eclipd answered with message type " +
                                   std::to_string(static_cast<unsigned>(message.header.type)) +
                                   "; install the same version of eclipd and eclipctl");
}

/// The handle of an ok.
Result<std::uint64_t> epoch_of(const Result<ReceivedMessage>& reply) {
  if (!reply) return tl::unexpected(reply.error());
  if (reply->message.header.type != MessageType::ok) return unexpected_reply(reply->message);
  return payload_of<Handle>(reply->message).value;
}

}  // namespace

Result<DaemonConnection> DaemonConnection::open(const std::filesystem::path& socket) {
  auto connected = connect_control(socket, timeout);
  if (!connected) return tl::unexpected(connected.error());
  return DaemonConnection(std::move(*connected));
}

template <class Answer, class Request>
Result<Answer> DaemonConnection::ask(MessageType request, MessageType answer,
                                     const Request& payload) {
  const auto reply =
      exchange(socket_.get(), make_message(request, ++sequence_, payload), {}, timeout);
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
Result<ScheduleRecord> DaemonConnection::schedule(std::uint64_t worker) {
  return ask<ScheduleRecord>(MessageType::get_schedule, MessageType::schedule_record,
                             Handle{worker});
}

template <class Record, class Request>
Result<std::vector<Record>> DaemonConnection::list(MessageType request, MessageType record,
                                                   const Request& payload) {
  const auto deadline = Clock::now() + timeout;
  std::vector<Record> records;
  auto reply = exchange(socket_.get(), make_message(request, ++sequence_, payload), {}, timeout);
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

Result<std::vector<PlanRecord>> DaemonConnection::plans() {
  return list<PlanRecord>(MessageType::list_plans, MessageType::plan_record);
}

Result<nlohmann::json> DaemonConnection::plan(std::uint64_t epoch) {
  const auto parts = list<PlanPart>(MessageType::get_plan, MessageType::plan_part, Handle{epoch});
  if (!parts) return tl::unexpected(parts.error());
  std::string text;
  for (const PlanPart& part : *parts)
    text.append(part.text.data(), std::min<std::size_t>(part.bytes, part.text.size()));
  auto document = nlohmann::json::parse(text, nullptr, false);
  if (document.is_discarded()) return fail(Errc::malformed, "eclipd's plan is no JSON");
  return document;
}

Result<std::uint64_t> DaemonConnection::apply_plan(const std::string& document) {
  const auto memfd = sealed_memfd_of("eclip-plan", std::as_bytes(std::span(document)));
  if (!memfd) return tl::unexpected(memfd.error());
  const int fd = memfd->get();
  return epoch_of(exchange(
      socket_.get(), make_message(MessageType::apply_plan, ++sequence_, Handle{document.size()}),
      {&fd, 1}, timeout));
}

Result<std::uint64_t> DaemonConnection::choose_plan(PlanChoice::Action action,
                                                    std::uint64_t epoch) {
  const PlanChoice choice{.epoch = epoch, .action = action, .reserved = 0};
  return epoch_of(exchange(
      socket_.get(), make_message(MessageType::choose_plan, ++sequence_, choice), {}, timeout));
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
