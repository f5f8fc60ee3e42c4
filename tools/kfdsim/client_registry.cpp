#include "tools/kfdsim/client_registry.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <utility>

namespace eclip::kfdsim {
namespace {

/// Commands that the table names; the rest is in the total.
constexpr std::array<std::pair<const char*, std::uint8_t>, 8> table_columns{{
    {"create_queue", 0x02},
    {"destroy_queue", 0x03},
    {"update_queue", 0x07},
    {"set_cu_mask", 0x1a},
    {"alloc_memory", 0x16},
    {"map_memory", 0x18},
    {"wait_events", 0x0c},
    {"get_clock_counters", 0x05},
}};

void add(IoctlCounts& to, const IoctlCounts& from) {
  for (std::size_t i = 0; i < to.by_number.size(); ++i) {
    to.by_number.at(i) += from.by_number.at(i);
  }
}

std::string table_line(pid_t pid, std::string_view command, const IoctlCounts& counts) {
  std::string line = fmt::format("{} {} {}", pid, command, counts.total());
  for (const auto& [name, number] : table_columns) {
    line += fmt::format(" {}", counts.by_number.at(number));
  }
  return line + "\n";
}

}  // namespace

ClientRegistry::ClientRegistry(FuseConnection& connection, Gpu& gpu, MemoryBudget budget,
                               MemoryBudget limits, int epoll)
    : connection_(connection), gpu_(gpu), budget_(budget), limits_(limits), epoll_(epoll) {}

ClientRegistry::~ClientRegistry() {
  while (!by_pid_.empty()) remove(by_pid_.begin()->first);
}

ClientProcess* ClientRegistry::of_thread(pid_t tid) {
  const auto pid = process_of_thread(tid);
  if (!pid) return nullptr;
  if (ClientProcess* known = of_pid(*pid)) {
    if (known->has_thread(tid)) return known;
    // The pid was reused before the death of its former owner was noticed.
    remove(*pid);
  }
  auto created = ClientProcess::create(*pid, next_node_);
  if (!created) return nullptr;
  ClientProcess* client = created->get();
  epoll_event watch{};
  watch.events = EPOLLIN;
  watch.data.u64 = static_cast<std::uint64_t>(*pid);
  if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, client->pidfd(), &watch) != 0) return nullptr;
  next_node_ += 2;
  by_node_.emplace(client->kfd_node(), client);
  by_pid_.emplace(*pid, std::move(*created));
  return client;
}

ClientProcess* ClientRegistry::of_node(std::uint64_t node) {
  const auto found = by_node_.find(node & ~1ULL);
  return found == by_node_.end() ? nullptr : found->second;
}

ClientProcess* ClientRegistry::of_pid(pid_t pid) {
  const auto found = by_pid_.find(pid);
  return found == by_pid_.end() ? nullptr : found->second.get();
}

Result<void> ClientRegistry::provide_backing(ClientProcess& client) {
  if (client.backing) return {};
  auto created = connection_.mapping() == Mapping::passthrough ? back_with_memfd(client)
                                                               : back_with_own_files(client);
  if (!created) return tl::unexpected<Error>(std::move(created.error()));
  client.backing.emplace(std::move(*created));
  return {};
}

Result<BackingMemory> ClientRegistry::back_with_memfd(ClientProcess& client) {
  auto created = BackingMemory::create();
  if (!created) return created;
  auto id = connection_.open_backing(created->fd());
  if (!id) return tl::unexpected<Error>(std::move(id.error()));
  client.backing_id = *id;
  return created;
}

Result<BackingMemory> ClientRegistry::back_with_own_files(const ClientProcess& client) {
  auto kfd = connection_.open_device_file(client.kfd_node());
  if (!kfd) return tl::unexpected<Error>(std::move(kfd.error()));
  auto render = connection_.open_device_file(client.render_node());
  if (!render) return tl::unexpected<Error>(std::move(render.error()));
  return BackingMemory::of_devices(std::move(*kfd), std::move(*render));
}

void ClientRegistry::open_gpu(ClientProcess& client) {
  if (client.kfd_opens++ != 0) return;
  if (client.gpu) {
    if (client.gpu->user_memory.lives()) return;
    close_gpu(client);
    client.kfd_opens = 1;
  }
  client.gpu =
      std::make_unique<GpuContext>(client.pid(), client.command(), *client.backing, budget_,
                                   limits_, gpu_.description(), gpu_.known_kernels());
  gpu_.attach(*client.gpu);
}

void ClientRegistry::last_closed(ClientProcess& client) {
  // An exec closes the files when the address space is gone already.
  if (client.gpu && !client.gpu->user_memory.lives()) close_gpu(client);
}

void ClientRegistry::close_gpu(ClientProcess& client) {
  client.kfd_opens = 0;
  if (!client.gpu) return;
  gpu_.detach(*client.gpu);
  client.gpu->events.abandon_waits(EBADF);
  answer_waits();
  client.gpu.reset();
  client.backing->clear(BackingMemory::doorbell_offset, BackingMemory::doorbell_bytes);
  client.backing->clear(BackingMemory::mmio_offset, page_bytes);
}

void ClientRegistry::remove(pid_t pid) {
  ClientProcess* client = of_pid(pid);
  if (client == nullptr) return;
  close_gpu(*client);
  if (client->backing_id != 0) {
    connection_.close_backing(client->backing_id);
  } else if (client->backing) {
    // The kernel may remember the name under which the client opened it for long, and its pages.
    client->backing->clear_all();
  }
  // The pidfd leaves the epoll set when it is closed: nobody else holds it.
  add(ended_, client->ioctls);
  by_node_.erase(client->kfd_node());
  by_pid_.erase(pid);
}

std::optional<WallTime> ClientRegistry::answer_waits() {
  const WallTime now = WallTime::clock::now();
  while (!late_.empty() && late_.begin()->first <= now) {
    const LateAnswer& answer = late_.begin()->second;
    connection_.reply_ioctl(answer.request, answer.result, answer.out);
    late_.erase(late_.begin());
  }
  std::optional<WallTime> next;
  if (!late_.empty()) next = late_.begin()->first;
  for (auto& [pid, client] : by_pid_) {
    if (!client->gpu) continue;
    for (const FinishedWait& wait : client->gpu->events.take_finished(now)) {
      connection_.reply_ioctl(wait.request, wait.result,
                              std::as_bytes(std::span(&wait.arguments, 1)));
    }
    const auto timeout = client->gpu->events.next_timeout();
    if (timeout && (!next || *timeout < *next)) next = timeout;
  }
  return next;
}

void ClientRegistry::interrupt(std::uint64_t request) {
  for (auto& [pid, client] : by_pid_) {
    if (client->gpu && client->gpu->events.interrupt_wait(request)) return;
  }
}

std::string ClientRegistry::ioctl_table() const {
  std::string text = "pid command total";
  for (const auto& [name, number] : table_columns) text += fmt::format(" {}", name);
  text += "\n";
  IoctlCounts all = ended_;
  for (const auto& [pid, client] : by_pid_) {
    add(all, client->ioctls);
    std::string command = client->command();
    // One word, so that the columns stay columns.
    for (char& c : command) {
      if (c <= ' ') c = '_';
    }
    text += table_line(pid, command, client->ioctls);
  }
  return text + table_line(0, "all", all);
}

std::uint64_t ClientRegistry::ioctls_served() const {
  std::uint64_t total = ended_.total();
  for (const auto& [pid, client] : by_pid_) total += client->ioctls.total();
  return total;
}

}  // namespace eclip::kfdsim
