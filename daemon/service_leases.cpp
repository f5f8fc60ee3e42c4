// Service: the life of leases. The table decides (daemon/lease_table.h); here it is carried out.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "daemon/service.h"
#include "ipc/active_set.h"
#include "ipc/futex.h"
#include "ipc/testpoint.h"

namespace eclip::daemon {
namespace {

/// Between looks at the energy counter while leases are held; also how exact the shares are.
constexpr std::chrono::seconds energy_tick{1};
/// Between looks at what workers say of their load.
constexpr std::chrono::seconds loads_tick{1};

std::uint64_t to_words(std::optional<LeaseTable::Time> time) {
  if (!time) return 0;
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(time->time_since_epoch()).count());
}

/// A step of a slot that is the control thread's own.
void store(LeaseSlot& words, const LeaseTable::Change& change) {
  words.reason.store(static_cast<std::uint32_t>(change.reason), std::memory_order_relaxed);
  words.deadline_ns.store(to_words(change.deadline), std::memory_order_relaxed);
  if (change.to == LeaseState::offered) ECLIP_TESTPOINT("offer_unpublished");
  words.state.store(static_cast<std::uint32_t>(change.to), std::memory_order_release);
  futex_wake_all(words.state);
}

}  // namespace

Result<LeaseTable::Terms> Service::terms_of(const Client& client,
                                            const LeaseAcquire& request) const {
  const UidLimits& limits = limits_of(config_, client.uid);
  const auto user = "uid " + std::to_string(client.uid);
  if (request.share_percent > 100)
    return fail(Errc::invalid_argument, "a share of " + std::to_string(request.share_percent) +
                                            " percent; it must be at most 100");
  if (request.priority > static_cast<std::uint32_t>(LeasePriority::high))
    return fail(Errc::invalid_argument, "there is no priority " + std::to_string(request.priority));
  if (request.priority > static_cast<std::uint32_t>(limits.max_priority))
    return fail(Errc::access_denied,
                user + " may not ask for this priority (max_priority of [leases] or [[limits]])");
  if (auto checked = check_lease_count(client); !checked) return tl::unexpected(checked.error());
  LeaseTable::Terms terms{.stream = {},
                          .cu_count = request.cu_count,
                          .share_percent = request.share_percent,
                          .priority = request.priority,
                          .wait = std::chrono::milliseconds(request.wait_ms),
                          .duration = std::chrono::milliseconds(request.duration_ms)};
  if (request.stream != LeaseAcquire::any_stream) terms.stream = StreamId{request.stream};
  if (limits.max_share_percent < 100)
    terms.share_percent = terms.share_percent == 0
                              ? limits.max_share_percent
                              : std::min(terms.share_percent, limits.max_share_percent);
  return terms;
}

Result<Worker*> Service::find_unbroken(WorkerId id) {
  auto worker = find(id);
  if (worker && clients_.at(id.value).fault != 0)
    return fail(Errc::access_denied, "this worker was cut off for a bad packet; reconnect");
  return worker;
}

std::uint64_t Service::leases_of_user(uid_t uid) const {
  std::uint64_t count = 0;
  for (const auto& [id, client] : clients_)
    if (client.uid == uid) count += leases_of_worker(WorkerId{id});
  return count;
}

std::uint64_t Service::leases_of_worker(WorkerId worker) const {
  const auto& leases = table_->leases();
  const auto own = std::count_if(leases.begin(), leases.end(), [worker](const auto& each) {
    return each.second.worker == worker && !each.second.released && !each.second.scheduled;
  });
  return static_cast<std::uint64_t>(own) + (table_->is_scheduled(worker) ? 1 : 0);
}

Result<void> Service::check_lease_count(const Client& client) const {
  const std::uint64_t held = leases_of_user(client.uid);
  if (held < limits_of(config_, client.uid).max_leases) return {};
  return fail(Errc::quota_exceeded, "uid " + std::to_string(client.uid) + " has " +
                                        std::to_string(held) +
                                        " leases, as many as it may (max_leases of [leases] or "
                                        "[[limits]])");
}

Result<Region> Service::create_ring() const {
  return Region::create("eclip-lease-ring", RegionKind::lease_ring, sizeof(LeaseRing),
                        RegionWriter::both, epoch_);
}

Result<std::variant<Service::NewLease, LeaseQueued>> Service::acquire_lease(
    WorkerId id, const LeaseAcquire& request) {
  auto worker = find_unbroken(id);
  if (!worker) return tl::unexpected(worker.error());
  const Client& client = clients_.at(id.value);
  const auto slots = (*worker)->free_lease_slots();
  if (slots.empty())
    return fail(Errc::quota_exceeded, "this worker has " + std::to_string(max_leases_per_worker) +
                                          " leases, as many as it may; release one");
  const auto terms = terms_of(client, request);
  if (!terms) return tl::unexpected(terms.error());
  auto region = create_ring();
  if (!region) return tl::unexpected(region.error());
  const auto lease = table_->acquire(id, *terms, Clock::now());
  if (!lease) return tl::unexpected(lease.error());
  hold_lease(*lease, client, slots.front());
  carry_out_changes();
  if (table_->find(*lease)->state == LeaseState::active) {
    auto opened = open_lease(*lease, std::move(*region));
    if (!opened) return tl::unexpected(opened.error());
    return std::move(*opened);
  }
  const std::uint32_t position = table_->position(*lease);
  spdlog::debug("lease {} of worker {} is queued, {} before it", lease->value, id.value, position);
  return LeaseQueued{.lease = lease->value, .slot = slots.front(), .position = position};
}

void Service::hold_lease(LeaseId lease, const Client& client, std::uint32_t slot) {
  const auto& forwarded = client.worker->forwarded();
  LeaseSlot& words = client.worker->lease_slot(slot);
  words.lease.store(lease.value, std::memory_order_relaxed);
  words.accepted.store(0, std::memory_order_relaxed);
  leases_.emplace(lease.value,
                  HeldLease{.worker = forwarded->id,
                            .pid = client.pid,
                            .uid = client.uid,
                            .slot = slot,
                            .words = &words,
                            .renewals = forwarded->request->leases[slot].renewals.load(),
                            .forwarded = forwarded,
                            .use = std::make_shared<LeaseUse>()});
}

Result<Service::NewSchedule> Service::schedule(WorkerId id, const Schedule& request) {
  auto worker = find_unbroken(id);
  if (!worker) return tl::unexpected(worker.error());
  const Client& client = clients_.at(id.value);
  const UidLimits& limits = limits_of(config_, client.uid);
  if (request.latency_class > static_cast<std::uint32_t>(LatencyClass::latency))
    return fail(Errc::invalid_argument,
                "there is no latency class " + std::to_string(request.latency_class));
  if (table_->is_scheduled(id))
    return fail(Errc::already_in_use, "this worker has its scheduled leases; release them first");
  if (limits.max_share_percent < 100)
    return fail(Errc::access_denied, "uid " + std::to_string(client.uid) + " may have " +
                                         std::to_string(limits.max_share_percent) +
                                         " percent of the CUs, and a scheduled worker uses all "
                                         "streams (max_share_percent of [leases] or [[limits]]); "
                                         "lease a stream instead");
  if (auto checked = check_lease_count(client); !checked) return tl::unexpected(checked.error());
  std::vector<std::uint32_t> slots = (*worker)->free_lease_slots();
  const std::size_t most = std::min(pool_size_ + 1, queues_.size());
  if (slots.size() < most)
    return fail(Errc::quota_exceeded,
                "this worker has " + std::to_string(max_leases_per_worker - slots.size()) + " of " +
                    std::to_string(max_leases_per_worker) + " leases, and " + std::to_string(most) +
                    " are needed: release some");
  auto created = Region::create("eclip-lease-rings", RegionKind::lease_rings, sizeof(LeaseRings),
                                RegionWriter::both, epoch_);
  if (!created) return tl::unexpected(created.error());
  UniqueFd rings_fd(::dup(created->fd()));
  if (!rings_fd) return fail_errno(errno, "duplicate the lease rings' descriptor");
  const auto granted = table_->schedule(id, Clock::now());
  if (!granted) return tl::unexpected(granted.error());

  const auto region = std::make_shared<const Region>(std::move(*created));
  NewSchedule schedule{
      .reply = {}, .active_set_fd = active_set_region_->fd(), .rings_fd = std::move(rings_fd)};
  for (std::size_t i = 0; i < granted->size(); ++i) hold_lease((*granted)[i], client, slots[i]);
  carry_out_changes();
  for (std::size_t i = 0; i < granted->size(); ++i) {
    const LeaseId lease = (*granted)[i];
    const HeldLease& held = leases_.at(lease.value);
    const StreamId stream = *table_->find(lease)->stream;
    forwarder_->open_lease(held.forwarded,
                           std::make_unique<ForwardedLease>(ForwardedLease{
                               .id = lease,
                               .stream = stream,
                               .region = region,
                               .reader = LeaseRingReader(region->payload<LeaseRings>().rings[i]),
                               .slot = held.words,
                               .scheduled = true,
                               .latency_class = static_cast<LatencyClass>(request.latency_class),
                               .use = held.use,
                               .on_closed = [this, lease] {
                                 mailbox_.post([this, lease] { lease_has_closed(lease); });
                               }}));
    schedule.reply.leases[schedule.reply.count++] = {
        .lease = lease.value,
        .stream = table_->is_unmasked(stream) ? Scheduled::no_mask : stream.value,
        .cu_count = table_->cu_count(stream),
        .slot = held.slot,
        .reserved = 0};
  }
  (*worker)->scheduled_as = static_cast<LatencyClass>(request.latency_class);
  spdlog::info("worker {} '{}' is scheduled: {} streams{}", id.value, (*worker)->name(), pool_size_,
               granted->size() > pool_size_ ? " and a queue without a CU mask" : "");
  return schedule;
}

void Service::clear_active(WorkerId worker) {
  if (!plans_) return;
  if (const auto seat = (*plans_)->seat_of(worker)) active_set().workers.fetch_and(~(1U << *seat));
}

Result<Service::NewLease> Service::claim_lease(WorkerId id, LeaseId lease) {
  auto worker = find(id);
  if (!worker) return tl::unexpected(worker.error());
  auto region = create_ring();
  if (!region) return tl::unexpected(region.error());
  if (auto claimed = table_->claim(lease, id, Clock::now()); !claimed)
    return tl::unexpected(claimed.error());
  carry_out_changes();
  return open_lease(lease, std::move(*region));
}

Result<Service::NewLease> Service::open_lease(LeaseId id, Region region) {
  const LeaseTable::Lease& lease = *table_->find(id);
  const HeldLease& held = leases_.at(id.value);
  const StreamId stream = *lease.stream;
  UniqueFd ring_fd(::dup(region.fd()));
  const int dup_error = errno;
  const auto shared = std::make_shared<const Region>(std::move(region));
  LeaseRing& ring = shared->payload<LeaseRing>();
  forwarder_->open_lease(
      held.forwarded,
      std::make_unique<ForwardedLease>(ForwardedLease{
          .id = id,
          .stream = stream,
          .region = shared,
          .reader = LeaseRingReader(ring),
          .slot = held.words,
          .weight = lease.terms.share_percent == 0 ? 100 : lease.terms.share_percent,
          .use = held.use,
          .on_closed = [this, id] { mailbox_.post([this, id] { lease_has_closed(id); }); }}));
  if (!ring_fd) {
    static_cast<void>(release_lease(lease.worker, id));
    return fail_errno(dup_error, "duplicate a lease ring's descriptor");
  }
  const std::uint32_t cu_count = table_->masks()[stream.value].count();
  spdlog::debug("lease {}: stream {} ({} CUs) for worker {}", id.value, stream.value, cu_count,
                lease.worker.value);
  return NewLease{.reply = {.lease = id.value,
                            .stream = stream.value,
                            .cu_count = cu_count,
                            .slot = held.slot,
                            .reserved = 0},
                  .ring_fd = std::move(ring_fd)};
}

Result<void> Service::release_lease(WorkerId id, LeaseId lease) {
  auto worker = find(id);
  if (!worker) return tl::unexpected(worker.error());
  auto released = table_->release(lease, id, Clock::now());
  carry_out_changes();
  return released;
}

Result<void> Service::revoke_lease(const Peer& by, const LeaseRevoke& request) {
  const auto found = leases_.find(request.lease);
  if (found == leases_.end())
    return fail(Errc::not_found, "there is no lease " + std::to_string(request.lease) +
                                     "; 'eclipctl lease list' shows which there are");
  if (by.uid != 0 && by.uid != found->second.uid)
    return fail(Errc::access_denied, "lease " + std::to_string(request.lease) +
                                         " is of another user; only root and uid " +
                                         std::to_string(found->second.uid) + " may revoke it");
  const auto grace = request.grace_ms == LeaseRevoke::default_grace
                         ? config_.leases.grace
                         : std::chrono::milliseconds(request.grace_ms);
  auto revoked =
      table_->revoke(LeaseId{request.lease}, LeaseEnd::administrator, grace, Clock::now());
  if (revoked)
    spdlog::info(
        "lease {} of worker {} (pid {}) is revoked by pid {} of uid {}, with {} ms of grace",
        request.lease, found->second.worker.value, found->second.pid, by.pid, by.uid,
        grace.count());
  carry_out_changes();
  return revoked;
}

void Service::lease_has_closed(LeaseId lease) {
  account_energy();
  table_->closed(lease, Clock::now());
  carry_out_changes();
}

void Service::lease_has_ended(LeaseId lease, LeaseEnd reason) {
  table_->has_ended(lease, reason);
  carry_out_changes();
}

void Service::cut_off(WorkerId worker, LeaseId lease, std::uint64_t packet, const Error& error) {
  const auto found = clients_.find(worker.value);
  if (found == clients_.end()) return;  // it has left meanwhile
  ++workers_cut_off_;
  found->second.fault = static_cast<std::uint32_t>(error.code.value());
  spdlog::warn("worker {} '{}' (pid {}) cut off: packet {} of lease {}: {}", worker.value,
               found->second.worker->name(), found->second.pid, packet, lease.value,
               error.message());
  clear_active(worker);
  table_->end_all(worker, LeaseEnd::cut_off, false, Clock::now());
  carry_out_changes();
}

bool Service::was_renewed(LeaseId lease) {
  HeldLease& held = leases_.at(lease.value);
  const auto& renewals = held.forwarded->request->leases[held.slot].renewals;
  const std::uint32_t now = renewals.load(std::memory_order_relaxed);
  return std::exchange(held.renewals, now) != now;
}

std::optional<std::chrono::steady_clock::time_point> Service::next_deadline() const {
  auto next = table_->next_deadline();
  if (!leases_.empty() && energy_due_ != Clock::time_point::max() && (!next || energy_due_ < *next))
    next = energy_due_;
  if ((ioctl_probe_ || guard_) && (!next || audit_due_ < *next)) next = audit_due_;
  if (plans_ && !clients_.empty() && (!next || loads_due_ < *next)) next = loads_due_;
  return next;
}

void Service::run_due() {
  const auto now = Clock::now();
  if (const auto due = table_->next_deadline(); due && *due <= now) {
    table_->advance(now, [this](LeaseId lease) { return was_renewed(lease); });
    carry_out_changes();
  }
  if (!leases_.empty() && energy_due_ <= now) account_energy();
  if ((ioctl_probe_ || guard_) && audit_due_ <= now) audit_budget();
  if (plans_ && loads_due_ <= now) {
    loads_due_ = now + loads_tick;
    (*plans_)->look_at_loads();
  }
}

void Service::carry_out_changes() {
  auto changes = table_->take_changes();
  if (changes.empty()) return;
  for (const auto& change : changes) {
    const auto found = leases_.find(change.lease.value);
    if (found == leases_.end()) continue;
    carry_out(change, found->second);
    if (change.to != LeaseState::none) continue;
    energy_.forget(change.lease);
    leases_.erase(found);
  }
  publish_streams();
}

void Service::carry_out(const LeaseTable::Change& change, HeldLease& held) {
  const bool is_open = change.from == LeaseState::active || change.from == LeaseState::revoked ||
                       (change.from == LeaseState::ended && change.to == LeaseState::ended);
  switch (change.to) {
    case LeaseState::queued:
    case LeaseState::offered:
    case LeaseState::none:
      store(*held.words, change);
      break;
    case LeaseState::active:
      if (is_open)
        forwarder_->set_deadline(held.forwarded, change.lease, to_words(change.deadline));
      else
        store(*held.words, change);  // the forwarder's from open_lease() on
      break;
    case LeaseState::revoked:
      if (change.from == LeaseState::revoked) {
        forwarder_->set_deadline(held.forwarded, change.lease, to_words(change.deadline));
        break;
      }
      if (change.reason != LeaseEnd::administrator)  // that has been said, with by whom
        spdlog::info("lease {} of worker {} (pid {}) is revoked: {}", change.lease.value,
                     change.worker.value, held.pid, describe(change.reason));
      forwarder_->revoke_lease(held.forwarded, change.lease, change.reason,
                               to_words(change.deadline));
      break;
    case LeaseState::ended:
      spdlog::debug("lease {} of worker {} ends: {}", change.lease.value, change.worker.value,
                    describe(change.reason));
      if (is_open)
        forwarder_->close_lease(held.forwarded, change.lease, change.reason, change.drop);
      else
        store(*held.words, change);
      break;
  }
}

void Service::publish_streams() {
  for (std::uint32_t i = 0; i < pool_size_; ++i) {
    const auto use = table_->use_of(StreamId{i});
    board().streams[i].lease.store(use.holders.empty() ? 0 : use.holders.front().value);
  }
  board().epoch.fetch_add(1);
}

void Service::account_energy() {
  const auto energy = power_->energy_uj();
  // Without a counter there is nothing to look at: no tick.
  energy_due_ = energy ? Clock::now() + energy_tick : Clock::time_point::max();
  if (!energy) return;
  std::vector<EnergyLedger::Use> uses;
  for (const auto& [id, held] : leases_) {
    const auto stream = table_->find(LeaseId{id})->stream;
    if (!stream) continue;
    uses.push_back({.lease = LeaseId{id},
                    .worker = held.worker,
                    .cu_count = table_->cu_count(*stream),
                    .device_ns = held.use->device_ns.load(std::memory_order_relaxed)});
  }
  energy_.account(*energy, uses);
}

}  // namespace eclip::daemon
