// Service: what it reports to eclipctl.
#include <unistd.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <tuple>
#include <type_traits>

#include "daemon/processes.h"
#include "daemon/service.h"
#include "ipc/kfd_command.h"

namespace eclip::daemon {
namespace {

std::uint64_t milliseconds_since(std::chrono::steady_clock::time_point since) {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                        std::chrono::steady_clock::now() - since)
                                        .count());
}

}  // namespace

StatusReply Service::status() const {
  StatusReply reply{};
  reply.version.assign(ECLIP_VERSION);
  reply.gpu_name.assign(device_->topology().name);
  reply.pid = static_cast<std::uint32_t>(::getpid());
  reply.gpu_node = device_->topology().node.value;
  reply.gpu_cu_count = device_->topology().cu_count;
  reply.stream_count = static_cast<std::uint32_t>(pool_size_);
  for (std::uint32_t i = 0; i < pool_size_; ++i)
    if (!table_->use_of(StreamId{i}).holders.empty()) ++reply.streams_leased;
  reply.leases_queued = table_->queued();
  reply.stream_budget = Board::max_streams;
  reply.workers = static_cast<std::uint32_t>(clients_.size());
  reply.uptime_ms = milliseconds_since(started_);
  for (std::uint32_t i = 0; i < queues_.size(); ++i)
    reply.packets_forwarded += forwarder_->packets(StreamId{i});
  reply.dispatches_forwarded = forwarder_->dispatches();
  reply.workers_cut_off = workers_cut_off_;
  reply.queue_ioctls_since_ready = device_->queue_ioctls() - queue_ioctls_at_start_;
  const auto energy = power_->energy_uj();
  const auto power = power_->power_uw();
  reply.has_power = energy && power ? 1 : 0;
  reply.energy_uj = energy.value_or(0);
  reply.power_mw = static_cast<std::uint32_t>(power.value_or(0) / 1000);
  if (ioctl_probe_) {
    const auto total = ioctl_probe_->total();
    reply.has_kfd_ioctls = total ? 1 : 0;
    reply.kfd_ioctls = total.value_or(0);
  }
  reply.device_time_rate = board().device_time_rate.load();
  reply.budget_tier = budget_tier();
  return reply;
}

std::vector<StreamRecord> Service::streams() const {
  std::vector<StreamRecord> records;
  for (std::uint32_t i = 0; i < queues_.size(); ++i) {
    const StreamId stream{i};
    const auto use = table_->use_of(stream);
    const auto stuck = stuck_.find(stream);
    // Queues without a mask are of interest while somebody has them.
    if (table_->is_unmasked(stream) && use.scheduled == 0 && stuck == stuck_.end()) continue;
    StreamRecord record{};
    record.stream = i;
    record.cu_count = table_->cu_count(stream);
    record.scheduled = use.scheduled;
    if (stuck != stuck_.end()) {
      record.stuck_worker = stuck->second.packet.worker.value;
      record.stuck_lease = stuck->second.packet.lease.value;
      record.stuck_packet = stuck->second.packet.packet;
      record.stuck_kernel = stuck->second.packet.kernel;
      record.stuck_ms = static_cast<std::uint32_t>(
          std::min<std::uint64_t>(milliseconds_since(stuck->second.since), UINT32_MAX));
    }
    record.lease = use.holders.empty() ? 0 : use.holders.front().value;
    record.holders = static_cast<std::uint32_t>(use.holders.size());
    record.packets = forwarder_->packets(StreamId{i});
    record.draining = use.holders.empty() && use.draining ? 1 : 0;
    if (!table_->is_unmasked(stream)) record.mask.assign(table_->masks()[i].to_string());
    records.push_back(record);
  }
  return records;
}

std::vector<ClientRecord> Service::clients() {
  account_energy();
  std::vector<ClientRecord> records;
  for (const auto& [id, client] : clients_) {
    ClientRecord record{};
    record.worker = id;
    record.pid = static_cast<std::uint32_t>(client.pid);
    record.uid = client.uid;
    record.leases = static_cast<std::uint32_t>(leases_of_worker(WorkerId{id}));
    record.kernels = static_cast<std::uint32_t>(client.worker->kernels());
    record.memory_objects = static_cast<std::uint32_t>(client.worker->memory_objects());
    record.fault = client.fault;
    record.memory_bytes = client.worker->memory_bytes();
    record.packets = client.worker->forwarded()->packets.load(std::memory_order_relaxed);
    record.connected_ms = milliseconds_since(client.since);
    record.device_us = client.worker->forwarded()->device_ns.load(std::memory_order_relaxed) / 1000;
    record.energy_mj = energy_.energy_uj(WorkerId{id}) / 1000;
    record.name.assign(client.worker->name());
    record.command.assign(client.command);
    records.push_back(record);
  }
  return records;
}

std::vector<LeaseRecord> Service::leases() const {
  const auto now = Clock::now();
  std::vector<LeaseRecord> records;
  for (const auto& [id, lease] : table_->leases()) {
    const HeldLease& held = leases_.at(id);
    LeaseRecord record{};
    record.lease = id;
    record.worker = lease.worker.value;
    record.stream = !lease.stream                        ? LeaseAcquire::any_stream
                    : table_->is_unmasked(*lease.stream) ? Scheduled::no_mask
                                                         : lease.stream->value;
    record.cu_count = lease.stream ? table_->cu_count(*lease.stream) : 0;
    record.scheduled = lease.scheduled ? 1 : 0;
    record.pid = static_cast<std::uint32_t>(held.pid);
    record.state = static_cast<std::uint32_t>(lease.state);
    record.reason = static_cast<std::uint32_t>(lease.reason);
    record.priority = lease.terms.priority;
    record.share_percent = lease.terms.share_percent;
    if (lease.state == LeaseState::queued) record.position = table_->position(LeaseId{id});
    record.packets = held.use->packets.load(std::memory_order_relaxed);
    record.device_us = held.use->device_ns.load(std::memory_order_relaxed) / 1000;
    record.held_ms = milliseconds_since(lease.since);
    if (lease.deadline)
      record.deadline_ms = static_cast<std::uint64_t>(
          std::max(std::chrono::ceil<std::chrono::milliseconds>(*lease.deadline - now),
                   std::chrono::milliseconds(1))
              .count());
    records.push_back(record);
  }
  return records;
}

Result<ScheduleRecord> Service::schedule_of(WorkerId id) const {
  const auto client = clients_.find(id.value);
  if (client == clients_.end())
    return fail(Errc::not_found, "worker " + std::to_string(id.value) +
                                     " is not connected; eclipctl client list shows who is");
  const Worker& worker = *client->second.worker;
  ScheduleRecord record{};
  record.worker = id.value;
  if (!worker.scheduled_as || !table_->is_scheduled(id)) return record;
  record.is_scheduled = 1;
  record.latency_class = static_cast<std::uint32_t>(*worker.scheduled_as);
  if (plans_ && (*plans_)->has_part(id)) {
    record.has_part = 1;
    record.seat = (*plans_)->seat_of(id).value_or(0);
    record.drift_permille = (*plans_)->drift_permille(id);
    record.is_active = active_set().workers.load(std::memory_order_relaxed) >> record.seat & 1U;
  }
  const SchedulerReport& report = worker.request_region().payload<const WorkerRequest>().scheduler;
  const auto copy = [](const auto& words, auto& into) {
    static_assert(std::tuple_size_v<std::decay_t<decltype(words)>> <=
                  std::tuple_size_v<std::decay_t<decltype(into)>>);
    std::transform(words.begin(), words.end(), into.begin(),
                   [](const auto& word) { return word.load(std::memory_order_relaxed); });
  };
  record.requests = report.requests.load(std::memory_order_relaxed);
  record.scheduled = report.scheduled.load(std::memory_order_relaxed);
  copy(report.bypassed, record.bypassed);
  copy(report.switches, record.switches);
  record.barriers = report.barriers.load(std::memory_order_relaxed);
  record.packets = worker.forwarded()->packets.load(std::memory_order_relaxed);
  return record;
}

Result<std::vector<IoctlRecord>> Service::ioctls() const {
  if (!ioctl_probe_) return tl::unexpected(ioctl_probe_.error());
  const auto costs = ioctl_probe_->costs();
  if (!costs) return tl::unexpected(costs.error());
  std::map<std::uint32_t, std::string> commands;  // of processes, by pid
  std::vector<IoctlRecord> records;
  for (const auto& cost : *costs) {
    IoctlRecord record{};
    record.pid = static_cast<std::uint32_t>(cost.pid);
    record.number = cost.number;
    record.count = cost.count;
    record.errors = cost.errors;
    record.total_ns = cost.total_ns;
    record.errors_ns = cost.errors_ns;
    record.max_ns = cost.max_ns;
    std::transform(cost.buckets.begin(), cost.buckets.end(), record.buckets.begin(),
                   [](std::uint64_t count) {
                     return static_cast<std::uint32_t>(std::min<std::uint64_t>(count, UINT32_MAX));
                   });
    const auto [command, is_new] = commands.try_emplace(record.pid);
    if (is_new && cost.pid != 0) command->second = facts_of(cost.pid).command;
    record.command.assign(command->second);
    records.push_back(record);
  }
  return records;
}

Result<std::vector<KfdProcessRecord>> Service::kfd_processes() const {
  const auto queues = all_queues();
  if (!queues) return tl::unexpected(queues.error());
  std::map<pid_t, KfdProcessRecord> by_pid;
  if (ioctl_probe_) {
    const auto costs = ioctl_probe_->costs();
    if (!costs) return tl::unexpected(costs.error());
    for (const auto& cost : *costs) {
      if (cost.pid == 0) continue;
      KfdProcessRecord& record = by_pid[cost.pid];
      record.ioctls += cost.count;
      record.errors += cost.errors;
      if (cost.number != static_cast<std::uint32_t>(KfdCommand::wait_events))
        record.total_ns += cost.total_ns;
    }
  }
  for (const auto& of : *queues) {
    KfdProcessRecord& record = by_pid[of.pid];
    if (of.gpu_id != device_->topology().driver_id) {
      record.queues_elsewhere += of.alive;
      continue;
    }
    record.queues += of.alive;
    record.masked_queues += of.masked;
    record.queues_from_before += of.from_before;
  }
  std::vector<KfdProcessRecord> records;
  for (auto& [pid, record] : by_pid) {
    const ProcessFacts facts = facts_of(pid);
    record.pid = static_cast<std::uint32_t>(pid);
    record.uid = facts.uid;
    record.command.assign(facts.command);
    if (pid == ::getpid())
      record.role = KfdProcessRecord::eclipd;
    else if (std::any_of(clients_.begin(), clients_.end(),
                         [pid = pid](const auto& each) { return each.second.pid == pid; }))
      record.role = KfdProcessRecord::worker;
    records.push_back(record);
  }
  return records;
}

BudgetTier Service::budget_tier() const {
  BudgetTier tier{};
  tier.policy = config_.budget.policy;
  if (ioctl_probe_) tier.kind = BudgetTier::tracepoints;
  if (!guard_) return tier;
  const auto state = guard_->state();
  if (!state) return tier;
  tier.kind = BudgetTier::guard;
  tier.policy = state->policy == guard_enforce ? BudgetTier::enforce : BudgetTier::audit;
  tier.verdict = static_cast<std::uint32_t>(state->tier.verdict);
  tier.accounting = state->tier.accounting;
  return tier;
}

BudgetReply Service::budget() const {
  BudgetReply reply{};
  reply.budget = Board::max_streams;
  reply.pool_streams = static_cast<std::uint32_t>(pool_size_);
  reply.hardware_slots = device_->topology().hardware_queue_slots;
  reply.vmids = device_->topology().vmids;
  reply.masked_queues = reply.pool_streams;
  reply.queues = static_cast<std::uint32_t>(queues_.size());
  reply.processes = 1;
  reply.tier = budget_tier();
  if (!guard_) reply.why.assign(guard_.error().message());
  const auto queues = all_queues();
  if (!queues) {
    reply.tier.kind = BudgetTier::none;
    if (guard_ || config_.budget.policy == BudgetTier::off)
      reply.why.assign(queues.error().message());
    return reply;
  }
  if (ioctl_probe_) reply.unseen = ioctl_probe_->unseen();
  for (const auto& of : *queues) {
    if (of.pid == ::getpid() || of.gpu_id != device_->topology().driver_id) continue;
    reply.queues += of.alive;
    reply.masked_queues += of.masked;
    ++reply.processes;
  }
  if (!guard_) return reply;
  const auto state = guard_->state();
  if (!state) {
    reply.why.assign(state.error().message());
    return reply;
  }
  reply.unseen += state->unaccounted;
  reply.refused = std::accumulate(state->refused.begin(), state->refused.end(), std::uint64_t{0});
  reply.audited = std::accumulate(state->audited.begin(), state->audited.end(), std::uint64_t{0});
  reply.unchecked = state->unchecked;
  reply.in_use = state->in_use;
  return reply;
}

Result<std::vector<DenialRecord>> Service::denials() const {
  if (!guard_) return tl::unexpected(guard_.error());
  return guard_->denials();
}

}  // namespace eclip::daemon
