#include "daemon/control_server.h"

#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <utility>

#include "ipc/printable.h"
#include "ipc/testpoint.h"

namespace eclip::daemon {
namespace {

// epoll tags: these, or a connection's id with its low bit telling socket from pidfd.
constexpr std::uint64_t tag_listen = 0;
constexpr std::uint64_t tag_signal = 1;
constexpr std::uint64_t tag_service = 2;
constexpr std::uint64_t first_connection = 16;

/// Workers are limited by workers.max_workers; this bounds those that never say hello, too.
constexpr std::size_t max_connections = 256;

std::uint64_t socket_tag(std::uint64_t id) {
  return (first_connection + id) << 1;
}
std::uint64_t pidfd_tag(std::uint64_t id) {
  return socket_tag(id) | 1;
}

/// How long epoll_wait may sleep: until the deadline, or for ever.
int timeout_until(std::optional<std::chrono::steady_clock::time_point> deadline) {
  if (!deadline) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(*deadline - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, INT_MAX));
}

Message ok(std::uint32_t sequence, std::uint64_t handle) {
  return make_message(MessageType::ok, sequence, Handle{handle});
}

}  // namespace

ControlServer::ControlServer(Service& service, int listening_fd, int signal_fd)
    : service_(service),
      listening_fd_(listening_fd),
      signal_fd_(signal_fd),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

ControlServer::~ControlServer() = default;

Result<void> ControlServer::watch(int fd, std::uint64_t tag, std::uint32_t events) const {
  epoll_event event{.events = events, .data = {.u64 = tag}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return fail_errno(errno, "watch a descriptor");
  return {};
}

Result<void> ControlServer::begin() {
  for (const auto& [fd, tag] :
       {std::pair{listening_fd_, tag_listen}, std::pair{signal_fd_, tag_signal},
        std::pair{service_.wake_fd(), tag_service}}) {
    if (fd < 0) continue;
    if (auto watched = watch(fd, tag, EPOLLIN); !watched) return watched;
  }
  begun_ = true;
  return {};
}

Result<void> ControlServer::run() {
  while (true) {
    service_.beat();
    const int beat_ms = static_cast<int>(Board::heartbeat_period.count());
    const int due_ms = timeout_until(service_.next_deadline());
    const auto goes_on = turn(due_ms < 0 ? beat_ms : std::min(due_ms, beat_ms));
    if (!goes_on) return tl::unexpected(goes_on.error());
    if (!*goes_on) return {};
  }
}

Result<bool> ControlServer::turn(int timeout_ms) {
  if (!begun_)
    if (auto begun = begin(); !begun) return tl::unexpected(begun.error());
  std::array<epoll_event, 64> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), timeout_ms);
  if (count < 0 && errno != EINTR) return fail_errno(errno, "wait for clients");
  service_.run_due();
  for (int i = 0; i < count; ++i) {
    const std::uint64_t tag = events[static_cast<std::size_t>(i)].data.u64;
    if (tag == tag_listen) {
      accept_clients();
    } else if (tag == tag_service) {
      if (auto done = service_.run_posted(); !done) return tl::unexpected(done.error());
    } else if (tag == tag_signal) {
      signalfd_siginfo signal{};
      if (::read(signal_fd_, &signal, sizeof signal) == sizeof signal) {
        spdlog::info("stopping on signal {}", signal.ssi_signo);
        return false;
      }
    } else {
      const std::uint64_t id = (tag >> 1) - first_connection;
      if (!connections_.contains(id)) continue;  // dropped by an event before this one
      if ((tag & 1) != 0)
        drop(id, "its process died");
      else
        serve(id, events[static_cast<std::size_t>(i)].events);
    }
  }
  return true;
}

void ControlServer::accept_clients() {
  while (true) {
    UniqueFd socket(::accept4(listening_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno == EMFILE || errno == ENFILE) {
        spdlog::error("no descriptors left: no new clients until one leaves");
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listening_fd_, nullptr);
        listening_ = false;
      } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        spdlog::error("accept a client: {}", std::generic_category().message(errno));
      }
      return;
    }
    take(std::move(socket));
  }
}

void ControlServer::take(UniqueFd socket) {
  if (connections_.size() >= max_connections) {
    if (!refusing_) spdlog::warn("{} connections: refusing more", max_connections);
    refusing_ = true;
    return;  // closes it
  }
  refusing_ = false;
  auto peer = identify_peer(socket.get());
  if (!peer) {
    spdlog::debug("{}", peer.error().message());
    return;
  }
  const std::uint64_t id = ++last_connection_;
  auto& connection =
      connections_.emplace(id, Connection{.socket = std::move(socket), .peer = std::move(*peer)})
          .first->second;
  auto watched = watch(connection.socket.get(), socket_tag(id), EPOLLIN);
  if (watched) watched = watch(connection.peer.pidfd.get(), pidfd_tag(id), EPOLLIN);
  if (!watched) {
    spdlog::error("{}", watched.error().message());
    drop(id, "it cannot be watched");
  }
}

void ControlServer::drop(std::uint64_t id, const char* why) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  spdlog::debug("connection of pid {} closed: {}", found->second.peer.pid, why);
  const auto worker = found->second.worker;
  ECLIP_TESTPOINT("worker_left");
  connections_.erase(found);
  if (worker) service_.remove_worker(*worker);
  if (!listening_) listening_ = watch(listening_fd_, tag_listen, EPOLLIN).has_value();
}

void ControlServer::serve(std::uint64_t id, std::uint32_t events) {
  Connection& connection = connections_.at(id);
  if ((events & EPOLLOUT) != 0) return flush(id, connection);
  if (connection.awaits_reply && (events & EPOLLHUP) == 0) return;
  auto request = receive_message(connection.socket.get());
  if (!request) {
    if (request.error().code == Errc::malformed)
      spdlog::warn("client pid {} dropped: {}", connection.peer.pid, request.error().message());
    return drop(id, "closed by the client");
  }
  if (!*request) return;
  const std::uint32_t sequence = (*request)->message.header.sequence;
  ECLIP_TESTPOINT("request_read");
  Result<std::optional<Reply>> reply{};
  if (auto checked = check_header((*request)->message.header); !checked)
    reply = tl::unexpected(checked.error());
  else
    reply = carry_out(id, connection, **request);
  if (!reply) {
    spdlog::debug("request of pid {} refused: {}", connection.peer.pid, reply.error().message());
    reply = Reply{.message = make_error(sequence, reply.error()), .fds = {}, .owned = {}};
  }
  if (*reply) {
    if (auto sent = send_message(connection.socket.get(), (*reply)->message, (*reply)->fds); !sent)
      return drop(id, "it does not read its replies");
  } else if (!connection.outgoing.empty()) {
    flush(id, connection);
  }
}

void ControlServer::flush(std::uint64_t id, Connection& connection) {
  while (!connection.outgoing.empty()) {
    const auto sent = send_message(connection.socket.get(), connection.outgoing.front());
    if (!sent && sent.error().code == Errc::again) break;
    if (!sent) return drop(id, "closed by the client");
    connection.outgoing.pop_front();
  }
  // While records wait for room, no further request is read: the queue cannot grow without limit.
  rearm(id, connection, connection.outgoing.empty() ? EPOLLIN : EPOLLOUT);
}

void ControlServer::rearm(std::uint64_t id, const Connection& connection,
                          std::uint32_t events) const {
  epoll_event event{.events = events, .data = {.u64 = socket_tag(id)}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.socket.get(), &event);
}

template <class Record>
void ControlServer::answer_list(Connection& connection, std::uint32_t sequence, MessageType type,
                                const std::vector<Record>& records) {
  for (const auto& record : records)
    connection.outgoing.push_back(make_message(type, sequence, record));
  connection.outgoing.push_back(make_message(MessageType::end, sequence, Handle{records.size()}));
}

Result<std::optional<ControlServer::Reply>> ControlServer::carry_out(
    std::uint64_t id, Connection& connection, const ReceivedMessage& request) {
  const Message& message = request.message;
  const std::uint32_t sequence = message.header.sequence;
  const WorkerId worker = connection.worker.value_or(WorkerId{0});
  const auto reply = [](Message answer, std::vector<int> fds = {}, UniqueFd owned = {}) {
    return std::optional(
        Reply{.message = answer, .fds = std::move(fds), .owned = std::move(owned)});
  };
  const auto granted = [&](Service::NewLease& lease) {
    const int fd = lease.ring_fd.get();
    return reply(make_message(MessageType::lease_granted, sequence, lease.reply), {fd},
                 std::move(lease.ring_fd));
  };
  switch (message.header.type) {
    case MessageType::hello: {
      if (connection.worker)
        return fail(Errc::invalid_argument, "this connection has said hello already");
      auto added = service_.add_worker(connection.peer, payload_of<Hello>(message));
      if (!added) return tl::unexpected(added.error());
      connection.worker = added->id;
      return reply(make_message(MessageType::welcome, sequence,
                                Welcome{.worker = added->id.value, .epoch = service_.epoch()}),
                   added->fds);
    }
    case MessageType::lease_acquire: {
      auto lease = service_.acquire_lease(worker, payload_of<LeaseAcquire>(message));
      if (!lease) return tl::unexpected(lease.error());
      ECLIP_TESTPOINT("lease_granted_unsaid");
      if (const auto* queued = std::get_if<LeaseQueued>(&*lease))
        return reply(make_message(MessageType::lease_queued, sequence, *queued));
      return granted(std::get<Service::NewLease>(*lease));
    }
    case MessageType::schedule: {
      auto scheduled = service_.schedule(worker, payload_of<Schedule>(message));
      if (!scheduled) return tl::unexpected(scheduled.error());
      ECLIP_TESTPOINT("scheduled_unsaid");
      const std::vector<int> fds{scheduled->active_set_fd, scheduled->rings_fd.get()};
      return reply(make_message(MessageType::scheduled, sequence, scheduled->reply), fds,
                   std::move(scheduled->rings_fd));
    }
    case MessageType::lease_claim: {
      auto lease = service_.claim_lease(worker, LeaseId{payload_of<Handle>(message).value});
      if (!lease) return tl::unexpected(lease.error());
      ECLIP_TESTPOINT("lease_claimed_unsaid");
      return granted(*lease);
    }
    case MessageType::lease_revoke: {
      const auto request_to_revoke = payload_of<LeaseRevoke>(message);
      if (auto revoked = service_.revoke_lease(connection.peer, request_to_revoke); !revoked)
        return tl::unexpected(revoked.error());
      return reply(ok(sequence, request_to_revoke.lease));
    }
    case MessageType::lease_release: {
      const LeaseId lease{payload_of<Handle>(message).value};
      if (auto released = service_.release_lease(worker, lease); !released)
        return tl::unexpected(released.error());
      ECLIP_TESTPOINT("lease_released_unsaid");
      return reply(ok(sequence, lease.value));
    }
    case MessageType::memory_allocate: {
      auto allocated = service_.allocate_memory(worker, payload_of<MemoryAllocate>(message));
      if (!allocated) return tl::unexpected(allocated.error());
      ECLIP_TESTPOINT("memory_granted_unsaid");
      std::vector<int> fds;
      if (allocated->fd) fds.push_back(allocated->fd.get());
      return reply(make_message(MessageType::memory_allocated, sequence, allocated->reply),
                   std::move(fds), std::move(allocated->fd));
    }
    case MessageType::memory_free: {
      const std::uint64_t handle = payload_of<Handle>(message).value;
      if (handle > UINT32_MAX)
        return fail(Errc::not_found, "memory handle " + std::to_string(handle) + " is not known");
      const auto done = [this, id, sequence, handle] {
        const auto found = connections_.find(id);
        if (found == connections_.end()) return;
        found->second.awaits_reply = false;
        found->second.outgoing.push_back(ok(sequence, handle));
        flush(id, found->second);
      };
      if (auto freeing = service_.free_memory(worker, static_cast<std::uint32_t>(handle), done);
          !freeing)
        return tl::unexpected(freeing.error());
      // No further request is read before the reply; a hang-up is still reported.
      connection.awaits_reply = true;
      rearm(id, connection, 0);
      return std::nullopt;
    }
    case MessageType::code_load: {
      if (request.fds.size() != 1)
        return fail(Errc::malformed,
                    "code_load comes with exactly one descriptor, the image's memfd");
      const auto code =
          service_.load_code(worker, payload_of<Handle>(message).value, request.fds.front().get());
      if (!code) return tl::unexpected(code.error());
      return reply(ok(sequence, *code));
    }
    case MessageType::kernel_register: {
      const auto kernel = service_.register_kernel(worker, payload_of<KernelRegister>(message));
      if (!kernel) return tl::unexpected(kernel.error());
      return reply(ok(sequence, *kernel));
    }
    case MessageType::get_status:
      return reply(make_message(MessageType::status, sequence, service_.status()));
    case MessageType::get_budget:
      return reply(make_message(MessageType::budget, sequence, service_.budget()));
    case MessageType::list_streams:
      answer_list(connection, sequence, MessageType::stream_record, service_.streams());
      return std::nullopt;
    case MessageType::list_clients:
      answer_list(connection, sequence, MessageType::client_record, service_.clients());
      return std::nullopt;
    case MessageType::list_leases:
      answer_list(connection, sequence, MessageType::lease_record, service_.leases());
      return std::nullopt;
    case MessageType::get_schedule: {
      const auto schedule = service_.schedule_of(WorkerId{payload_of<Handle>(message).value});
      if (!schedule) return tl::unexpected(schedule.error());
      return reply(make_message(MessageType::schedule_record, sequence, *schedule));
    }
    case MessageType::list_ioctls: {
      const auto ioctls = service_.ioctls();
      if (!ioctls) return tl::unexpected(ioctls.error());
      answer_list(connection, sequence, MessageType::ioctl_record, *ioctls);
      return std::nullopt;
    }
    case MessageType::list_kfd_processes: {
      const auto processes = service_.kfd_processes();
      if (!processes) return tl::unexpected(processes.error());
      answer_list(connection, sequence, MessageType::kfd_process_record, *processes);
      return std::nullopt;
    }
    case MessageType::list_denials: {
      const auto denials = service_.denials();
      if (!denials) return tl::unexpected(denials.error());
      answer_list(connection, sequence, MessageType::denial_record, *denials);
      return std::nullopt;
    }
    case MessageType::get_plan: {
      const auto plan = service_.plan(payload_of<Handle>(message).value);
      if (!plan) return tl::unexpected(plan.error());
      answer_list(connection, sequence, MessageType::plan_part, *plan);
      return std::nullopt;
    }
    case MessageType::list_plans: {
      const auto plans = service_.plans();
      if (!plans) return tl::unexpected(plans.error());
      answer_list(connection, sequence, MessageType::plan_record, *plans);
      return std::nullopt;
    }
    case MessageType::apply_plan: {
      if (request.fds.size() != 1)
        return fail(Errc::malformed, "apply_plan comes with exactly one descriptor, a memfd");
      const auto epoch = service_.apply_plan(connection.peer, payload_of<Handle>(message).value,
                                             request.fds.front().get());
      if (!epoch) return tl::unexpected(epoch.error());
      return reply(ok(sequence, *epoch));
    }
    case MessageType::choose_plan: {
      const auto epoch = service_.choose_plan(connection.peer, payload_of<PlanChoice>(message));
      if (!epoch) return tl::unexpected(epoch.error());
      return reply(ok(sequence, *epoch));
    }
    default:
      return fail(Errc::malformed, "message type " +
                                       std::to_string(static_cast<unsigned>(message.header.type)) +
                                       " is no request");
  }
}

}  // namespace eclip::daemon
