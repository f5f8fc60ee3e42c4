// The scheduler's C ABI: programs, requests, events, and waiting for them.
#include "libeclip/program.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <vector>

#include "ipc/futex.h"
#include "libeclip/errors.h"
#include "libeclip/submit.h"
#include "libeclip/versioned_struct.h"
#include "libeclip/wait.h"

using eclip::BypassReason;
using eclip::Enqueued;
using eclip::SignalUse;

namespace {

using Clock = std::chrono::steady_clock;

/// How soon the thread notices that it is to end, and a waiting thread what no signal tells of: a
/// function that runs in another thread, room in a ring.
constexpr std::chrono::milliseconds longest_sleep{20};
constexpr std::chrono::milliseconds longest_blind_sleep{1};
constexpr std::chrono::nanoseconds longest_wait = std::chrono::hours(24 * 365);

int result_of(const eclip_scheduler& owner, Enqueued enqueued) {
  switch (enqueued) {
    case Enqueued::yes:
      return 0;
    case Enqueued::full:
      return eclip::report(EAGAIN,
                           "as many operations or requests as there can be have not gone yet; "
                           "wait for a request and try again");
    case Enqueued::lost:
      return owner.rings.report_loss();
    case Enqueued::invalid:
      return eclip::report(EINVAL,
                           "out of place: a request within a request, an end without a beginning, "
                           "a pin within a pin, or an event that was not created");
  }
  return eclip::report(EIO, "unknown result");
}

int finish(eclip_program& program, Enqueued enqueued) {
  if (enqueued == Enqueued::yes) program.owner->wake_thread();
  return result_of(*program.owner, enqueued);
}

/// Waits until `is_done` after an advance.
template <class Done>
int wait_until(eclip_scheduler& owner, const eclip::Program* program, std::uint64_t timeout_ns,
               const char* what, Done is_done) {
  const auto deadline = Clock::now() + std::chrono::nanoseconds(std::min<std::uint64_t>(
                                           timeout_ns, longest_wait.count()));
  while (true) {
    const std::uint32_t seen = owner.changes.load(std::memory_order_acquire);
    owner.scheduler.advance();
    if (is_done()) return 0;
    if (owner.scheduler.is_lost()) return owner.rings.report_loss();
    const std::chrono::nanoseconds left = deadline - Clock::now();
    if (left <= left.zero())
      return eclip::report(
          ETIMEDOUT,
          std::string(what) + " did not complete in time" +
              (program == nullptr
                   ? std::string()
                   : ": it waits on stream " + std::to_string(owner.scheduler.stream(*program)) +
                         "; eclipctl stream list tells for which packet"));
    SignalUse use = program == nullptr ? SignalUse{0, 0} : owner.scheduler.awaited(*program);
    if (use.generation == 0) use = owner.scheduler.awaited();
    if (use.generation == 0) {
      eclip::futex_wait(owner.changes, seen,
                        std::min<std::chrono::nanoseconds>(left, longest_blind_sleep));
      if (const int failed = owner.context->check_alive(); failed != 0) return failed;
      continue;
    }
    const auto slice = std::min<std::chrono::nanoseconds>(left, longest_sleep);
    const int waited =
        eclip::wait_for(owner.context, use, static_cast<std::uint64_t>(slice.count()));
    if (waited == -EPROTO || waited == -ECONNRESET) return waited;
  }
}

int create_scheduler(eclip_context* context, const eclip_scheduler_options* given,
                     eclip_scheduler** scheduler) {
  if (context == nullptr || scheduler == nullptr)
    return eclip::report(EINVAL, "the context or the place for the scheduler is NULL");
  *scheduler = nullptr;
  eclip_scheduler_options options{};
  if (given != nullptr)
    if (const int failed = eclip::read_struct(given, options); failed != 0) return failed;
  if ((options.flags & ~ECLIP_SCHEDULER_THREAD) != 0 || options.reserved != 0 ||
      options.latency_class > ECLIP_CLASS_LATENCY)
    return eclip::report(EINVAL, "unknown flags or latency class of a scheduler");
  if (context->scheduler)
    return eclip::report(EALREADY, "the connection has a scheduler; use or destroy that one");
  eclip::ScheduledRings::Grant grant;
  if (const int failed = eclip::ScheduledRings::acquire(
          *context, static_cast<eclip::LatencyClass>(options.latency_class), grant);
      failed != 0)
    return failed;
  auto made = std::make_unique<eclip_scheduler>(*context, std::move(grant));
  if (!made->rings.has_signals())
    return eclip::report(ENOSPC, "a scheduler needs " +
                                     std::to_string(eclip::PacketSink::signal_count) +
                                     " signals; the connection has not so many left");
  if ((options.flags & ECLIP_SCHEDULER_THREAD) != 0) made->start_thread();
  context->scheduler = std::move(made);
  *scheduler = context->scheduler.get();
  return 0;
}

int create_program(eclip_scheduler* scheduler, eclip_program** program) {
  if (scheduler == nullptr || program == nullptr)
    return eclip::report(EINVAL, "the scheduler or the place for the program is NULL");
  const std::lock_guard lock(scheduler->mutex);
  eclip::Program* made = scheduler->scheduler.create_program();
  if (made == nullptr)
    return eclip::report(ENOSPC, "a scheduler has at most " +
                                     std::to_string(eclip::Scheduler::most_programs) + " programs");
  const auto end = scheduler->scheduler.create_event();
  if (!end) return eclip::report(ENOSPC, "the scheduler has no event left for the program");
  *program = &scheduler->programs[scheduler->program_count++];
  **program = {.owner = scheduler, .program = made, .end = *end};
  return 0;
}

int dispatch(eclip_program& program, const eclip_dispatch* given) {
  eclip_dispatch dispatch;
  if (const int failed = eclip::read_struct(given, dispatch); failed != 0) return failed;
  if (const int failed = eclip::check(dispatch); failed != 0) return failed;
  if ((dispatch.flags & ~(ECLIP_KERNEL_COOPERATIVE | ECLIP_KERNEL_PERSISTENT)) != 0)
    return eclip::report(EINVAL, "a program's dispatch has no flags but ECLIP_KERNEL_...");
  BypassReason stays = BypassReason::count;
  if ((dispatch.flags & ECLIP_KERNEL_COOPERATIVE) != 0) stays = BypassReason::cooperative;
  if ((dispatch.flags & ECLIP_KERNEL_PERSISTENT) != 0) stays = BypassReason::persistent;
  return finish(program, program.owner->scheduler.dispatch(*program.program,
                                                           eclip::lease_dispatch(dispatch), stays));
}

int pin(eclip_program& program, std::uint32_t reason) {
  if (reason != ECLIP_PIN_UNIFORM && reason != ECLIP_PIN_GRAPH)
    return eclip::report(EINVAL, "there is no reason " + std::to_string(reason) + " to pin");
  return finish(program, program.owner->scheduler.pin(*program.program, reason == ECLIP_PIN_UNIFORM
                                                                            ? BypassReason::uniform
                                                                            : BypassReason::graph));
}

int wait_events(eclip_program& program, const eclip_event* events, std::uint32_t count) {
  if (events == nullptr && count > 0) return eclip::report(EINVAL, "the events are NULL");
  std::vector<eclip::EventUse> uses;
  uses.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) uses.push_back({events[i].event, events[i].recording});
  return finish(program, program.owner->scheduler.wait(*program.program, uses));
}

int copy(eclip_program& program, void* to, const void* from, std::uint64_t bytes) {
  if ((to == nullptr || from == nullptr) && bytes > 0)
    return eclip::report(EINVAL, "an address of the copy is NULL");
  eclip_scheduler& owner = *program.owner;
  eclip_scheduler::Copy* made = nullptr;
  {
    const std::lock_guard lock(owner.mutex);
    made = &owner.copies.emplace_back();
    *made = {.owner = &owner,
             .to = to,
             .from = from,
             .bytes = bytes,
             .self = std::prev(owner.copies.end())};
  }
  const Enqueued enqueued =
      owner.scheduler.call(*program.program, &eclip_scheduler::carry_out, made);
  if (enqueued != Enqueued::yes) {
    const std::lock_guard lock(owner.mutex);
    owner.copies.erase(made->self);
  }
  return finish(program, enqueued);
}

template <class Body>
int with(eclip_program* program, Body body) {
  return eclip::guarded([&] {
    if (program == nullptr) return eclip::report(EINVAL, "the program is NULL");
    return body(*program);
  });
}

std::uint64_t sum(const auto& counters) {
  std::uint64_t total = 0;
  for (const auto& counter : counters) total += counter.load(std::memory_order_relaxed);
  return total;
}

}  // namespace

eclip_scheduler::eclip_scheduler(eclip_context& owner, eclip::ScheduledRings::Grant granted)
    : context(&owner),
      grant(std::move(granted)),
      rings(owner, grant.leases),
      scheduler(
          rings,
          grant.active_set ? eclip::PlanReader(owner.state().plans, owner.board().plan_epoch)
                           : eclip::PlanReader(no_plans, no_epoch),
          owner.request().scheduler,
          grant.active_set ? &grant.active_set->payload<eclip::ActiveSet>().workers : nullptr) {}

eclip_scheduler::~eclip_scheduler() {
  stopping.store(true);
  changes.fetch_add(1);
  eclip::futex_wake_all(changes);
  if (thread.joinable()) thread.join();
}

void eclip_scheduler::start_thread() {
  thread = std::thread([this] { run_thread(); });
}

void eclip_scheduler::wake_thread() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (thread_asleep.load(std::memory_order_relaxed) == 0) return;
  changes.fetch_add(1);
  eclip::futex_wake_all(changes);
}

void eclip_scheduler::run_thread() {
  while (!stopping.load()) {
    // The flag first, then a look: who puts an operation in looks at the flag afterwards.
    const std::uint32_t seen = changes.load(std::memory_order_acquire);
    thread_asleep.store(1);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    scheduler.advance();
    const SignalUse use = scheduler.awaited();
    if (use.generation != 0) {
      thread_asleep.store(0);
      static_cast<void>(eclip::wait_for(
          context, use,
          static_cast<std::uint64_t>(std::chrono::nanoseconds(longest_sleep).count())));
    } else {
      eclip::futex_wait(changes, seen, std::chrono::nanoseconds(longest_sleep));
      thread_asleep.store(0);
    }
  }
}

void eclip_scheduler::carry_out(void* copy) {
  auto& made = *static_cast<Copy*>(copy);
  if (made.bytes > 0) std::memcpy(made.to, made.from, made.bytes);
  eclip_scheduler& owner = *made.owner;
  const std::lock_guard lock(owner.mutex);
  owner.copies.erase(made.self);
}

int eclip_scheduler_create(eclip_context* context, const struct eclip_scheduler_options* options,
                           eclip_scheduler** scheduler) {
  return eclip::guarded([&] { return create_scheduler(context, options, scheduler); });
}

void eclip_scheduler_destroy(eclip_scheduler* scheduler) {
  if (scheduler == nullptr) return;
  static_cast<void>(eclip::guarded([&] {
    eclip_context& context = *scheduler->context;
    const auto leases = scheduler->grant.leases;
    context.scheduler.reset();
    // What is not given back now goes with the connection.
    const auto deadline = Clock::now() + context.control.timeout();
    for (eclip_lease* lease : leases)
      if (lease != nullptr && Clock::now() < deadline) context.release(lease);
    return 0;
  }));
}

int eclip_program_create(eclip_scheduler* scheduler, eclip_program** program) {
  return eclip::guarded([&] { return create_program(scheduler, program); });
}

int eclip_request_begin(eclip_program* program, uint64_t deadline_ns) {
  return with(program, [&](eclip_program& each) {
    return finish(each, each.owner->scheduler.begin_request(*each.program, deadline_ns));
  });
}

int eclip_request_end(eclip_program* program, uint64_t* request) {
  return with(program, [&](eclip_program& each) {
    const int result = finish(each, each.owner->scheduler.end_request(*each.program));
    if (result == 0 && request != nullptr)
      *request = each.owner->scheduler.requests_begun(*each.program);
    return result;
  });
}

int eclip_program_dispatch(eclip_program* program, const struct eclip_dispatch* given) {
  return with(program, [&](eclip_program& each) { return dispatch(each, given); });
}

int eclip_program_pin(eclip_program* program, uint32_t reason) {
  return with(program, [&](eclip_program& each) { return pin(each, reason); });
}

int eclip_program_unpin(eclip_program* program) {
  return with(program, [&](eclip_program& each) {
    return finish(each, each.owner->scheduler.unpin(*each.program));
  });
}

int eclip_event_create(eclip_scheduler* scheduler, uint32_t* event) {
  return eclip::guarded([&] {
    if (scheduler == nullptr || event == nullptr)
      return eclip::report(EINVAL, "the scheduler or the place for the event is NULL");
    const auto made = scheduler->scheduler.create_event();
    if (!made)
      return eclip::report(ENOSPC, "a scheduler has at most " +
                                       std::to_string(eclip::Scheduler::most_events) + " events");
    *event = *made;
    return 0;
  });
}

int eclip_event_record(eclip_program* program, uint32_t event, struct eclip_event* recorded) {
  return with(program, [&](eclip_program& each) {
    eclip::EventUse use{};
    const int result = finish(each, each.owner->scheduler.record(*each.program, event, &use));
    if (result == 0 && recorded != nullptr) *recorded = {use.event, use.recording};
    return result;
  });
}

int eclip_program_wait_events(eclip_program* program, const struct eclip_event* events,
                              uint32_t count) {
  return with(program, [&](eclip_program& each) { return wait_events(each, events, count); });
}

int eclip_program_call(eclip_program* program, void (*function)(void*), void* argument) {
  return with(program, [&](eclip_program& each) {
    if (function == nullptr) return eclip::report(EINVAL, "the function is NULL");
    return finish(each, each.owner->scheduler.call(*each.program, function, argument));
  });
}

int eclip_program_copy(eclip_program* program, void* to, const void* from, uint64_t bytes) {
  return with(program, [&](eclip_program& each) { return copy(each, to, from, bytes); });
}

int eclip_scheduler_advance(eclip_scheduler* scheduler) {
  return eclip::guarded([&] {
    if (scheduler == nullptr) return eclip::report(EINVAL, "the scheduler is NULL");
    scheduler->scheduler.advance();
    return scheduler->scheduler.is_lost() ? scheduler->rings.report_loss() : 0;
  });
}

int eclip_scheduler_waiting(eclip_scheduler* scheduler, uint32_t requests) {
  return eclip::guarded([&] {
    if (scheduler == nullptr) return eclip::report(EINVAL, "the scheduler is NULL");
    scheduler->scheduler.set_waiting_requests(requests);
    return 0;
  });
}

int eclip_request_test(eclip_program* program, uint64_t request) {
  return with(program, [&](eclip_program& each) {
    eclip_scheduler& owner = *each.owner;
    owner.scheduler.advance();
    if (owner.scheduler.requests_done(*each.program) >= request) return 1;
    if (owner.scheduler.is_lost()) return owner.rings.report_loss();
    return owner.context->check_alive();
  });
}

int eclip_request_wait(eclip_program* program, uint64_t request, uint64_t timeout_ns) {
  return with(program, [&](eclip_program& each) {
    const eclip::Scheduler& scheduler = each.owner->scheduler;
    return wait_until(*each.owner, each.program, timeout_ns, "the request",
                      [&] { return scheduler.requests_done(*each.program) >= request; });
  });
}

int eclip_program_wait(eclip_program* program, uint64_t timeout_ns) {
  return with(program, [&](eclip_program& each) {
    eclip::Scheduler& scheduler = each.owner->scheduler;
    // What follows a recording waits for all before it; so does this thread.
    eclip::EventUse use{};
    if (const int failed = finish(each, scheduler.record(*each.program, each.end, &use));
        failed != 0)
      return failed;
    return wait_until(*each.owner, each.program, timeout_ns, "the program",
                      [&] { return scheduler.is_complete(use); });
  });
}

int eclip_program_wait_room(eclip_program* program, uint64_t timeout_ns) {
  return with(program, [&](eclip_program& each) {
    return wait_until(*each.owner, each.program, timeout_ns, "an operation before this one",
                      [&] { return each.owner->scheduler.has_room(*each.program); });
  });
}

int eclip_event_wait(eclip_scheduler* scheduler, struct eclip_event event, uint64_t timeout_ns) {
  return eclip::guarded([&] {
    if (scheduler == nullptr) return eclip::report(EINVAL, "the scheduler is NULL");
    return wait_until(*scheduler, nullptr, timeout_ns, "the event", [&] {
      return scheduler->scheduler.is_complete({event.event, event.recording});
    });
  });
}

int eclip_scheduler_describe(eclip_scheduler* scheduler, struct eclip_scheduler_state* state) {
  return eclip::guarded([&] {
    if (scheduler == nullptr) return eclip::report(EINVAL, "the scheduler is NULL");
    if (const int failed = eclip::check_struct_size(state); failed != 0) return failed;
    const eclip::SchedulerReport& report = scheduler->context->request().scheduler;
    eclip_scheduler_state described{};
    described.active_others = scheduler->scheduler.active_others();
    described.requests = report.requests.load(std::memory_order_relaxed);
    described.scheduled = report.scheduled.load(std::memory_order_relaxed);
    described.bypassed = sum(report.bypassed);
    described.switches = sum(report.switches);
    described.barriers = report.barriers.load(std::memory_order_relaxed);
    described.plan_epoch = scheduler->context->board().plan_epoch.load(std::memory_order_relaxed);
    eclip::write_struct(described, state);
    return 0;
  });
}
