#include "daemon/lease_table.h"

#include <algorithm>
#include <cassert>
#include <string>
#include <tuple>
#include <utility>

namespace eclip::daemon {
namespace {

bool holds(const LeaseTable::Lease& lease) {
  return lease.state == LeaseState::offered || lease.state == LeaseState::active ||
         lease.state == LeaseState::revoked;
}

}  // namespace

LeaseTable::LeaseTable(const std::vector<CuMask>& masks, Policy policy)
    : masks_(masks), policy_(policy), smallest_(UINT32_MAX) {
  for (const auto& mask : masks_) smallest_ = std::min(smallest_, mask.count());
}

Result<LeaseId> LeaseTable::acquire(WorkerId worker, const Terms& terms, Time now) {
  if (auto possible = check_possible(terms); !possible) return tl::unexpected(possible.error());
  // A stream with room fits nobody in line: serve_line() has offered it otherwise.
  const auto stream = best_stream(terms);
  if (!stream && terms.wait <= Duration::zero()) {
    if (terms.stream)
      return fail(Errc::no_stream, "stream " + std::to_string(terms.stream->value) + " is in use");
    return fail(Errc::no_stream, "all streams with at least " +
                                     std::to_string(std::min(terms.cu_count, cu_limit(terms))) +
                                     " CUs are in use; 'eclipctl lease list' shows by whom");
  }
  const LeaseId id{++last_lease_};
  Lease& lease = leases_[id.value];
  lease = Lease{.worker = worker, .terms = terms, .stream = stream, .deadline = {}, .since = now};
  if (stream) {
    activate(id, lease, now);
  } else {
    lease.deadline = now + terms.wait;
    step(id, lease, LeaseState::queued, LeaseEnd::none);
    serve_line(now);  // it may take a stream from a lease of lower priority
  }
  return id;
}

Result<std::vector<LeaseId>> LeaseTable::schedule(WorkerId worker, Time now) {
  if (is_scheduled(worker))
    return fail(Errc::already_in_use, "worker " + std::to_string(worker.value) +
                                          " has its scheduled leases; release them first");
  const auto pool = static_cast<std::uint32_t>(masks_.size());
  std::vector<StreamId> streams;
  for (std::uint32_t i = 0; i < pool; ++i) streams.push_back(StreamId{i});
  for (std::uint32_t i = pool; i < pool + policy_.unmasked_queues; ++i) {
    const StreamId stream{i};
    if (std::any_of(leases_.begin(), leases_.end(),
                    [stream](const Entry& entry) { return entry.second.stream == stream; }))
      continue;
    streams.push_back(stream);
    break;
  }
  std::vector<LeaseId> granted;
  for (const StreamId stream : streams) {
    const LeaseId id{++last_lease_};
    Lease& lease = leases_[id.value];
    lease = Lease{.worker = worker, .terms = {}, .stream = stream, .deadline = {}, .since = now};
    lease.scheduled = true;
    activate(id, lease, now);
    granted.push_back(id);
  }
  return granted;
}

bool LeaseTable::is_scheduled(WorkerId worker) const {
  return std::any_of(leases_.begin(), leases_.end(), [worker](const Entry& entry) {
    return entry.second.worker == worker && entry.second.scheduled && !entry.second.released;
  });
}

Result<void> LeaseTable::claim(LeaseId id, WorkerId worker, Time now) {
  auto lease = find_of(id, worker);
  if (!lease) return tl::unexpected(lease.error());
  if ((*lease)->state != LeaseState::offered)
    return fail(Errc::lease_ended, "lease " + std::to_string(id.value) + " is " +
                                       describe((*lease)->state) + " (" +
                                       describe((*lease)->reason) + "), not offered");
  activate(id, **lease, now);
  return {};
}

Result<void> LeaseTable::release(LeaseId id, WorkerId worker, Time now) {
  auto lease = find_of(id, worker);
  if (!lease) return tl::unexpected(lease.error());
  (*lease)->released = true;
  if ((*lease)->state != LeaseState::ended) end(id, **lease, LeaseEnd::released, false);
  forget_if_done(id);
  serve_line(now);
  return {};
}

Result<void> LeaseTable::revoke(LeaseId id, LeaseEnd reason, Duration grace, Time now) {
  const auto found = leases_.find(id.value);
  if (found == leases_.end() || (found->second.state == LeaseState::ended && !found->second.stream))
    return fail(Errc::not_found, "there is no lease " + std::to_string(id.value) +
                                     "; 'eclipctl lease list' shows which there are");
  Lease& lease = found->second;
  const Time until = now + std::max(grace, Duration::zero());
  switch (lease.state) {
    case LeaseState::queued:
    case LeaseState::offered:
      end(id, lease, reason, false);
      serve_line(now);
      break;
    case LeaseState::active:
      lease.deadline = until;
      step(id, lease, LeaseState::revoked, reason);
      break;
    case LeaseState::revoked:
    case LeaseState::ended:
      lease.deadline = std::min(lease.deadline.value_or(until), until);
      if (lease.state == LeaseState::revoked) note(id, lease, false);
      break;
    case LeaseState::none:
      break;
  }
  return {};
}

void LeaseTable::has_ended(LeaseId id, LeaseEnd reason) {
  const auto found = leases_.find(id.value);
  if (found == leases_.end()) return;
  Lease& lease = found->second;
  if (lease.state == LeaseState::active || lease.state == LeaseState::revoked)
    end(id, lease, reason, true);
}

void LeaseTable::end_all(WorkerId worker, LeaseEnd reason, bool released, Time now) {
  std::vector<LeaseId> ids;
  for (const auto& [id, lease] : leases_)
    if (lease.worker == worker) ids.push_back(LeaseId{id});
  for (const LeaseId id : ids) {
    Lease& lease = leases_.at(id.value);
    if (released) lease.released = true;
    if (lease.state == LeaseState::ended) {
      lease.deadline.reset();
      if (lease.stream) {  // what is still in its ring goes with the worker's other packets
        lease.reason = reason;
        note(id, lease, true);
      }
    } else {
      end(id, lease, reason, true);
    }
    forget_if_done(id);
  }
  serve_line(now);
}

void LeaseTable::closed(LeaseId id, Time now) {
  const auto found = leases_.find(id.value);
  if (found == leases_.end()) return;
  found->second.stream.reset();
  found->second.deadline.reset();
  forget_if_done(id);
  serve_line(now);
}

void LeaseTable::advance(Time now, const std::function<bool(LeaseId)>& renewed) {
  std::vector<LeaseId> due;
  for (const auto& [id, lease] : leases_)
    if (lease.deadline && *lease.deadline <= now) due.push_back(LeaseId{id});
  for (const LeaseId id : due) {
    Lease& lease = leases_.at(id.value);
    switch (lease.state) {
      case LeaseState::queued:
        end(id, lease, LeaseEnd::wait_over, false);
        break;
      case LeaseState::offered:
        end(id, lease, LeaseEnd::not_claimed, false);
        break;
      case LeaseState::active:
        if (renewed(id)) {
          lease.deadline = now + lease.terms.duration;
          note(id, lease, false);
        } else {
          lease.deadline = now + policy_.grace;
          step(id, lease, LeaseState::revoked, LeaseEnd::expired);
        }
        break;
      case LeaseState::revoked:
        end(id, lease, lease.reason, true);
        break;
      case LeaseState::ended:
        lease.deadline.reset();
        note(id, lease, true);
        break;
      case LeaseState::none:
        break;
    }
  }
  if (!due.empty()) serve_line(now);
}

std::optional<LeaseTable::Time> LeaseTable::next_deadline() const {
  std::optional<Time> next;
  for (const auto& [id, lease] : leases_)
    if (lease.deadline && (!next || *lease.deadline < *next)) next = lease.deadline;
  return next;
}

std::vector<LeaseTable::Change> LeaseTable::take_changes() {
  return std::exchange(changes_, {});
}

const LeaseTable::Lease* LeaseTable::find(LeaseId lease) const {
  const auto found = leases_.find(lease.value);
  return found == leases_.end() ? nullptr : &found->second;
}

std::uint32_t LeaseTable::position(LeaseId lease) const {
  const auto waiting = line();
  return static_cast<std::uint32_t>(std::find(waiting.begin(), waiting.end(), lease) -
                                    waiting.begin());
}

std::uint32_t LeaseTable::queued() const {
  return static_cast<std::uint32_t>(line().size());
}

LeaseTable::StreamUse LeaseTable::use_of(StreamId stream) const {
  StreamUse use;
  for (const auto& [id, lease] : leases_) {
    if (lease.stream != stream) continue;
    if (lease.scheduled)
      use.scheduled += holds(lease) ? 1 : 0;
    else if (holds(lease))
      use.holders.push_back(LeaseId{id});
    else
      use.draining = true;
  }
  return use;
}

Result<LeaseTable::Lease*> LeaseTable::find_of(LeaseId id, WorkerId worker) {
  const auto found = leases_.find(id.value);
  if (found == leases_.end() || found->second.worker != worker || found->second.released)
    return fail(Errc::not_found, "this worker holds no lease " + std::to_string(id.value));
  return &found->second;
}

void LeaseTable::step(LeaseId id, Lease& lease, LeaseState to, LeaseEnd reason, bool drop) {
  assert(is_legal_step(lease.state, to));
  const LeaseState from = std::exchange(lease.state, to);
  lease.reason = reason;
  changes_.push_back({.lease = id,
                      .worker = lease.worker,
                      .from = from,
                      .to = to,
                      .reason = reason,
                      .deadline = lease.deadline,
                      .drop = drop});
}

void LeaseTable::note(LeaseId id, const Lease& lease, bool drop) {
  changes_.push_back({.lease = id,
                      .worker = lease.worker,
                      .from = lease.state,
                      .to = lease.state,
                      .reason = lease.reason,
                      .deadline = lease.deadline,
                      .drop = drop});
}

void LeaseTable::activate(LeaseId id, Lease& lease, Time now) {
  lease.since = now;
  lease.deadline.reset();
  if (lease.terms.duration > Duration::zero()) lease.deadline = now + lease.terms.duration;
  step(id, lease, LeaseState::active, LeaseEnd::none);
}

void LeaseTable::end(LeaseId id, Lease& lease, LeaseEnd reason, bool drop) {
  const bool was_open = lease.state == LeaseState::active || lease.state == LeaseState::revoked;
  if (!was_open) lease.stream.reset();  // never opened: nothing of it runs
  // A release within the grace period does not prolong it: what then is left in the ring, because
  // it waits for something, is dropped.
  if (lease.state != LeaseState::revoked || drop) lease.deadline.reset();
  step(id, lease, LeaseState::ended, reason, drop);
}

void LeaseTable::forget_if_done(LeaseId id) {
  const auto found = leases_.find(id.value);
  if (found == leases_.end()) return;
  Lease& lease = found->second;
  if (lease.state != LeaseState::ended || !lease.released || lease.stream) return;
  step(id, lease, LeaseState::none, lease.reason);
  leases_.erase(found);
}

std::uint32_t LeaseTable::cu_limit(const Terms& terms) const {
  if (terms.share_percent == 0) return UINT32_MAX;
  return std::max(policy_.gpu_cu_count * terms.share_percent / 100, smallest_);
}

bool LeaseTable::fits(const Terms& terms, std::uint32_t stream) const {
  const std::uint32_t cus = masks_[stream].count();
  const std::uint32_t limit = cu_limit(terms);
  if (cus > limit) return false;
  if (terms.stream) return terms.stream->value == stream;
  // Whoever wants more than its share gets the most that its share allows.
  std::uint32_t largest = 0;
  for (const auto& mask : masks_)
    if (mask.count() <= limit) largest = std::max(largest, mask.count());
  return cus >= (limit == UINT32_MAX ? terms.cu_count : std::min(terms.cu_count, largest));
}

Result<void> LeaseTable::check_possible(const Terms& terms) const {
  const auto count = static_cast<std::uint32_t>(masks_.size());
  if (terms.stream) {
    if (terms.stream->value >= count)
      return fail(Errc::invalid_argument, "the pool has no stream " +
                                              std::to_string(terms.stream->value) + "; it has 0-" +
                                              std::to_string(count - 1));
    if (!fits(terms, terms.stream->value))
      return fail(Errc::invalid_argument,
                  "stream " + std::to_string(terms.stream->value) + " has " +
                      std::to_string(masks_[terms.stream->value].count()) + " CUs; a share of " +
                      std::to_string(terms.share_percent) + " percent allows " +
                      std::to_string(cu_limit(terms)));
    return {};
  }
  std::uint32_t largest = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (fits(terms, i)) return {};
    largest = std::max(largest, masks_[i].count());
  }
  return fail(Errc::invalid_argument, "no stream of the pool has " +
                                          std::to_string(terms.cu_count) +
                                          " CUs; the largest has " + std::to_string(largest));
}

std::uint32_t LeaseTable::occupants(std::uint32_t stream) const {
  return static_cast<std::uint32_t>(
      std::count_if(leases_.begin(), leases_.end(), [stream](const Entry& entry) {
        return entry.second.stream == StreamId{stream} && !entry.second.scheduled;
      }));
}

std::optional<StreamId> LeaseTable::best_stream(const Terms& terms) const {
  const auto in_use_overlap = [&](std::uint32_t stream) {
    std::uint32_t overlap = 0;
    for (std::uint32_t other = 0; other < masks_.size(); ++other)
      if (occupants(other) > 0) overlap += masks_[other].overlap(masks_[stream]);
    return overlap;
  };
  std::optional<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t>> best;
  for (std::uint32_t i = 0; i < masks_.size(); ++i) {
    const std::uint32_t holders = occupants(i);
    if (holders >= policy_.max_holders_per_stream || !fits(terms, i)) continue;
    const auto candidate = std::tuple(holders, masks_[i].count(), in_use_overlap(i), i);
    if (!best || candidate < *best) best = candidate;
  }
  if (!best) return std::nullopt;
  return StreamId{std::get<3>(*best)};
}

std::vector<LeaseId> LeaseTable::line() const {
  std::vector<LeaseId> waiting;
  for (const auto& [id, lease] : leases_)
    if (lease.state == LeaseState::queued) waiting.push_back(LeaseId{id});
  std::stable_sort(waiting.begin(), waiting.end(), [this](LeaseId a, LeaseId b) {
    return leases_.at(a.value).terms.priority > leases_.at(b.value).terms.priority;
  });
  return waiting;
}

void LeaseTable::serve_line(Time now) {
  std::vector<LeaseId> left;
  for (const LeaseId id : line()) {
    Lease& lease = leases_.at(id.value);
    const auto stream = best_stream(lease.terms);
    if (!stream) {
      left.push_back(id);
      continue;
    }
    lease.stream = stream;
    lease.deadline = now + policy_.claim_time;
    step(id, lease, LeaseState::offered, LeaseEnd::none);
  }
  if (policy_.preempt) make_room(left, now);
}

void LeaseTable::make_room(const std::vector<LeaseId>& waiting, Time now) {
  // Places that are about to be free, because their lease was revoked or has ended, are for the
  // first in line already; each revocation makes room for one.
  std::vector<std::uint32_t> coming(masks_.size());
  for (const auto& [id, lease] : leases_)
    if (lease.stream && !lease.scheduled &&
        (lease.state == LeaseState::revoked || lease.state == LeaseState::ended))
      ++coming[lease.stream->value];
  for (const LeaseId id : waiting) {
    const Terms& terms = leases_.at(id.value).terms;
    std::optional<std::uint32_t> place;
    for (std::uint32_t i = 0; i < masks_.size() && !place; ++i)
      if (coming[i] > 0 && fits(terms, i)) place = i;
    if (place) {
      --coming[*place];
      continue;
    }
    if (const auto victim = victim_for(terms))
      static_cast<void>(revoke(*victim, LeaseEnd::preempted, policy_.grace, now));
  }
}

std::optional<LeaseId> LeaseTable::victim_for(const Terms& terms) const {
  // The lowest priority; of equal ones the smallest stream that will do; of those the last granted.
  const Entry* victim = nullptr;
  const auto rank = [this](const Entry& entry) {
    return std::pair(entry.second.terms.priority, masks_[entry.second.stream->value].count());
  };
  for (const auto& entry : leases_) {
    const Lease& lease = entry.second;
    if (lease.state != LeaseState::active || lease.scheduled ||
        lease.terms.priority >= terms.priority || !fits(terms, lease.stream->value))
      continue;
    if (victim == nullptr || rank(entry) <= rank(*victim)) victim = &entry;
  }
  if (victim == nullptr) return std::nullopt;
  return LeaseId{victim->first};
}

}  // namespace eclip::daemon
