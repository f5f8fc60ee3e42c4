#include "daemon/forwarded_stream.h"

#include <algorithm>

#include "daemon/forwarder.h"
#include "ipc/clock_ticks.h"

namespace eclip::daemon {
namespace {

/// Packets of one lease of ordinary weight in the queue of a decoupled stream: enough to hide the
/// way there, few enough that none waits long for the others'.
constexpr std::uint64_t shared_depth = 32;
/// Completions of a stream that are looked for at a time; the next burst's tells for those before.
constexpr std::size_t max_samples = 64;
/// Turns in the queue whose first packet has not completed: one that the hardware is at, and one
/// that it goes on with while the forwarder has not yet seen so.
constexpr std::ptrdiff_t max_turns_ahead = 2;

constexpr std::uint16_t barrier_bit = 1 << HSA_PACKET_HEADER_BARRIER;

}  // namespace

ForwardedStream::ForwardedStream(StreamId id, AqlRing& ring, SignalPool& signals)
    : id_(id), ring_(&ring), signals_(&signals), owners_(ring.size()) {}

void ForwardedStream::lease_opened(ForwardedWorker& worker, ForwardedLease& lease) {
  members_.push_back({.worker = &worker, .lease = &lease});
  ++open_leases_;
  if (lease.scheduled) ++scheduled_leases_;
  update_mode();
}

void ForwardedStream::lease_closed(const ForwardedLease& lease) {
  std::erase_if(members_, [&](const Member& member) { return member.lease == &lease; });
  turns_.forget(lease.id);
}

void ForwardedStream::lease_drained(bool scheduled) {
  --open_leases_;
  if (scheduled) --scheduled_leases_;
  update_mode();
}

void ForwardedStream::update_mode() {
  const Mode mode = open_leases_ <= 1       ? Mode::alone
                    : scheduled_leases_ > 0 ? Mode::turns
                                            : Mode::decoupled;
  if (mode == mode_) return;
  // A fence that is wanted still comes, whatever the mode: drains may wait for it.
  if (mode == Mode::decoupled && ring_->next() > 0) fence_wanted_ = true;
  if (mode == Mode::turns) turns_.begin_anew();
  mode_ = mode;
}

bool ForwardedStream::may_push(LeaseId lease) const {
  if (turns_.owner() == lease) return true;
  const auto ahead = std::count_if(in_flight_.begin(), in_flight_.end(),
                                   [](const InFlight& packet) { return packet.begins_turn; });
  return ahead < max_turns_ahead && signals_->has_some();
}

bool ForwardedStream::has_others_in_flight(LeaseId lease) const {
  return std::any_of(in_flight_.begin(), in_flight_.end(),
                     [lease](const InFlight& packet) { return packet.lease != lease; });
}

void ForwardedStream::place_fence() {
  if (!fence_wanted_ || fence_ || ring_->full()) return;
  fence_ = signals_->take();
  if (!fence_) return;
  push_barrier(WorkerId{0}, *fence_);
  fence_wanted_ = false;
}

bool ForwardedStream::decouple(const ForwardedLease& lease, VettedPacket& vetted) {
  const std::size_t before = in_flight_of(lease.id);
  const bool ordered = (vetted.image.dispatch.header & barrier_bit) != 0;
  if (vetted.wait_count > 0 ||
      before >= std::max<std::uint64_t>(1, shared_depth * lease.weight / 100) ||
      (ordered && (before > 0 || fence_)))
    return false;
  if (vetted.completion.generation == 0) {
    vetted.own_signal = signals_->take();
    if (!vetted.own_signal) return false;
    vetted.image.dispatch.completion_signal.handle = signals_->gpu_address(*vetted.own_signal);
  }
  vetted.image.dispatch.header =
      static_cast<std::uint16_t>(vetted.image.dispatch.header & ~barrier_bit);
  return true;
}

void ForwardedStream::push(ForwardedWorker& worker, ForwardedLease& lease, VettedPacket& vetted,
                           std::uint32_t kernel, bool group_end) {
  const bool begins_turn = takes_turns() && turns_.pushed(lease.id, group_end);
  if (begins_turn) vetted.image.dispatch.header |= barrier_bit;
  owner(ring_->next()) = {
      .worker = static_cast<std::uint32_t>(worker.id.value),
      .lease = static_cast<std::uint32_t>(lease.id.value),
      .kernel = kernel,
      .barrier = vetted.image.dispatch.header >> HSA_PACKET_HEADER_BARRIER & 1U};
  const std::uint64_t number = ring_->next();
  ring_->push(vetted.image);
  last_completion_ = vetted.completion;
  lease.pushed_end = number + 1;
  if (is_decoupled())
    in_flight_.push_back({.number = number,
                          .worker = &worker,
                          .lease = lease.id,
                          .use = lease.use,
                          .theirs = vetted.completion,
                          .own = vetted.own_signal,
                          .after_idle = true,
                          .begins_turn = false});
  else if (begins_turn || in_flight_.empty())
    see_completion_of_last(worker, lease, begins_turn);
}

void ForwardedStream::see_completion_of_last(ForwardedWorker& worker, const ForwardedLease& lease,
                                             bool begins_turn) {
  const std::uint64_t number = ring_->next() - 1;
  if ((in_flight_.size() >= max_samples && !begins_turn) ||
      (!in_flight_.empty() && in_flight_.back().number == number))
    return;
  std::optional<std::uint32_t> own;
  if (last_completion_.generation == 0) {
    own = signals_->take();
    if (!own) return;
    ring_->set_completion_of_last(signals_->gpu_address(*own));
  }
  in_flight_.push_back({.number = number,
                        .worker = &worker,
                        .lease = lease.id,
                        .use = lease.use,
                        .theirs = last_completion_,
                        .own = own,
                        .after_idle = begins_turn || in_flight_.empty(),
                        .begins_turn = begins_turn});
}

void ForwardedStream::end_burst(ForwardedWorker& worker, const ForwardedLease& lease,
                                std::uint64_t packets) {
  if (!is_decoupled()) see_completion_of_last(worker, lease);
  ring_->ring_doorbell();
  packets_.store(packets_.load(std::memory_order_relaxed) + packets, std::memory_order_relaxed);
}

bool ForwardedStream::push_barrier(WorkerId worker, std::uint32_t signal) {
  if (ring_->full()) return false;
  owner(ring_->next()) = {
      .worker = static_cast<std::uint32_t>(worker.value), .lease = 0, .kernel = 0, .barrier = 1};
  AqlImage image{};
  image.barrier.header = HSA_PACKET_TYPE_BARRIER_AND << HSA_PACKET_HEADER_TYPE | barrier_bit |
                         HSA_FENCE_SCOPE_SYSTEM << HSA_PACKET_HEADER_SCRELEASE_FENCE_SCOPE;
  image.barrier.completion_signal.handle = signals_->gpu_address(signal);
  ring_->push(image);
  ring_->ring_doorbell();
  return true;
}

bool ForwardedStream::is_complete(const InFlight& packet) const {
  if (packet.own) return signals_->is_complete(*packet.own);
  const auto& objects = packet.worker->objects;
  // A signal is used again only after its last use has completed.
  return objects.signals[packet.theirs.signal].generation != packet.theirs.generation ||
         objects.is_complete(packet.theirs.signal);
}

bool ForwardedStream::collect_completions(std::uint64_t counter_hz) {
  bool any = false;
  if (fence_ && signals_->is_complete(*fence_)) {
    signals_->give_back(*fence_);
    fence_.reset();
    any = true;
  }
  place_fence();
  for (auto packet = in_flight_.begin(); packet != in_flight_.end();) {
    if (!is_complete(*packet)) {
      if (!is_decoupled()) break;  // those behind it are later
      ++packet;
      continue;
    }
    account(*packet, counter_hz);
    if (owner(packet->number).barrier != 0 || complete_until_ == packet->number)
      complete_until_ = std::max(complete_until_, packet->number + 1);
    if (packet->own) signals_->give_back(*packet->own);
    packet = in_flight_.erase(packet);
    any = true;
  }
  // Each packet is seen, but for those before the fence.
  if (any && is_decoupled() && !fence_wanted_ && !fence_)
    completed_until(in_flight_.empty() ? ring_->next() : in_flight_.front().number);
  return any;
}

bool ForwardedStream::has_completions() const {
  const auto first = in_flight_.begin() + (in_flight_.empty() ? 0 : 1);
  return (fence_ && signals_->is_complete(*fence_)) ||
         std::any_of(in_flight_.begin(), is_decoupled() ? in_flight_.end() : first,
                     [this](const InFlight& packet) { return is_complete(packet); });
}

void ForwardedStream::set_interrupt(const CompletionInterrupt* interrupt) {
  if (fence_) signals_->set_interrupt(*fence_, interrupt);
  for (const InFlight& packet : in_flight_)
    if (packet.own) signals_->set_interrupt(*packet.own, interrupt);
}

void ForwardedStream::account(const InFlight& packet, std::uint64_t counter_hz) {
  const SignalSlot& slot = packet.own ? signals_->slot(*packet.own)
                                      : packet.worker->objects.signal_slots[packet.theirs.signal];
  const std::uint64_t ticks =
      busy_.add(__atomic_load_n(&slot.start_ts, __ATOMIC_RELAXED),
                __atomic_load_n(&slot.end_ts, __ATOMIC_RELAXED), packet.after_idle);
  const std::uint64_t ns = ticks_to_ns(ticks, counter_hz);
  packet.use->device_ns.fetch_add(ns, std::memory_order_relaxed);
  packet.worker->device_ns.fetch_add(ns, std::memory_order_relaxed);
}

std::size_t ForwardedStream::in_flight_of(LeaseId lease) const {
  return static_cast<std::size_t>(
      std::count_if(in_flight_.begin(), in_flight_.end(),
                    [lease](const InFlight& packet) { return packet.lease == lease; }));
}

bool ForwardedStream::has_in_flight(WorkerId worker, std::uint64_t end) const {
  return fence_wanted_ || fence_ ||
         std::any_of(in_flight_.begin(), in_flight_.end(), [&](const InFlight& packet) {
           return packet.worker->id == worker && packet.number < end;
         });
}

std::optional<Blame> ForwardedStream::unfinished() const {
  const std::uint64_t next = ring_->next();
  std::optional<std::uint64_t> oldest;
  for (const auto& packet : in_flight_)
    if (is_decoupled() && !oldest && !is_complete(packet)) oldest = packet.number;
  if (!oldest && !is_decoupled()) {
    // Of the packets that the processor is past, those since the last barrier may still run.
    std::uint64_t complete = complete_until_;
    for (const auto& packet : in_flight_)
      if (is_complete(packet) && (owner(packet.number).barrier != 0 || complete == packet.number))
        complete = packet.number + 1;
    const std::uint64_t past = std::min(ring_->processed(), next);
    for (std::uint64_t number = past; number > complete && past - number < owners_.size();) {
      oldest = --number;
      if (owner(number).barrier != 0) break;
    }
    if (!oldest && past < next) oldest = past;
  }
  if (!oldest) return std::nullopt;
  const Owner& whose = owner(*oldest);
  return Blame{.stream = id_,
               .worker = WorkerId{whose.worker},
               .lease = LeaseId{whose.lease},
               .kernel = whose.kernel,
               .packet = *oldest};
}

std::optional<ForwardedStream::Progress> ForwardedStream::progress() const {
  // When all that is seen has completed, so has what was pushed last.
  if (in_flight_.empty() && ring_->processed() >= ring_->next()) return std::nullopt;
  const auto oldest = unfinished();
  if (!oldest) return std::nullopt;
  return Progress{.oldest = oldest->packet,
                  .processed = is_decoupled() ? 0 : ring_->processed(),
                  .seen = is_decoupled() || in_flight_.empty() ? 0 : in_flight_.front().number};
}

}  // namespace eclip::daemon
