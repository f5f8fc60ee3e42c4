// Kernels: which stream a group goes to, and the packets that take it there.
#include <algorithm>

#include "libeclip/scheduler.h"
#include "libeclip/scheduler_words.h"

namespace eclip {
namespace {

/// Packets without a signal after which one gets one, so that progress can be waited for.
constexpr std::uint32_t most_unmarked = 256;

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

// --- what packets need

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

// --- the plan

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

}  // namespace eclip
