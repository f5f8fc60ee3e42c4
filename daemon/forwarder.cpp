#include "daemon/forwarder.h"

#include <pthread.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <set>
#include <utility>

#include "ipc/futex.h"
#include "ipc/testpoint.h"

namespace eclip::daemon {
namespace {

/// Packets taken from one lease before the next has its turn.
constexpr std::uint64_t turn_packets = 64;
/// Between looks of the watchdog.
constexpr std::chrono::milliseconds longest_watch_tick{250};

}  // namespace

Forwarder::Forwarder(Options options, const std::vector<AqlRing*>& streams, OwnSignals own_signals,
                     Board& board, FaultReport report_fault, EndReport report_end)
    : options_(options),
      own_signals_(own_signals.slots, own_signals.gpu_address),
      board_(board),
      report_fault_(std::move(report_fault)),
      report_end_(std::move(report_end)),
      mailbox_([this] {
        posted_.fetch_add(1);
        futex_wake_all(posted_);
      }) {
  for (AqlRing* ring : streams)
    streams_.emplace_back(StreamId{static_cast<std::uint32_t>(streams_.size())}, *ring,
                          own_signals_);
}

Forwarder::~Forwarder() {
  stop();
}

void Forwarder::stop() {
  stopping_.store(true);
  mailbox_.post([] {});
  if (thread_.joinable()) thread_.join();
}

void Forwarder::watch(std::chrono::nanoseconds limit, StuckReport report) {
  watch_limit_ = limit;
  report_stuck_ = std::move(report);
  watched_.resize(streams_.size());
}

void Forwarder::look_for_stuck(std::chrono::steady_clock::time_point now) {
  if (watch_limit_ <= std::chrono::nanoseconds::zero()) return;
  const double rate =
      static_cast<double>(board_.device_time_rate.load(std::memory_order_relaxed)) / 0x1p32;
  const auto limit = rate > 0 ? std::chrono::duration_cast<std::chrono::nanoseconds>(
                                    std::chrono::duration<double, std::nano>(watch_limit_) / rate)
                              : watch_limit_;
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    Watched& watched = watched_[i];
    const auto progress = streams_[i].progress();
    if (progress != watched.progress || !progress) {
      if (watched.said) report_stuck_(StreamId{static_cast<std::uint32_t>(i)}, std::nullopt);
      watched = {.progress = progress, .since = now};
      continue;
    }
    if (watched.said || now - watched.since < limit) continue;
    watched.said = true;
    if (const auto blame = streams_[i].unfinished())
      report_stuck_(blame->stream, Stuck{.packet = *blame, .since = now - watched.since});
  }
  for (const auto& worker : workers_) {
    if (worker->cut_off || !worker->any_visible) continue;
    for (const auto& lease : worker->leases)
      if (lease->visible > 0) look_for_held(*worker, *lease, now, limit);
  }
}

void Forwarder::look_for_held(ForwardedWorker& worker, ForwardedLease& lease,
                              std::chrono::steady_clock::time_point now,
                              std::chrono::nanoseconds limit) {
  if (!lease.held_since || lease.held_at != lease.reader.taken()) {
    lease.held_since = now;
    lease.held_at = lease.reader.taken();
    lease.said_held = false;
    return;
  }
  if (lease.said_held || now - *lease.held_since < limit) return;
  // Others wait for a turn or for room, which is no fault of theirs.
  VettedPacket vetted;
  const auto passed =
      vet_packet(lease.reader.copy_next(), worker.objects, packet_flags(lease.scheduled), vetted);
  if (!passed || !vetted.hold) return;
  lease.said_held = true;
  report_stuck_(lease.stream, Stuck{.packet = {.stream = lease.stream,
                                               .worker = worker.id,
                                               .lease = lease.id,
                                               .kernel = 0,
                                               .packet = lease.held_at},
                                    .waits_for = vetted.missing,
                                    .since = now - *lease.held_since});
}

void Forwarder::start(std::optional<CompletionInterrupt> interrupt) {
  interrupt_ = std::move(interrupt);
  thread_ = std::thread([this] { run(); });
}

void Forwarder::attach(std::shared_ptr<ForwardedWorker> worker) {
  mailbox_.post([this, worker = std::move(worker)] { workers_.push_back(worker); });
}

void Forwarder::detach(std::shared_ptr<ForwardedWorker> worker, std::function<void()> on_detached) {
  mailbox_.post([this, worker = std::move(worker), on_detached = std::move(on_detached)] {
    worker->on_detached = on_detached;
    ++detaching_;
    for (auto& lease : worker->leases)
      begin_closing(*worker, *lease, lease->reader.taken(), LeaseEnd::gone);
  });
}

void Forwarder::open_lease(std::shared_ptr<ForwardedWorker> worker,
                           std::unique_ptr<ForwardedLease> lease) {
  // std::function wants something that can be copied.
  auto shared = std::make_shared<std::unique_ptr<ForwardedLease>>(std::move(lease));
  mailbox_.post([this, worker = std::move(worker), shared] {
    streams_[(*shared)->stream.value].lease_opened(*worker, **shared);
    worker->leases.push_back(std::move(*shared));
  });
}

void Forwarder::revoke_lease(std::shared_ptr<ForwardedWorker> worker, LeaseId lease,
                             LeaseEnd reason, std::uint64_t deadline_ns) {
  mailbox_.post([worker = std::move(worker), lease, reason, deadline_ns] {
    for (auto& each : worker->leases) {
      if (each->id != lease || each->closing) continue;
      each->slot->reason.store(static_cast<std::uint32_t>(reason), std::memory_order_relaxed);
      each->slot->deadline_ns.store(deadline_ns, std::memory_order_relaxed);
      ECLIP_TESTPOINT("revocation_unpublished");
      each->slot->state.store(static_cast<std::uint32_t>(LeaseState::revoked));
      each->written_at_revocation = each->reader.taken() + each->reader.waiting();
    }
  });
}

void Forwarder::set_deadline(std::shared_ptr<ForwardedWorker> worker, LeaseId lease,
                             std::uint64_t deadline_ns) {
  mailbox_.post([worker = std::move(worker), lease, deadline_ns] {
    for (auto& each : worker->leases)
      if (each->id == lease) each->slot->deadline_ns.store(deadline_ns, std::memory_order_relaxed);
  });
}

void Forwarder::close_lease(std::shared_ptr<ForwardedWorker> worker, LeaseId lease, LeaseEnd reason,
                            bool drop) {
  mailbox_.post([this, worker = std::move(worker), lease, reason, drop] {
    for (auto& each : worker->leases) {
      if (each->id != lease) continue;
      if (each->closing) {
        if (drop) each->closing_at = each->reader.taken();
        continue;
      }
      const std::uint64_t written = each->reader.taken() + each->reader.waiting();
      if (drop && !worker->cut_off && each->written_at_revocation &&
          written - *each->written_at_revocation > 1)
        cut_off(*worker, *each,
                Error{make_error_code(Errc::lease_ended),
                      "went on submitting to a lease that was revoked"});
      begin_closing(*worker, *each, drop ? each->reader.taken() : written, reason);
    }
  });
}

void Forwarder::change_objects(std::shared_ptr<ForwardedWorker> worker,
                               std::function<void(WorkerObjects&)> change) {
  mailbox_.post(
      [worker = std::move(worker), change = std::move(change)] { change(worker->objects); });
}

void Forwarder::quiesce(std::shared_ptr<ForwardedWorker> worker, std::function<void()> on_quiet) {
  mailbox_.post([this, worker = std::move(worker), on_quiet = std::move(on_quiet)] {
    // A closed lease is gone from the list while its last packets still run: its drain tells where.
    std::set<StreamId> streams;
    for (const auto& lease : worker->leases)
      if (lease->pushed_end > streams_[lease->stream.value].complete_until())
        streams.insert(lease->stream);
    for (const auto& drain : drains_)
      if (drain.worker == worker) streams.insert(drain.stream);
    if (streams.empty()) return on_quiet();
    auto left = std::make_shared<std::size_t>(streams.size());
    for (const StreamId stream : streams)
      drain(worker, stream, [left, on_quiet] {
        if (--*left == 0) on_quiet();
      });
  });
}

void Forwarder::run() {
  ::pthread_setname_np(::pthread_self(), "forwarder");
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // naps of 50 us would else become 100
  auto quiet_since = std::chrono::steady_clock::now();
  auto last_packet = quiet_since;
  std::uint32_t quiet_turns = 0;
  auto watchdog_due = quiet_since;
  std::uint32_t turns_until_look = 0;
  const auto look = [&](std::chrono::steady_clock::time_point now) {
    if (now < watchdog_due) return;
    watchdog_due = now + std::min<std::chrono::nanoseconds>(watch_limit_ / 8, longest_watch_tick);
    look_for_stuck(now);
  };
  while (!stopping_.load(std::memory_order_relaxed)) {
    const Activity activity = turn();
    if (activity == Activity::progress) {
      quiet_turns = 0;
      // However busy the other streams are.
      constexpr std::uint32_t busy_turns_per_look = 4096;
      if (++turns_until_look % busy_turns_per_look == 0) look(std::chrono::steady_clock::now());
      continue;
    }
    // Reading the clock takes as long as a turn in which nothing happens.
    constexpr std::uint32_t turns_per_look = 16;
    if (++quiet_turns % turns_per_look != 0) {
      __builtin_ia32_pause();
      continue;
    }
    const auto now = std::chrono::steady_clock::now();
    if (quiet_turns == turns_per_look) quiet_since = now;
    if (std::exchange(forwarded_, false)) last_packet = now;
    look(now);
    if (now - quiet_since < options_.spin) continue;
    if (activity == Activity::idle)
      sleep_until_woken(false);
    else if (interrupt_ && now - last_packet >= options_.patience && waits_for_signals_only())
      sleep_until_woken(true);
    else
      futex_wait(posted_, handled_, options_.nap);
    quiet_turns = 2 * turns_per_look - 1;  // one turn, then nap or sleep again
  }
}

void Forwarder::sleep_until_woken(bool packets_run) {
  // Words first, then the flag, then a last look: a worker stores its packet, then reads the flag,
  // then changes its word. Whatever the order, either we see its packet or it sees the flag. So it
  // is with the GPU: it completes a signal, then looks whether that carries an event.
  std::array<FutexExpectation, max_futex_words> words;
  std::size_t count = 0;
  words[count++] = {.word = &posted_, .expected = handled_};
  if (packets_run) {
    words[count++] = {.word = interrupt_->raised.get(), .expected = interrupt_->raised->load()};
    set_interrupt(&*interrupt_);
  }
  for (const auto& worker : workers_) {
    if (count == words.size()) break;
    words[count++] = {.word = &worker->request->wake, .expected = worker->request->wake.load()};
  }
  board_.forwarder_asleep.store(1, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const auto limit = packets_run ? options_.longest_sleep : std::chrono::nanoseconds(-1);
  if (!anything_new() && !futex_wait_any({words.data(), count}, limit)) {
    // Without futex_waitv only the control thread could wake us; look at the workers now and then.
    futex_wait(posted_, handled_, std::chrono::milliseconds(1));
  }
  board_.forwarder_asleep.store(0, std::memory_order_seq_cst);
  if (packets_run) set_interrupt(nullptr);
}

void Forwarder::set_interrupt(const CompletionInterrupt* interrupt) {
  for (auto& stream : streams_) stream.set_interrupt(interrupt);
  for (const auto& drain : drains_)
    if (drain.signal) own_signals_.set_interrupt(*drain.signal, interrupt);
  for (const auto& worker : workers_)
    for (const std::uint32_t signal : worker->outstanding)
      carry(worker->objects.signal_slots[signal], interrupt);
}

bool Forwarder::waits_for_signals_only() const {
  return std::all_of(streams_.begin(), streams_.end(),
                     [](const auto& stream) { return stream.waits_for_signals_only(); }) &&
         std::all_of(drains_.begin(), drains_.end(),
                     [](const Drain& drain) { return drain.signal || drain.end; }) &&
         std::all_of(workers_.begin(), workers_.end(), [](const auto& worker) {
           return worker->cut_off || !worker->any_visible ||
                  std::all_of(worker->leases.begin(), worker->leases.end(),
                              [](const auto& lease) { return lease->visible == 0; });
         });
}

bool Forwarder::anything_new() const {
  if (posted_.load() != handled_) return true;
  if (std::any_of(streams_.begin(), streams_.end(),
                  [](const auto& stream) { return stream.has_completions(); }) ||
      std::any_of(drains_.begin(), drains_.end(), [this](const Drain& drain) {
        return drain.signal && own_signals_.is_complete(*drain.signal);
      }))
    return true;
  return std::any_of(workers_.begin(), workers_.end(), [](const auto& worker) {
    return std::any_of(worker->outstanding.begin(), worker->outstanding.end(),
                       [&](auto signal) { return worker->objects.is_complete(signal); }) ||
           (!worker->cut_off &&
            std::any_of(worker->leases.begin(), worker->leases.end(),
                        [](const auto& lease) { return lease->reader.waiting() != 0; }));
  });
}

Forwarder::Activity Forwarder::turn() {
  bool progress = false;
  // What is visible now may depend on work posted before; so look first, then do the work.
  bool any_visible = false;
  for (auto& worker : workers_) {
    worker->any_visible = false;
    for (auto& lease : worker->leases) {
      lease->visible = lease->reader.waiting();
      worker->any_visible |= lease->visible != 0;
    }
    any_visible |= worker->any_visible;
  }
  if (const auto posted = posted_.load(std::memory_order_acquire); posted != handled_) {
    handled_ = posted;
    mailbox_.run_all();
    progress = true;
  }
  // Before packets are taken: they may use signals again whose last use is seen here.
  for (auto& stream : streams_) progress |= stream.collect_completions(board_.gpu_counter_hz);
  for (auto& worker : workers_) {
    if (worker->cut_off || !worker->any_visible) continue;
    for (auto& lease : worker->leases)
      if (lease->visible > 0 && !streams_[lease->stream.value].takes_turns() && !worker->cut_off)
        progress |= forward(*worker, *lease, {}) > 0;
  }
  for (auto& stream : streams_)
    if (any_visible && stream.takes_turns()) progress |= serve_by_turns(stream);
  for (auto& worker : workers_) {
    progress |= close_finished_leases(worker);
    progress |= collect_completions(*worker);
  }
  progress |= advance_drains();
  progress |= remove_detached();
  if (progress) return Activity::progress;
  return waits_for_anything() ? Activity::waiting : Activity::idle;
}

bool Forwarder::waits_for_anything() const {
  if (std::any_of(streams_.begin(), streams_.end(), [](const auto& each) { return each.waits(); }))
    return true;
  return !drains_.empty() || std::any_of(workers_.begin(), workers_.end(), [](const auto& worker) {
    return !worker->outstanding.empty() ||
           (!worker->cut_off && worker->any_visible &&
            std::any_of(worker->leases.begin(), worker->leases.end(),
                        [](const auto& lease) { return lease->visible != 0; }));
  });
}

bool Forwarder::would_block_others(const ForwardedLease& lease, const VettedPacket& vetted,
                                   bool others_wait) const {
  const ForwardedStream& stream = streams_[lease.stream.value];
  return vetted.wait_count > 0 && stream.takes_turns() &&
         (others_wait || stream.has_others_in_flight(lease.id));
}

bool Forwarder::can_go(const ForwardedStream::Member& member, bool others_wait) {
  ForwardedWorker& worker = *member.worker;
  ForwardedLease& lease = *member.lease;
  if (lease.closing && lease.closing_at == lease.reader.taken()) return false;
  if (lease.visible > LeaseRing::slot_count) return true;
  VettedPacket vetted;
  const auto passed =
      vet_packet(lease.reader.copy_next(), worker.objects, packet_flags(lease.scheduled), vetted);
  if (!passed || vetted.cancelled) return true;
  return !vetted.hold && !must_wait_for_barriers(worker, vetted) &&
         !would_block_others(lease, vetted, others_wait);
}

bool Forwarder::serve_by_turns(ForwardedStream& stream) {
  // Each pass is the rest of a turn, or a group of one. Few: the other streams are waiting too.
  constexpr int most_passes = 8;
  StreamTurns& turns = stream.turns();
  const auto waits = [](const ForwardedStream::Member& member) {
    return member.lease->visible > 0 && !member.worker->cut_off;
  };
  bool progress = false;
  for (int pass = 0; pass < most_passes && stream.has_room(); ++pass) {
    const ForwardedStream::Member* owner = nullptr;
    std::size_t others = 0;
    for (const auto& member : stream.members()) {
      if (!waits(member)) continue;
      if (member.lease->id == turns.owner())
        owner = &member;
      else
        ++others;
    }
    if (owner == nullptr && others == 0) break;
    if (owner != nullptr && (others == 0 || !turns.may_pass())) {
      const auto pushed = forward(*owner->worker, *owner->lease,
                                  {.others_wait = others > 0, .stop_between = others > 0});
      progress |= pushed > 0;
      if (pushed >= turn_packets || (pushed == 0 && others == 0)) break;
      if (pushed > 0) continue;
    }
    std::vector<StreamTurns::Waiting>& waiting = waiting_;
    waiting.clear();
    for (const auto& member : stream.members()) {
      const bool is_owner = &member == owner;
      if (!waits(member) || (is_owner && !turns.at_group_end())) continue;
      if (!can_go(member, is_owner ? others > 0 : owner != nullptr || others > 1)) continue;
      waiting.push_back({.lease = member.lease->id,
                         .latency_class = member.lease->latency_class,
                         .deadline_ns = member.worker->request->scheduler.deadline_ns.load(
                             std::memory_order_relaxed)});
    }
    if (waiting.empty()) {
      // The owner may go on past what a turn has: those who wait cannot go.
      if (owner != nullptr && turns.may_pass())
        progress |= forward(*owner->worker, *owner->lease, {.others_wait = others > 0}) > 0;
      break;
    }
    const LeaseId chosen = turns.choose(waiting);
    if (!stream.may_push(chosen)) break;
    const auto member =
        std::find_if(stream.members().begin(), stream.members().end(),
                     [chosen](const auto& each) { return each.lease->id == chosen; });
    const bool others_wait = (owner != nullptr ? 1 : 0) + others > 1;
    const auto pushed = forward(*member->worker, *member->lease,
                                {.others_wait = others_wait, .stop_between = waiting.size() > 1});
    if (pushed == 0) break;
    progress = true;
    if (turns.owner() == chosen) turns.passed_over(waiting, chosen);
  }
  return progress;
}

std::uint64_t Forwarder::forward(ForwardedWorker& worker, ForwardedLease& lease,
                                 const Contention& contention) {
  if (lease.visible > LeaseRing::slot_count) {
    cut_off(worker, lease,
            Error{make_error_code(Errc::malformed),
                  "the ring's write index claims " + std::to_string(lease.visible) +
                      " packets; it has room for " + std::to_string(LeaseRing::slot_count)});
    return 1;
  }
  ForwardedStream& stream = streams_[lease.stream.value];
  std::uint64_t room = std::max<std::uint64_t>(1, turn_packets * lease.weight / 100);
  if (lease.closing) room = std::min(room, lease.closing_at - lease.reader.taken());
  std::uint64_t pushed = 0;
  std::uint64_t dispatched = 0;
  std::optional<Error> fault;
  VettedPacket vetted;
  while (lease.visible > 0 && pushed < room && stream.has_room()) {
    const LeasePacket packet = lease.reader.copy_next();
    if (auto passed = vet_packet(packet, worker.objects, packet_flags(lease.scheduled), vetted);
        !passed) {
      fault = std::move(passed.error());
      break;
    }
    if (vetted.cancelled) {
      begin_closing(worker, lease, lease.reader.taken(), LeaseEnd::dependency);
      report_end_(worker.id, lease.id, lease.reason);
      break;
    }
    if (vetted.hold || must_wait_for_barriers(worker, vetted) ||
        would_block_others(lease, vetted, contention.others_wait))
      break;
    ECLIP_TESTPOINT("packet_vetted");
    if (stream.is_decoupled() && !stream.decouple(lease, vetted)) break;
    if (stream.takes_turns() && !stream.may_push(lease.id)) break;
    if (vetted.completion.generation != 0) arm(worker, vetted.completion);
    for (std::uint32_t i = 0; i < vetted.wait_count; ++i) {
      auto& waited_for = worker.objects.signals[vetted.waits_for[i]];
      waited_for.barriers_end[lease.stream.value] = stream.ring().next() + 1;
      waited_for.barrier_streams |= 1U << lease.stream.value;
    }
    stream.push(worker, lease, vetted,
                packet.type == LeasePacketType::dispatch ? packet.dispatch.kernel : 0,
                (packet.flags & LeasePacket::flag_group_end) != 0);
    ECLIP_TESTPOINT("packet_pushed");
    lease.reader.skip();
    --lease.visible;
    ++pushed;
    if (packet.type == LeasePacketType::dispatch) ++dispatched;
    if (contention.stop_between && stream.turns().may_pass()) break;
  }
  if (pushed > 0) {
    forwarded_ = true;
    dispatches_.store(dispatches_.load(std::memory_order_relaxed) + dispatched,
                      std::memory_order_relaxed);
    ECLIP_TESTPOINT("before_doorbell");
    stream.end_burst(worker, lease, pushed);
    ECLIP_TESTPOINT("after_doorbell");
    lease.reader.publish();
    worker.packets.fetch_add(pushed, std::memory_order_relaxed);
    lease.use->packets.fetch_add(pushed, std::memory_order_relaxed);
  }
  if (fault) cut_off(worker, lease, *fault);
  return pushed + (fault ? 1 : 0);
}

bool Forwarder::must_wait_for_barriers(ForwardedWorker& worker, const VettedPacket& vetted) const {
  // A barrier in a queue still waits for the completion signal's last use: arming it again would
  // make the barrier wait for this packet too, perhaps for ever.
  if (vetted.completion.generation == 0) return false;
  auto& signal = worker.objects.signals[vetted.completion.signal];
  while (signal.barrier_streams != 0) {
    const auto stream = static_cast<std::size_t>(std::countr_zero(signal.barrier_streams));
    if (!streams_[stream].ring().consumed(signal.barriers_end[stream] - 1)) return true;
    signal.barrier_streams &= signal.barrier_streams - 1;
  }
  return false;
}

void Forwarder::arm(ForwardedWorker& worker, SignalUse use) {
  SignalSlot& slot = worker.objects.signal_slots[use.signal];
  carry(slot, nullptr);
  slot.value.store(1, std::memory_order_relaxed);
  ECLIP_TESTPOINT("signal_armed");
  slot.generation.store(use.generation, std::memory_order_release);
  worker.objects.signals[use.signal].generation = use.generation;
  if (worker.is_outstanding[use.signal]) return;
  worker.is_outstanding[use.signal] = true;
  worker.outstanding.push_back(use.signal);
}

void Forwarder::cut_off(ForwardedWorker& worker, const ForwardedLease& lease, const Error& error) {
  worker.cut_off = true;
  worker.state->fault_lease.store(lease.id.value, std::memory_order_relaxed);
  worker.state->fault_packet.store(lease.reader.taken(), std::memory_order_relaxed);
  worker.state->fault.store(static_cast<std::uint32_t>(error.code.value()),
                            std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_seq_cst);  // before wake_waiters()
  for (std::uint32_t signal = 0; signal < WorkerState::signal_count; ++signal)
    wake_waiters(worker, signal);
  report_fault_(worker.id, lease.id, lease.reader.taken(), error);
}

bool Forwarder::close_finished_leases(const std::shared_ptr<ForwardedWorker>& worker) {
  if (!worker->any_closing) return false;
  worker->any_closing = false;
  bool any = false;
  auto& leases = worker->leases;
  for (std::size_t i = 0; i < leases.size();) {
    ForwardedLease& lease = *leases[i];
    if (!lease.closing || (lease.reader.taken() < lease.closing_at && !worker->cut_off)) {
      worker->any_closing |= lease.closing;
      ++i;
      continue;
    }
    end_lease(*worker, lease, worker->cut_off ? LeaseEnd::cut_off : lease.reason);
    streams_[lease.stream.value].lease_closed(lease);
    drain(worker, lease.stream,
          [this, stream = lease.stream, scheduled = lease.scheduled,
           done = std::move(lease.on_closed)] {
            streams_[stream.value].lease_drained(scheduled);
            if (done) done();
          });
    leases.erase(leases.begin() + static_cast<std::ptrdiff_t>(i));
    any = true;
  }
  return any;
}

bool Forwarder::collect_completions(ForwardedWorker& worker) {
  const auto completed = std::erase_if(worker.outstanding, [&](std::uint32_t signal) {
    if (!worker.objects.is_complete(signal)) return false;
    worker.is_outstanding[signal] = false;
    ECLIP_TESTPOINT("completion_seen");
    wake_waiters(worker, signal);
    return true;
  });
  return completed != 0;
}

void Forwarder::begin_closing(ForwardedWorker& worker, ForwardedLease& lease, std::uint64_t at,
                              LeaseEnd reason) {
  lease.closing = true;
  lease.closing_at = at;
  lease.reason = reason;
  worker.any_closing = true;
}

void Forwarder::end_lease(ForwardedWorker& worker, ForwardedLease& lease, LeaseEnd reason) {
  // The state first, then a look at the ring: a worker stores its packet, then looks at the state.
  // Whatever the order, either we see its packet or it sees that the lease has ended.
  lease.slot->reason.store(static_cast<std::uint32_t>(reason), std::memory_order_relaxed);
  lease.slot->accepted.store(lease.reader.taken(), std::memory_order_relaxed);
  ECLIP_TESTPOINT("lease_end_unpublished");
  lease.slot->state.store(static_cast<std::uint32_t>(LeaseState::ended));
  std::atomic_thread_fence(std::memory_order_seq_cst);
  drop_packets(worker, lease);
  futex_wake_all(lease.slot->state);
}

void Forwarder::drop_packets(ForwardedWorker& worker, ForwardedLease& lease) {
  auto& objects = worker.objects;
  std::vector<std::uint32_t> dropped;
  std::uint64_t left = std::min(lease.reader.waiting(), LeaseRing::slot_count);
  for (; left > 0; --left) {
    const SignalUse use = lease.reader.copy_next().completion;
    lease.reader.pop();
    if (use.generation == 0 || use.signal >= objects.signals.size() || !objects.is_ahead(use) ||
        !objects.is_complete(use.signal))
      continue;
    SignalSlot& slot = objects.signal_slots[use.signal];
    slot.cancelled.store(use.generation, std::memory_order_relaxed);
    slot.value.store(0, std::memory_order_relaxed);
    slot.generation.store(use.generation, std::memory_order_release);
    objects.signals[use.signal].generation = use.generation;
    objects.signals[use.signal].cancelled = use.generation;
    dropped.push_back(use.signal);
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);  // before wake_waiters()
  for (const std::uint32_t signal : dropped) wake_waiters(worker, signal);
}

void Forwarder::wake_waiters(ForwardedWorker& worker, std::uint32_t signal) {
  // A thread that counts itself in after this load looks at its signal once more before it sleeps.
  // What it then must see is visible already: either the GPU stored it, or a fence stands between.
  if (worker.request->waiters[signal].load() == 0) return;
  auto& wakes = worker.state->signals[signal].wakes;
  wakes.fetch_add(1);
  futex_wake_all(wakes);
}

void Forwarder::drain(std::shared_ptr<ForwardedWorker> worker, StreamId stream,
                      std::function<void()> on_drained) {
  ++worker->drains;
  drains_.push_back(
      Drain{.worker = std::move(worker), .stream = stream, .on_drained = std::move(on_drained)});
}

void Forwarder::submit(Drain& drain) {
  ForwardedStream& stream = streams_[drain.stream.value];
  if (stream.is_decoupled()) {
    drain.end = stream.ring().next();
    return;
  }
  if (stream.ring().full()) return;
  drain.signal = own_signals_.take();
  if (!drain.signal) return;
  stream.push_barrier(drain.worker->id, *drain.signal);
  drain.barrier_end = stream.ring().next();
}

bool Forwarder::is_over(const Drain& drain) const {
  if (drain.signal) return own_signals_.is_complete(*drain.signal);
  return drain.end && !streams_[drain.stream.value].has_in_flight(drain.worker->id, *drain.end);
}

bool Forwarder::advance_drains() {
  if (drains_.empty()) return false;
  bool progress = false;
  for (auto& drain : drains_) {
    if (drain.signal || drain.end) continue;
    submit(drain);
    progress |= drain.signal.has_value();
  }
  std::vector<Drain> finished;
  for (std::size_t i = 0; i < drains_.size();) {
    if (!is_over(drains_[i])) {
      ++i;
      continue;
    }
    finished.push_back(std::move(drains_[i]));
    drains_.erase(drains_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  for (auto& drain : finished) {
    ForwardedStream& stream = streams_[drain.stream.value];
    if (drain.signal) own_signals_.give_back(*drain.signal);
    // The worker may go with this: nothing of its packets may be left to look at.
    stream.collect_completions(board_.gpu_counter_hz);
    stream.completed_until(drain.barrier_end);
    --drain.worker->drains;
    if (drain.on_drained) drain.on_drained();
  }
  return progress || !finished.empty();
}

std::vector<Blame> Forwarder::unfinished() const {
  std::vector<Blame> blames;
  for (const auto& stream : streams_)
    if (const auto blame = stream.unfinished()) blames.push_back(*blame);
  return blames;
}

bool Forwarder::remove_detached() {
  if (detaching_ == 0) return false;
  std::vector<std::shared_ptr<ForwardedWorker>> gone;
  std::erase_if(workers_, [&](const auto& worker) {
    if (!worker->on_detached || worker->drains > 0 || !worker->leases.empty()) return false;
    gone.push_back(worker);
    return true;
  });
  detaching_ -= gone.size();
  for (const auto& worker : gone) worker->on_detached();
  return !gone.empty();
}

}  // namespace eclip::daemon
