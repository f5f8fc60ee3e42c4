// What the worker's threads call: programs, events, operations, who is active.
#include "libeclip/scheduler.h"

#include <algorithm>
#include <bit>

#include "libeclip/scheduler_words.h"

namespace eclip {

Scheduler::Scheduler(PacketSink& sink, PlanReader plan, SchedulerReport& report,
                     std::atomic<std::uint32_t>* active_set)
    : sink_(sink), plan_(plan), report_(report), active_set_(active_set) {}

Scheduler::~Scheduler() {
  const std::uint32_t bit = seat_bit_.load();
  if (active_set_ != nullptr && bit != 0) active_set_->fetch_and(~bit);
  report_.deadline_ns.store(0, std::memory_order_relaxed);
}

Program* Scheduler::create_program() {
  const std::lock_guard lock(creation_);
  const std::uint32_t count = program_count_.load(std::memory_order_relaxed);
  if (count == programs_.size()) return nullptr;
  const bool has_unmasked = sink_.has_stream(PacketSink::unmasked);
  programs_[count].reset(new Program(has_unmasked ? PacketSink::unmasked : 0));
  program_count_.store(count + 1, std::memory_order_release);
  return programs_[count].get();
}

std::optional<std::uint32_t> Scheduler::create_event() {
  const std::lock_guard lock(creation_);
  const std::uint32_t count = event_count_.load(std::memory_order_relaxed);
  if (count == events_.size()) return std::nullopt;
  events_[count] = std::make_unique<Event>();
  event_count_.store(count + 1, std::memory_order_release);
  return count;
}

// --- operations

Enqueued Scheduler::put(Program& program, const Operation& operation) {
  if (is_lost()) return Enqueued::lost;
  const std::uint64_t number = program.enqueued.load(std::memory_order_relaxed);
  if (number - program.gone.load(std::memory_order_acquire) >= Program::capacity) {
    advance(true);
    if (number - program.gone.load(std::memory_order_acquire) >= Program::capacity)
      return is_lost() ? Enqueued::lost : Enqueued::full;
  }
  (*program.operations)[number % Program::capacity] = operation;
  program.enqueued.store(number + 1, std::memory_order_release);
  return Enqueued::yes;
}

Enqueued Scheduler::begin_request(Program& program, std::uint64_t deadline_ns) {
  if (program.request_is_open) return Enqueued::invalid;
  if (program.begun - requests_done(program) >= Program::most_requests) {
    advance(true);
    if (program.begun - requests_done(program) >= Program::most_requests)
      return is_lost() ? Enqueued::lost : Enqueued::full;
  }
  const Enqueued result =
      put(program, {.kind = Program::OperationKind::begin, .deadline_ns = deadline_ns});
  if (result != Enqueued::yes) return result;
  program.request_is_open = true;
  ++program.begun;
  add_work(1);
  advance(true);
  return result;
}

Enqueued Scheduler::end_request(Program& program) {
  if (!program.request_is_open) return Enqueued::invalid;
  const Enqueued result = put(program, {.kind = Program::OperationKind::end});
  if (result != Enqueued::yes) return result;
  program.request_is_open = false;
  advance(false);
  return result;
}

Enqueued Scheduler::dispatch(Program& program, const LeaseDispatch& kernel, BypassReason stays) {
  const Enqueued result =
      put(program, {.kind = Program::OperationKind::dispatch, .reason = stays, .dispatch = kernel});
  if (result == Enqueued::yes) advance(false);
  return result;
}

Enqueued Scheduler::record(Program& program, std::uint32_t event, EventUse* use) {
  if (event >= event_count_.load(std::memory_order_acquire)) return Enqueued::invalid;
  const EventUse recorded{.event = event, .recording = events_[event]->recordings + 1};
  const Enqueued result = put(
      program, {.kind = Program::OperationKind::record, .event_count = 1, .events = {recorded}});
  if (result != Enqueued::yes) return result;
  events_[event]->recordings = recorded.recording;
  if (use != nullptr) *use = recorded;
  advance(false);
  return result;
}

Enqueued Scheduler::wait(Program& program, std::span<const EventUse> events) {
  Operation operation;
  operation.kind = Program::OperationKind::wait;
  for (const EventUse& use : events)
    if (use.recording != 0 && use.event >= event_count_.load(std::memory_order_acquire))
      return Enqueued::invalid;
  // All or nothing.
  const std::size_t operations = (events.size() + 4) / 5;
  if (operations > Program::capacity) return Enqueued::invalid;
  const std::uint64_t number = program.enqueued.load(std::memory_order_relaxed);
  if (number + operations - program.gone.load(std::memory_order_acquire) > Program::capacity)
    advance(true);
  if (number + operations - program.gone.load(std::memory_order_acquire) > Program::capacity)
    return is_lost() ? Enqueued::lost : Enqueued::full;
  for (std::size_t first = 0; first < events.size(); first += operation.events.size()) {
    const auto some =
        events.subspan(first, std::min(operation.events.size(), events.size() - first));
    operation.event_count = static_cast<std::uint32_t>(some.size());
    operation.events = {};
    std::copy(some.begin(), some.end(), operation.events.begin());
    if (const Enqueued result = put(program, operation); result != Enqueued::yes) return result;
  }
  advance(false);
  return Enqueued::yes;
}

Enqueued Scheduler::call(Program& program, void (*function)(void*), void* argument) {
  const Enqueued result =
      put(program, {.kind = Program::OperationKind::call, .call = {function, argument}});
  if (result == Enqueued::yes) advance(true);
  return result;
}

Enqueued Scheduler::pin(Program& program, BypassReason reason) {
  if (program.pin_is_open) return Enqueued::invalid;
  const Enqueued result = put(program, {.kind = Program::OperationKind::pin, .reason = reason});
  if (result != Enqueued::yes) return result;
  program.pin_is_open = true;
  advance(false);
  return result;
}

Enqueued Scheduler::unpin(Program& program) {
  if (!program.pin_is_open) return Enqueued::invalid;
  const Enqueued result = put(program, {.kind = Program::OperationKind::unpin});
  if (result != Enqueued::yes) return result;
  program.pin_is_open = false;
  advance(false);
  return result;
}

bool Scheduler::is_complete(EventUse use) {
  if (use.recording == 0) return true;
  if (use.event >= event_count_.load(std::memory_order_acquire)) return true;
  const Event& event = *events_[use.event];
  const std::uint32_t submitted = event.submitted.load(std::memory_order_acquire);
  if (static_cast<std::int32_t>(submitted - use.recording) < 0) return false;
  // A later recording stands for the earlier ones: see record_event.
  return has_run(unpack(event.use.load(std::memory_order_acquire)));
}

std::uint32_t Scheduler::active_others() const {
  if (active_set_ == nullptr) return 0;
  return static_cast<std::uint32_t>(std::popcount(active_set_->load() & ~seat_bit_.load()));
}

SignalUse Scheduler::awaited(const Program& program) const {
  return unpack(program.awaited.load(std::memory_order_acquire));
}

SignalUse Scheduler::awaited() const {
  const std::uint32_t count = program_count_.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < count; ++i)
    if (const SignalUse use = awaited(*programs_[i]); use.generation != 0) return use;
  return {0, 0};
}

// --- active or idle

void Scheduler::add_work(std::int64_t requests) {
  const std::int64_t before = work_.fetch_add(requests);
  if ((before > 0) != (before + requests > 0)) show_activity();
}

/// Whoever stores last looks once more, so that the bit is right when all threads are through.
void Scheduler::show_activity() {
  if (active_set_ == nullptr) return;
  while (const std::uint32_t bit = seat_bit_.load()) {
    // Whoever can do nothing more is in nobody's way.
    const auto is_active = [this] { return work_.load() > 0 && !is_lost(); };
    const bool active = is_active();
    if (active)
      active_set_->fetch_or(bit);
    else
      active_set_->fetch_and(~bit);
    if (active == is_active()) return;
  }
}

void Scheduler::set_waiting_requests(std::uint32_t count) {
  const std::int64_t more = std::int64_t{count} - waiting_;
  waiting_ = count;
  if (more != 0) add_work(more);
}

}  // namespace eclip
