// Scheduler::advance: carries operations out, in their order, as far as they may go, and notices
// what has completed. One thread at a time.
#include <algorithm>

#include "libeclip/scheduler.h"
#include "libeclip/scheduler_words.h"

namespace eclip {
namespace {

// state_: somebody is in work(), and is to do it once more.
constexpr std::uint32_t busy = 1;
constexpr std::uint32_t again = 2;

/// Weight of an observed group against what was observed before.
constexpr float drift_weight = 1.0F / 16;
constexpr float least_drift = 0.001F;
constexpr float most_drift = 60;

}  // namespace

void Scheduler::advance() {
  advance(true);
}

void Scheduler::advance(bool collect_first) {
  // A function that was called has made room for what follows it.
  while (try_work(collect_first) && run_calls()) collect_first = true;
}

/// False: another thread is at it, and will do what there is now, too.
bool Scheduler::try_work(bool collect_first) {
  std::uint32_t state = 0;
  while (!state_.compare_exchange_strong(state, busy, std::memory_order_acquire)) {
    if (state != 0 &&
        state_.compare_exchange_strong(state, busy | again, std::memory_order_acq_rel))
      return false;
    state = 0;
  }
  while (true) {
    work(collect_first);
    std::uint32_t mine = busy;
    if (state_.compare_exchange_strong(mine, 0, std::memory_order_release)) return true;
    state_.exchange(busy, std::memory_order_acq_rel);
    collect_first = true;
  }
}

void Scheduler::work(bool collect_first) {
  const std::uint32_t count = program_count_.load(std::memory_order_acquire);
  // The seat comes with the first plan: before the first group, for requests that wait.
  if (!groups_ && plan_.epoch() != groups_epoch_) read_plan();
  do {
    event_submitted_ = false;
    for (std::uint32_t i = 0; i < count; ++i) {
      Program& program = *programs_[i];
      if (collect_first) collect(program);
      drain(program);
    }
    // Other programs may wait for the event.
  } while (event_submitted_ && count > 1);
  for (std::uint32_t i = 0; i < count; ++i) publish(*programs_[i]);
}

void Scheduler::drain(Program& program) {
  std::uint64_t gone = program.gone.load(std::memory_order_relaxed);
  const std::uint64_t enqueued = program.enqueued.load(std::memory_order_acquire);
  while (gone != enqueued && !is_lost() &&
         carry_out(program, (*program.operations)[gone % Program::capacity])) {
    ++gone;
    program.gone.store(gone, std::memory_order_release);
  }
}

void Scheduler::publish(Program& program) {
  SignalUse use{0, 0};
  if (program.under_way_count > 0)
    use = program.under_way[0].last;
  else if (program.outstanding && !sink_.is_complete(program.mark))
    use = program.mark;
  else if (program.dependency_count > 0 && !sink_.is_complete(program.dependencies[0].use))
    use = program.dependencies[0].use;
  program.awaited_stream.store(program.stream, std::memory_order_relaxed);
  program.awaited.store(pack(use), std::memory_order_release);
}

/// False: not now.
bool Scheduler::carry_out(Program& program, const Operation& operation) {
  switch (operation.kind) {
    case Program::OperationKind::dispatch:
      return send_kernel(program, operation);
    case Program::OperationKind::begin:
      return begin(program, operation);
    case Program::OperationKind::end:
      return end(program);
    case Program::OperationKind::wait:
      return add_dependencies(program, operation);
    case Program::OperationKind::record:
      return record_event(program, operation);
    case Program::OperationKind::call:
      return be_ready_to_call(program);
    case Program::OperationKind::pin:
      return change_pin(program, operation.reason);
    case Program::OperationKind::unpin:
      return change_pin(program, std::nullopt);
  }
  return true;
}

// --- requests, events, functions, pins

bool Scheduler::begin(Program& program, const Operation& operation) {
  if (!close_group(program)) return false;
  collect(program);
  if (program.end_request - program.first_request == Program::most_requests) return false;
  program.requests[program.end_request++ % Program::most_requests] = {.deadline_ns =
                                                                          operation.deadline_ns};
  const std::uint64_t earliest = report_.deadline_ns.load(std::memory_order_relaxed);
  if (operation.deadline_ns != 0 && (earliest == 0 || operation.deadline_ns < earliest))
    report_.deadline_ns.store(operation.deadline_ns, std::memory_order_relaxed);
  add(report_.requests, 1);
  program.in_request = true;
  program.known = true;
  program.kernel = 0;
  return true;
}

bool Scheduler::end(Program& program) {
  if (!close_group(program)) return false;
  if (program.dependency_count > 0 && !send_dependencies(program)) return false;
  if (!mark_last(program, true)) return false;
  program.in_request = false;
  Program::Request& request = program.requests[(program.end_request - 1) % Program::most_requests];
  request.ended = true;
  if (program.outstanding) request.last = program.last;
  collect(program);
  return true;
}

bool Scheduler::add_dependencies(Program& program, const Operation& operation) {
  if (program.dependency_count + operation.event_count > Program::most_dependencies &&
      !send_dependencies(program))
    return false;
  for (std::uint32_t i = 0; i < operation.event_count; ++i) {
    const EventUse& use = operation.events[i];
    if (use.recording == 0) continue;
    const std::uint32_t submitted = events_[use.event]->submitted.load(std::memory_order_relaxed);
    // A packet goes after all that it waits for.
    if (static_cast<std::int32_t>(submitted - use.recording) < 0) return false;
  }
  for (std::uint32_t i = 0; i < operation.event_count; ++i) {
    if (operation.events[i].recording == 0) continue;
    const Event& event = *events_[operation.events[i].event];
    const SignalUse use = unpack(event.use.load(std::memory_order_relaxed));
    if (!has_run(use)) program.dependencies[program.dependency_count++] = {use, event.stream};
  }
  return true;
}

bool Scheduler::record_event(Program& program, const Operation& operation) {
  Event& event = *events_[operation.events[0].event];
  // Recordings of several programs take effect in their order, and each stands for those before.
  if (event.submitted.load(std::memory_order_relaxed) + 1 != operation.events[0].recording)
    return false;
  if (event.program != &program) {
    const SignalUse before = unpack(event.use.load(std::memory_order_relaxed));
    if (!has_run(before)) {
      if (program.dependency_count == Program::most_dependencies && !send_dependencies(program))
        return false;
      program.dependencies[program.dependency_count++] = {before, event.stream};
    }
    event.program = &program;
  }
  if (program.dependency_count > 0 && !send_dependencies(program)) return false;
  if (!mark_last(program, false)) return false;
  event.stream = program.stream;
  event.use.store(program.outstanding ? pack(program.last) : 0, std::memory_order_release);
  event.submitted.store(operation.events[0].recording, std::memory_order_release);
  event_submitted_ = true;
  return true;
}

bool Scheduler::be_ready_to_call(Program& program) {
  switch (program.call_state.load(std::memory_order_acquire)) {
    case Program::CallState::none:
      if (program.dependency_count > 0 && !send_dependencies(program)) return false;
      if (!mark_last(program, false)) return false;
      if (program.outstanding && !has_run(program.last)) return false;
      program.call_state.store(Program::CallState::ready, std::memory_order_release);
      return false;
    case Program::CallState::done:
      program.call_state.store(Program::CallState::none, std::memory_order_release);
      return true;
    default:
      return false;
  }
}

/// Whether there was one.
bool Scheduler::run_calls() {
  bool any = false;
  const std::uint32_t count = program_count_.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < count; ++i) {
    Program& program = *programs_[i];
    auto ready = Program::CallState::ready;
    if (program.call_state.load(std::memory_order_relaxed) != ready ||
        !program.call_state.compare_exchange_strong(ready, Program::CallState::running))
      continue;
    const std::uint64_t gone = program.gone.load(std::memory_order_acquire);
    const Program::Call call = (*program.operations)[gone % Program::capacity].call;
    call.function(call.argument);
    program.call_state.store(Program::CallState::done, std::memory_order_release);
    any = true;
  }
  return any;
}

bool Scheduler::change_pin(Program& program, std::optional<BypassReason> pin) {
  // To or from the one stream of a uniform library: also within a group.
  const bool moves = pin == BypassReason::uniform || program.pin == BypassReason::uniform;
  if (moves && !close_group(program)) return false;
  program.pin = pin;
  return true;
}

// --- completions

/// Whether the packet of a use has completed. One that was dropped has not: what comes after it, on
/// whatever stream, must not go, and nothing more counts as done.
bool Scheduler::has_run(SignalUse use) {
  if (!sink_.is_complete(use)) return false;
  if (!sink_.is_dropped(use)) return true;
  lose();
  return false;
}

void Scheduler::lose() {
  if (!lost_.exchange(true, std::memory_order_acq_rel)) show_activity();
}

void Scheduler::collect(Program& program) {
  std::uint32_t complete = 0;
  while (complete < program.under_way_count && has_run(program.under_way[complete].last)) {
    observe(program.under_way[complete], program);
    ++complete;
  }
  if (complete > 0) {
    std::copy(program.under_way.begin() + complete,
              program.under_way.begin() + program.under_way_count, program.under_way.begin());
    program.under_way_count -= complete;
  }
  if (program.outstanding && program.last.generation != 0 && has_run(program.last))
    program.outstanding = false;
  while (program.first_request != program.end_request) {
    const Program::Request& request =
        program.requests[program.first_request % Program::most_requests];
    if (!request.ended || !has_run(request.last)) break;
    ++program.first_request;
    request_completed(program);
  }
}

void Scheduler::request_completed(Program& program) {
  std::uint64_t earliest = 0;
  const std::uint32_t count = program_count_.load(std::memory_order_acquire);
  for (std::uint32_t p = 0; p < count; ++p) {
    const Program& other = *programs_[p];
    for (std::uint64_t i = other.first_request; i != other.end_request; ++i) {
      const std::uint64_t deadline = other.requests[i % Program::most_requests].deadline_ns;
      if (deadline != 0 && (earliest == 0 || deadline < earliest)) earliest = deadline;
    }
  }
  report_.deadline_ns.store(earliest, std::memory_order_relaxed);
  add_work(-1);
  program.requests_done.store(program.first_request, std::memory_order_release);
}

void Scheduler::observe(const Program::Group& group, Program& program) {
  const auto times = sink_.times(group.last);
  // Of the group behind it, this one's end is the beginning.
  for (std::uint32_t i = 0; times && i < program.under_way_count; ++i)
    if (program.under_way[i].before == group.last)
      program.under_way[i].before_end_ns = times->end_ns;
  if (!times || group.predicted_us <= 0 || group.before_end_ns == 0 ||
      group.epoch != groups_epoch_ || times->end_ns <= group.before_end_ns)
    return;
  const float observed_us = static_cast<float>(times->end_ns - group.before_end_ns) / 1000;
  const float ratio = std::clamp(observed_us / group.predicted_us, least_drift, most_drift);
  float& drift = drift_[group.group];
  drift = drift == 0 ? ratio : drift + drift_weight * (ratio - drift);
  report_.group_permille[group.group].store(static_cast<std::uint16_t>(drift * 1000),
                                            std::memory_order_relaxed);
}

}  // namespace eclip
