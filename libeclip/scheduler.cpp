#include "libeclip/scheduler.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace eclip {
namespace {

// state_: somebody is in work(), and is to do it once more.
constexpr std::uint32_t busy = 1;
constexpr std::uint32_t again = 2;

/// Packets without a signal after which one gets one, so that progress can be waited for.
constexpr std::uint32_t most_unmarked = 256;
/// Weight of an observed group against what was observed before.
constexpr float drift_weight = 1.0F / 16;
constexpr float least_drift = 0.001F;
constexpr float most_drift = 60;

std::uint64_t pack(SignalUse use) {
  return std::uint64_t{use.signal} << 32U | use.generation;
}
SignalUse unpack(std::uint64_t packed) {
  return {static_cast<std::uint32_t>(packed >> 32U), static_cast<std::uint32_t>(packed)};
}

/// One writer: no read-modify-write.
void add(std::atomic<std::uint64_t>& counter, std::uint64_t count) {
  counter.store(counter.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
}
std::atomic<std::uint64_t>& of(
    std::array<std::atomic<std::uint64_t>, static_cast<std::size_t>(BypassReason::count)>& counters,
    BypassReason reason) {
  return counters[static_cast<std::size_t>(reason)];
}

std::uint32_t workgroups(const LeaseDispatch& dispatch) {
  std::uint32_t product = 1;
  for (std::size_t axis = 0; axis < dispatch.grid_size.size(); ++axis) {
    const std::uint32_t grid = dispatch.grid_size[axis];
    const std::uint32_t size = dispatch.workgroup_size[axis];
    // Most kernels have one or two dimensions, and a division takes as long as all the rest.
    product *= size <= 1 ? grid : (grid == size ? 1 : (grid + size - 1) / size);
  }
  return product;
}

LeasePacket barrier_packet() {
  LeasePacket packet{};
  packet.type = LeasePacketType::barrier_and;
  packet.flags = LeasePacket::flag_barrier;
  packet.barrier = {};
  return packet;
}

}  // namespace

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
// -----------------------------------------------------------------------------------

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
  Operation operation;
  operation.kind = Program::OperationKind::begin;
  operation.deadline_ns = deadline_ns;
  const Enqueued result = put(program, operation);
  if (result != Enqueued::yes) return result;
  program.request_is_open = true;
  ++program.begun;
  add_work(1);
  advance(true);
  return result;
}

Enqueued Scheduler::end_request(Program& program) {
  if (!program.request_is_open) return Enqueued::invalid;
  Operation operation;
  operation.kind = Program::OperationKind::end;
  const Enqueued result = put(program, operation);
  if (result != Enqueued::yes) return result;
  program.request_is_open = false;
  advance(false);
  return result;
}

Enqueued Scheduler::dispatch(Program& program, const LeaseDispatch& kernel, BypassReason stays) {
  Operation operation;
  operation.kind = Program::OperationKind::dispatch;
  operation.reason = stays;
  operation.dispatch = kernel;
  const Enqueued result = put(program, operation);
  if (result == Enqueued::yes) advance(false);
  return result;
}

Enqueued Scheduler::record(Program& program, std::uint32_t event, EventUse* use) {
  if (event >= event_count_.load(std::memory_order_acquire)) return Enqueued::invalid;
  const EventUse recorded{.event = event, .recording = events_[event]->recordings + 1};
  Operation operation;
  operation.kind = Program::OperationKind::record;
  operation.event_count = 1;
  operation.events = {recorded};
  const Enqueued result = put(program, operation);
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
  Operation operation;
  operation.kind = Program::OperationKind::call;
  operation.call = {function, argument};
  const Enqueued result = put(program, operation);
  if (result == Enqueued::yes) advance(true);
  return result;
}

Enqueued Scheduler::pin(Program& program, BypassReason reason) {
  if (program.pin_is_open) return Enqueued::invalid;
  Operation operation;
  operation.kind = Program::OperationKind::pin;
  operation.reason = reason;
  const Enqueued result = put(program, operation);
  if (result != Enqueued::yes) return result;
  program.pin_is_open = true;
  advance(false);
  return result;
}

Enqueued Scheduler::unpin(Program& program) {
  if (!program.pin_is_open) return Enqueued::invalid;
  Operation operation;
  operation.kind = Program::OperationKind::unpin;
  const Enqueued result = put(program, operation);
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
// -------------------------------------------------------------------------------

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

void Scheduler::read_plan() {
  std::uint64_t epoch = plan_.epoch();
  if (epoch == groups_epoch_) return;
  groups_ = plan_.groups(epoch);
  // Overtaken by the next plan, which is written at most once a second: that one.
  for (std::uint64_t next = plan_.epoch(); !groups_ && next != epoch; next = plan_.epoch()) {
    epoch = next;
    groups_ = plan_.groups(epoch);
  }
  groups_epoch_ = epoch;
  drift_ = {};
  report_.drift_epoch.store(0, std::memory_order_relaxed);
  for (auto& permille : report_.group_permille) permille.store(0, std::memory_order_relaxed);
  report_.drift_epoch.store(epoch, std::memory_order_release);
  const std::uint32_t bit = groups_ ? 1U << groups_->seat : 0;
  const std::uint32_t before = seat_bit_.exchange(bit);
  if (active_set_ == nullptr || bit == before) return;
  if (before != 0) active_set_->fetch_and(~before);
  show_activity();
}

// --- progress
// -------------------------------------------------------------------------------------

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

bool Scheduler::push(Program& program, const LeasePacket& packet) {
  switch (sink_.push(program.stream, packet)) {
    case PacketSink::Pushed::yes:
      break;
    case PacketSink::Pushed::lost:
      lose();
      [[fallthrough]];
    case PacketSink::Pushed::full:
      if (packet.completion.generation != 0) {
        sink_.cancel_use(packet.completion);
        next_signal_ = (next_signal_ + PacketSink::signal_count - 1) % PacketSink::signal_count;
      }
      return false;
  }
  program.outstanding = true;
  program.last = packet.completion;
  program.last_ended_group = (packet.flags & LeasePacket::flag_group_end) != 0;
  ++program.unmarked;
  if (packet.completion.generation != 0) {
    program.mark = packet.completion;
    program.unmarked = 0;
  }
  if (packet.type != LeasePacketType::dispatch) add(report_.barriers, 1);
  return true;
}

std::optional<SignalUse> Scheduler::take_signal() {
  // One that a long kernel holds does not stop the others.
  for (std::uint32_t tries = 0; tries < PacketSink::signal_count; ++tries) {
    const auto use = sink_.begin_use(next_signal_);
    next_signal_ = (next_signal_ + 1) % PacketSink::signal_count;
    if (use) return use;
  }
  return std::nullopt;
}

// --- kernels and groups
// ---------------------------------------------------------------------------

bool Scheduler::send_kernel(Program& program, const Operation& operation) {
  if (!program.in_group && !start_group(program, operation.reason)) return false;
  if (program.dependency_count > 0 && !send_dependencies(program)) return false;
  const bool ends_group = program.kernel + 1 == program.group_end;
  LeasePacket packet;
  packet.type = LeasePacketType::dispatch;
  packet.flags = static_cast<std::uint8_t>(LeasePacket::flag_barrier |
                                           (ends_group ? LeasePacket::flag_group_end : 0));
  packet.reserved = 0;
  packet.completion = {0, 0};
  packet.reserved2 = 0;
  packet.dispatch = operation.dispatch;
  if (ends_group || program.unmarked >= most_unmarked) {
    const auto use = take_signal();
    if (!use) return false;
    packet.completion = *use;
  }
  if (!push(program, packet)) return false;
  const BypassReason bypass = operation.reason != BypassReason::count
                                  ? operation.reason
                                  : program.pin.value_or(program.bypass);
  add(bypass == BypassReason::count ? report_.scheduled : of(report_.bypassed, bypass), 1);
  if (program.expected_shapes != 0) program.shapes.add(workgroups(operation.dispatch));
  if (program.in_request) ++program.kernel;
  if (ends_group) end_of_group(program, packet.completion);
  return true;
}

bool Scheduler::start_group(Program& program, BypassReason stays) {
  collect(program);
  if (program.under_way_count == Program::most_under_way) return false;
  read_plan();
  const Choice choice = choose(program, stays);
  if (choice.stream != program.stream) {
    if (!move_to(program, choice.stream)) return false;
    add(report_.switches[static_cast<std::size_t>(choice.why)], 1);
  }
  if (choice.bypass == BypassReason::count) {
    program.epoch = groups_->epoch;
    program.active = choice.active;
  }
  program.in_group = true;
  program.bypass = choice.bypass;
  program.group_end = UINT32_MAX;
  program.expected_shapes = 0;
  program.shapes = {};
  program.group = {};
  if (!groups_ || !program.in_request || !program.known) return true;
  // A group that does not move is cut as others are: others want their turn on the stream.
  const std::uint32_t group = groups_->of(program.kernel);
  program.group_end = groups_->end(group);
  if (program.group_end == UINT32_MAX && groups_->kernel_count != 0)
    program.group_end = groups_->kernel_count;
  if (program.group_end <= program.kernel) {  // beyond the profile, and may not move
    program.known = false;
    program.group_end = UINT32_MAX;
    return true;
  }
  if (groups_->first_kernel[group] != program.kernel) return true;  // the rest of one
  program.expected_shapes = groups_->shapes[group];
  if (choice.bypass != BypassReason::count) return true;
  program.group.epoch = groups_->epoch;
  program.group.group = group;
  program.group.predicted_us = static_cast<float>(plan_.predicted_us(
      groups_->epoch, program.active, group,
      choice.stream == PacketSink::unmasked ? PlanTable::no_mask
                                            : static_cast<std::uint8_t>(choice.stream)));
  return true;
}

Scheduler::Choice Scheduler::choose(Program& program, BypassReason stays) {
  Choice choice{.stream = program.stream};
  const auto planned = [&](std::uint32_t active) -> std::optional<std::uint32_t> {
    const std::uint32_t group = groups_->of(program.kernel);
    const auto stream = plan_.stream(groups_->epoch, active, group);
    if (!stream) return std::nullopt;
    const std::uint32_t number = *stream == PlanTable::no_mask ? PacketSink::unmasked : *stream;
    if (!sink_.has_stream(number)) return std::nullopt;
    return number;
  };
  if (program.pin == BypassReason::uniform) {
    if (!program.uniform_stream) {
      program.uniform_stream = program.stream;
      if (groups_) program.uniform_stream = planned(groups_->workers).value_or(program.stream);
    }
    choice.stream = *program.uniform_stream;
    choice.bypass = BypassReason::uniform;
    choice.why = SwitchReason::pin;
    return choice;
  }
  if (program.pin) {
    choice.bypass = *program.pin;
  } else if (stays != BypassReason::count) {
    choice.bypass = stays;
  } else if (!program.in_request) {
    choice.bypass = BypassReason::outside_request;
  } else if (!groups_) {
    choice.bypass = BypassReason::no_plan;
  } else if (!program.known ||
             (groups_->kernel_count != 0 && program.kernel >= groups_->kernel_count)) {
    program.known = false;
    choice.bypass = BypassReason::unknown;
  }
  if (choice.bypass != BypassReason::count) return choice;
  const std::uint32_t others =
      active_set_ == nullptr ? 0 : active_set_->load(std::memory_order_acquire);
  const std::uint32_t active = (others | 1U << groups_->seat) & groups_->workers;
  auto stream = planned(active);
  // A queue that there is not: the leaf is right whoever is active.
  if (!stream) stream = planned(groups_->workers);
  if (!stream && plan_.epoch() != groups_epoch_) {
    read_plan();
    return choose(program, stays);
  }
  if (!stream) {
    choice.bypass = BypassReason::no_plan;
    return choice;
  }
  choice.stream = *stream;
  choice.active = active;
  if (program.epoch != groups_->epoch)
    choice.why = SwitchReason::new_plan;
  else if (program.active != active)
    choice.why = SwitchReason::active_set;
  return choice;
}

bool Scheduler::move_to(Program& program, std::uint32_t stream) {
  if (program.outstanding) {
    if (program.dependency_count == Program::most_dependencies && !send_dependencies(program))
      return false;
    if (!mark_last(program, program.last.generation == 0)) return false;
    program.dependencies[program.dependency_count++] = {program.last, program.stream};
  }
  program.stream = stream;
  program.outstanding = false;
  program.last = {0, 0};
  program.unmarked = 0;
  return true;
}

void Scheduler::end_of_group(Program& program, SignalUse last) {
  program.in_group = false;
  // A request that is another than the plan's goes on where it is.
  if (program.expected_shapes != 0 && program.shapes.value() != program.expected_shapes)
    program.known = false;
  Program::Group& group = program.group;
  group.last = last;
  if (!program.known) group.predicted_us = 0;
  // Only behind a group that still runs there was no wait for the host.
  if (program.under_way_count > 0) {
    const SignalUse before = program.under_way[program.under_way_count - 1].last;
    if (!sink_.is_complete(before)) group.before = before;
  }
  program.under_way[program.under_way_count++] = group;
}

bool Scheduler::close_group(Program& program) {
  if (!program.in_group) return true;
  if (program.group_end == UINT32_MAX && !program.in_request) {
    program.in_group = false;  // outside a request: nothing is cut into groups
    return true;
  }
  if (!mark_last(program, true)) return false;
  // It is not all of the plan's group.
  program.group.predicted_us = 0;
  if (program.group_end != UINT32_MAX) program.expected_shapes = 0;
  end_of_group(program, program.last);
  return true;
}

bool Scheduler::mark_last(Program& program, bool ends_group) {
  if (!program.outstanding ||
      (program.last.generation != 0 && (program.last_ended_group || !ends_group)))
    return true;
  LeasePacket marker = barrier_packet();
  if (ends_group)
    marker.flags = static_cast<std::uint8_t>(marker.flags | LeasePacket::flag_group_end);
  const auto use = take_signal();
  if (!use) return false;
  marker.completion = *use;
  return push(program, marker);
}

bool Scheduler::send_dependencies(Program& program) {
  // Those on the same stream are before this packet, which has the barrier bit. They are the
  // program's own from now on: what waits for it waits for them.
  auto* const begin = program.dependencies.data();
  bool same_stream = false;
  auto* end = std::remove_if(begin, begin + program.dependency_count, [&](const auto& dependency) {
    if (has_run(dependency.use)) return true;
    if (dependency.stream != program.stream) return false;
    same_stream = true;
    return true;
  });
  program.dependency_count = static_cast<std::uint32_t>(end - begin);
  if (is_lost()) return false;
  if (same_stream) {
    program.outstanding = true;
    program.last = {0, 0};
  }
  // A group that waits for another than the one before it takes longer than it runs.
  if (program.in_group &&
      (same_stream || program.dependency_count > 1 ||
       (program.dependency_count == 1 &&
        (program.under_way_count == 0 ||
         program.dependencies[0].use != program.under_way[program.under_way_count - 1].last))))
    program.group.predicted_us = 0;
  while (program.dependency_count > 0) {
    LeasePacket barrier = barrier_packet();
    const std::uint32_t count = std::min<std::uint32_t>(5, program.dependency_count);
    for (std::uint32_t i = 0; i < count; ++i)
      barrier.barrier.dependencies[i] =
          program.dependencies[program.dependency_count - count + i].use;
    if (!push(program, barrier)) return false;
    program.dependency_count -= count;
  }
  return true;
}

// --- requests, events, functions, pins
// ------------------------------------------------------------

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
// ----------------------------------------------------------------------------------

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
