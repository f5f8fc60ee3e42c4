#include "daemon/forwarder.h"

#include <pthread.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <utility>

#include "ipc/futex.h"
#include "ipc/testpoint.h"

namespace eclip::daemon {
namespace {

/// Packets taken from one lease before the next has its turn.
constexpr std::uint64_t turn_packets = 64;

}  // namespace

Forwarder::Forwarder(Options options, std::vector<AqlRing*> streams, DrainSignals drain_signals,
                     Board& board, FaultReport report_fault, EndReport report_end)
    : options_(options),
      streams_(std::move(streams)),
      drain_signals_(drain_signals),
      board_(board),
      report_fault_(std::move(report_fault)),
      report_end_(std::move(report_end)),
      mailbox_([this] {
        posted_.fetch_add(1);
        futex_wake_all(posted_);
      }),
      drain_signal_used_(drain_signals.slots.size()),
      packets_(streams_.size()) {}

Forwarder::~Forwarder() {
  stopping_.store(true);
  mailbox_.post([] {});
  if (thread_.joinable()) thread_.join();
}

void Forwarder::start() {
  thread_ = std::thread([this] { run(); });
}

void Forwarder::attach(std::shared_ptr<ForwardedWorker> worker) {
  mailbox_.post([this, worker = std::move(worker)] { workers_.push_back(worker); });
}

void Forwarder::detach(std::shared_ptr<ForwardedWorker> worker, std::function<void()> on_detached) {
  mailbox_.post([worker = std::move(worker), on_detached = std::move(on_detached)] {
    worker->on_detached = on_detached;
    for (auto& lease : worker->leases) {
      lease->closing = true;
      lease->closing_at = lease->reader.taken();
      lease->reason = LeaseEnd::gone;
    }
  });
}

void Forwarder::open_lease(std::shared_ptr<ForwardedWorker> worker,
                           std::unique_ptr<ForwardedLease> lease) {
  // std::function wants something that can be copied.
  auto shared = std::make_shared<std::unique_ptr<ForwardedLease>>(std::move(lease));
  mailbox_.post(
      [worker = std::move(worker), shared] { worker->leases.push_back(std::move(*shared)); });
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

void Forwarder::close_lease(std::shared_ptr<ForwardedWorker> worker, LeaseId lease, LeaseEnd reason,
                            bool drop) {
  mailbox_.post([this, worker = std::move(worker), lease, reason, drop] {
    for (auto& each : worker->leases) {
      if (each->id != lease || each->closing) continue;
      const std::uint64_t written = each->reader.taken() + each->reader.waiting();
      if (drop && each->written_at_revocation && written - *each->written_at_revocation > 1)
        return cut_off(*worker, *each,
                       Error{make_error_code(Errc::lease_ended),
                             "went on submitting to a lease that was revoked"});
      each->closing = true;
      each->closing_at = drop ? each->reader.taken() : written;
      each->reason = reason;
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
    for (const auto& lease : worker->leases) streams.insert(lease->stream);
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
  auto last_progress = std::chrono::steady_clock::now();
  while (!stopping_.load(std::memory_order_relaxed)) {
    const Activity activity = turn();
    const auto now = std::chrono::steady_clock::now();
    if (activity == Activity::progress) {
      last_progress = now;
    } else if (now - last_progress < options_.spin) {
      __builtin_ia32_pause();
    } else if (activity == Activity::waiting) {
      futex_wait(posted_, handled_, options_.nap);
    } else {
      sleep_until_woken();
    }
  }
}

void Forwarder::sleep_until_woken() {
  // Words first, then the flag, then a last look: a worker stores its packet, then reads the flag,
  // then changes its word. Whatever the order, either we see its packet or it sees the flag.
  std::array<FutexExpectation, max_futex_words> words;
  std::size_t count = 0;
  words[count++] = {.word = &posted_, .expected = handled_};
  for (const auto& worker : workers_) {
    if (count == words.size()) break;
    words[count++] = {.word = &worker->request->wake, .expected = worker->request->wake.load()};
  }
  board_.forwarder_asleep.store(1, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!anything_new() && !futex_wait_any({words.data(), count}, std::chrono::nanoseconds(-1))) {
    // Without futex_waitv only the control thread could wake us; look at the workers now and then.
    futex_wait(posted_, handled_, std::chrono::milliseconds(1));
  }
  board_.forwarder_asleep.store(0, std::memory_order_seq_cst);
}

bool Forwarder::anything_new() const {
  return posted_.load() != handled_ ||
         std::any_of(workers_.begin(), workers_.end(), [](const auto& worker) {
           return !worker->outstanding.empty() ||
                  (!worker->cut_off &&
                   std::any_of(worker->leases.begin(), worker->leases.end(),
                               [](const auto& lease) { return lease->reader.waiting() != 0; }));
         });
}

Forwarder::Activity Forwarder::turn() {
  bool progress = false;
  // What is visible now may depend on work posted before; so look first, then do the work.
  for (auto& worker : workers_)
    for (auto& lease : worker->leases) lease->visible = lease->reader.waiting();
  if (const auto posted = posted_.load(std::memory_order_acquire); posted != handled_) {
    handled_ = posted;
    mailbox_.run_all();
    progress = true;
  }
  for (auto& worker : workers_) {
    for (auto& lease : worker->leases)
      if (!worker->cut_off) progress |= forward(*worker, *lease);
    progress |= close_finished_leases(worker);
    progress |= collect_completions(*worker);
  }
  progress |= advance_drains();
  progress |= remove_detached();
  if (progress) return Activity::progress;
  return waits_for_anything() ? Activity::waiting : Activity::idle;
}

bool Forwarder::waits_for_anything() const {
  return !drains_.empty() || std::any_of(workers_.begin(), workers_.end(), [](const auto& worker) {
    return !worker->outstanding.empty() ||
           (!worker->cut_off && std::any_of(worker->leases.begin(), worker->leases.end(),
                                            [](const auto& lease) { return lease->visible != 0; }));
  });
}

bool Forwarder::forward(ForwardedWorker& worker, ForwardedLease& lease) {
  if (lease.visible > LeaseRing::slot_count) {
    cut_off(worker, lease,
            Error{make_error_code(Errc::malformed),
                  "the ring's write index claims " + std::to_string(lease.visible) +
                      " packets; it has room for " + std::to_string(LeaseRing::slot_count)});
    return true;
  }
  AqlRing& ring = *streams_[lease.stream.value];
  std::uint64_t room = turn_packets;
  if (lease.closing) room = std::min(room, lease.closing_at - lease.reader.taken());
  const std::uint64_t begin = ring.next();
  std::optional<Error> fault;
  while (lease.visible > 0 && room > 0 && !ring.full()) {
    const auto vetted = vet_packet(lease.reader.copy_next(), worker.objects);
    if (!vetted) {
      fault = vetted.error();
      break;
    }
    if (vetted->cancelled) {
      lease.closing = true;
      lease.closing_at = lease.reader.taken();
      lease.reason = LeaseEnd::dependency;
      report_end_(worker.id, lease.id, lease.reason);
      break;
    }
    if (vetted->hold || must_wait_for_barriers(worker, *vetted)) break;
    ECLIP_TESTPOINT("packet_vetted");
    push(worker, lease.stream, *vetted);
    ECLIP_TESTPOINT("packet_pushed");
    lease.reader.pop();
    --lease.visible;
    --room;
  }
  const std::uint64_t pushed = ring.next() - begin;
  if (pushed > 0) {
    ECLIP_TESTPOINT("before_doorbell");
    ring.ring_doorbell();
    ECLIP_TESTPOINT("after_doorbell");
    worker.packets.fetch_add(pushed, std::memory_order_relaxed);
    lease.use->packets.fetch_add(pushed, std::memory_order_relaxed);
    packets_[lease.stream.value].fetch_add(pushed, std::memory_order_relaxed);
  }
  if (fault) cut_off(worker, lease, *fault);
  return pushed > 0 || fault.has_value();
}

bool Forwarder::must_wait_for_barriers(const ForwardedWorker& worker,
                                       const VettedPacket& vetted) const {
  // A barrier in a queue still waits for the completion signal's last use: arming it again would
  // make the barrier wait for this packet too, perhaps for ever.
  if (vetted.completion.generation == 0) return false;
  const auto& ends = worker.objects.signals[vetted.completion.signal].barriers_end;
  for (std::size_t stream = 0; stream < streams_.size(); ++stream)
    if (ends[stream] > 0 && !streams_[stream]->consumed(ends[stream] - 1)) return true;
  return false;
}

void Forwarder::push(ForwardedWorker& worker, StreamId stream, const VettedPacket& vetted) {
  AqlRing& ring = *streams_[stream.value];
  auto& objects = worker.objects;
  if (const SignalUse use = vetted.completion; use.generation != 0) {
    SignalSlot& slot = objects.signal_slots[use.signal];
    slot.value.store(1, std::memory_order_relaxed);
    ECLIP_TESTPOINT("signal_armed");
    slot.generation.store(use.generation, std::memory_order_release);
    objects.signals[use.signal].generation = use.generation;
    objects.signals[use.signal].cancelled = false;
    if (!worker.is_outstanding[use.signal]) {
      worker.is_outstanding[use.signal] = true;
      worker.outstanding.push_back(use.signal);
    }
  }
  for (std::uint32_t i = 0; i < vetted.wait_count; ++i)
    objects.signals[vetted.waits_for[i]].barriers_end[stream.value] = ring.next() + 1;
  ring.push(vetted.image);
}

void Forwarder::cut_off(ForwardedWorker& worker, const ForwardedLease& lease, const Error& error) {
  worker.cut_off = true;
  worker.state->fault_lease.store(lease.id.value, std::memory_order_relaxed);
  worker.state->fault_packet.store(lease.reader.taken(), std::memory_order_relaxed);
  worker.state->fault.store(static_cast<std::uint32_t>(error.code.value()),
                            std::memory_order_release);
  for (std::uint32_t signal = 0; signal < WorkerState::signal_count; ++signal)
    wake_waiters(worker, signal);
  report_fault_(worker.id, lease.id, lease.reader.taken(), error);
}

bool Forwarder::close_finished_leases(const std::shared_ptr<ForwardedWorker>& worker) {
  bool any = false;
  auto& leases = worker->leases;
  for (std::size_t i = 0; i < leases.size();) {
    ForwardedLease& lease = *leases[i];
    if (!lease.closing || (lease.reader.taken() < lease.closing_at && !worker->cut_off)) {
      ++i;
      continue;
    }
    end_lease(*worker, lease, worker->cut_off ? LeaseEnd::cut_off : lease.reason);
    drain(worker, lease.stream, std::move(lease.on_closed));
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
    objects.signals[use.signal].cancelled = true;
    wake_waiters(worker, use.signal);
  }
}

void Forwarder::wake_waiters(ForwardedWorker& worker, std::uint32_t signal) {
  // A thread that counts itself in after this load looks at its signal once more before it sleeps.
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

bool Forwarder::advance_drains() {
  bool progress = false;
  for (auto& drain : drains_) {
    AqlRing& ring = *streams_[drain.stream.value];
    if (drain.submitted || ring.full()) continue;
    const auto free = std::find(drain_signal_used_.begin(), drain_signal_used_.end(), false);
    if (free == drain_signal_used_.end()) break;
    drain.signal = static_cast<std::uint32_t>(free - drain_signal_used_.begin());
    *free = true;
    drain_signals_.slots[drain.signal].value.store(1, std::memory_order_relaxed);
    AqlImage image{};
    image.barrier.header = HSA_PACKET_TYPE_BARRIER_AND << HSA_PACKET_HEADER_TYPE |
                           1 << HSA_PACKET_HEADER_BARRIER |
                           HSA_FENCE_SCOPE_SYSTEM << HSA_PACKET_HEADER_SCRELEASE_FENCE_SCOPE;
    image.barrier.completion_signal.handle =
        drain_signals_.gpu_address + drain.signal * sizeof(SignalSlot);
    ring.push(image);
    ring.ring_doorbell();
    drain.submitted = true;
    progress = true;
  }
  std::vector<Drain> finished;
  for (std::size_t i = 0; i < drains_.size();) {
    Drain& drain = drains_[i];
    if (!drain.submitted ||
        drain_signals_.slots[drain.signal].value.load(std::memory_order_acquire) != 0) {
      ++i;
      continue;
    }
    drain_signal_used_[drain.signal] = false;
    finished.push_back(std::move(drain));
    drains_.erase(drains_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  for (auto& drain : finished) {
    --drain.worker->drains;
    if (drain.on_drained) drain.on_drained();
  }
  return progress || !finished.empty();
}

bool Forwarder::remove_detached() {
  std::vector<std::shared_ptr<ForwardedWorker>> gone;
  std::erase_if(workers_, [&](const auto& worker) {
    if (!worker->on_detached || worker->drains > 0 || !worker->leases.empty()) return false;
    gone.push_back(worker);
    return true;
  });
  for (const auto& worker : gone) worker->on_detached();
  return !gone.empty();
}

}  // namespace eclip::daemon
