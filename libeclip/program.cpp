// The scheduler's C ABI: programs, requests, events, and waiting for them.
#include "libeclip/program.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <system_error>
#include <utility>
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

/// How soon the end of eclipd is noticed, which wakes nobody, and what no signal tells of: a
/// function that runs in another thread, room in a ring.
constexpr std::chrono::milliseconds longest_sleep{20};
constexpr std::chrono::milliseconds longest_blind_sleep{1};
/// Of a thread that is woken when there is something to do.
constexpr std::chrono::milliseconds longest_idle_sleep{1000};
/// Of one call: as many events as there are.
constexpr std::uint32_t most_events_waited_for = eclip::Scheduler::most_events;
static_assert(most_events_waited_for <= 5 * eclip::Program::capacity);
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
                           "a pin within a pin, an event that was not created, or more events "
                           "than there is room for");
  }
  return eclip::report(EIO, "unknown result");
}

/// Of an operation; 0, or why it will not be done.
int finish(eclip_program& program, Enqueued enqueued) {
  eclip_scheduler& owner = *program.owner;
  switch (enqueued) {
    case Enqueued::yes:
      owner.wake_thread(program);
      // What waits behind others in the program has not met the end of eclipd itself.
      return owner.context->is_known_lost() || !owner.scheduler.all_gone(*program.program)
                 ? owner.context->check_alive()
                 : 0;
    case Enqueued::full:
      if (const int failed = owner.context->check_alive(); failed != 0) return failed;
      return result_of(owner, enqueued);
    default:
      return result_of(owner, enqueued);
  }
}

Clock::time_point deadline_in(std::uint64_t timeout_ns) {
  return Clock::now() +
         std::chrono::nanoseconds(std::min<std::uint64_t>(timeout_ns, longest_wait.count()));
}

int report_timeout(const eclip_scheduler& owner, const eclip_program* program, const char* what) {
  std::string text = std::string(what) + " did not complete in time";
  if (program != nullptr) {
    SignalUse use = owner.scheduler.awaited(*program->program);
    if (use.generation == 0) use = owner.scheduler.awaited();
    text += ": worker " + std::to_string(owner.context->worker) + " waits " +
            owner.rings.place_of(use, owner.scheduler.stream(*program->program)) +
            "; see eclipctl stream list";
  }
  return eclip::report(ETIMEDOUT, text);
}

/// Waits until `is_done` after an advance.
template <class Done>
int wait_until(eclip_scheduler& owner, const eclip_program* program, Clock::time_point deadline,
               const char* what, Done is_done) {
  while (true) {
    const std::uint32_t seen = owner.changes.load(std::memory_order_acquire);
    owner.scheduler.advance();
    if (is_done()) return 0;
    if (owner.scheduler.is_lost()) return owner.rings.report_loss();
    const std::chrono::nanoseconds left = deadline - Clock::now();
    if (left <= left.zero()) return report_timeout(owner, program, what);
    const eclip_scheduler::Awaited awaited = owner.awaited();
    const bool told = program != nullptr && (awaited.programs & 1U << program->number) != 0;
    const std::chrono::nanoseconds slice = told ? longest_sleep : longest_blind_sleep;
    if (const int failed = eclip::wait_for_any(*owner.context, {awaited.uses.data(), awaited.count},
                                               owner.changes, seen, std::min(left, slice));
        failed != 0)
      return failed;
  }
}

/// Leaves nothing behind when it fails.
int make_scheduler(eclip_context& context, const eclip_scheduler_options& options,
                   std::unique_ptr<eclip_scheduler>& scheduler) {
  eclip::ScheduledRings::Grant grant;
  if (const int failed = eclip::ScheduledRings::acquire(
          context, static_cast<eclip::LatencyClass>(options.latency_class), grant);
      failed != 0)
    return failed;
  auto made = std::make_unique<eclip_scheduler>(context, std::move(grant));
  std::string missing;
  if (!made->rings.has_signals()) {
    missing = "a scheduler needs " + std::to_string(eclip::PacketSink::signal_count) +
              " signals; the connection has not so many left";
  } else if ((options.flags & ECLIP_SCHEDULER_THREAD) != 0) {
    try {
      made->start_thread();
    } catch (const std::system_error& error) {
      missing = std::string("no thread for the scheduler: ") + error.what();
    }
  }
  if (missing.empty()) {
    scheduler = std::move(made);
    return 0;
  }
  const int result = made->rings.has_signals() ? EAGAIN : ENOSPC;
  const eclip::ScheduledRings::Grant granted = std::move(made->grant);
  made.reset();
  eclip::ScheduledRings::give_back(context, granted);
  return eclip::report(result, missing);
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
  if (context->has_scheduler.exchange(true))
    return eclip::report(EALREADY, "the connection has a scheduler; use or destroy that one");
  const int result =
      eclip::guarded([&] { return make_scheduler(*context, options, context->scheduler); });
  *scheduler = context->scheduler.get();
  if (result != 0) context->has_scheduler.store(false);
  return result;
}

int create_program(eclip_scheduler* scheduler, eclip_program** program) {
  if (scheduler == nullptr || program == nullptr)
    return eclip::report(EINVAL, "the scheduler or the place for the program is NULL");
  const std::lock_guard lock(scheduler->mutex);
  const std::uint32_t number = scheduler->program_count.load(std::memory_order_relaxed);
  // Events and programs cannot be given back: both or none.
  if (number == scheduler->programs.size())
    return eclip::report(ENOSPC, "a scheduler has at most " +
                                     std::to_string(eclip::Scheduler::most_programs) + " programs");
  const auto end = scheduler->scheduler.create_event();
  if (!end) return eclip::report(ENOSPC, "the scheduler has no event left for the program");
  scheduler->programs[number] = {.owner = scheduler,
                                 .program = scheduler->scheduler.create_program(),
                                 .number = number,
                                 .end = *end};
  scheduler->program_count.store(number + 1, std::memory_order_release);
  *program = &scheduler->programs[number];
  return 0;
}

int report_no_request(std::uint64_t request) {
  return eclip::report(EINVAL,
                       "the program has not begun a request " + std::to_string(request) + " yet");
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
  if (count > most_events_waited_for)
    return eclip::report(EINVAL, "a program waits for at most " +
                                     std::to_string(most_events_waited_for) + " events at once");
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

int wait_for_request(eclip_program& each, std::uint64_t request, std::uint64_t timeout_ns) {
  const eclip::Scheduler& scheduler = each.owner->scheduler;
  if (request > scheduler.requests_begun(*each.program)) return report_no_request(request);
  return wait_until(*each.owner, &each, deadline_in(timeout_ns), "the request",
                    [&] { return scheduler.requests_done(*each.program) >= request; });
}

int test_request(eclip_program& each, std::uint64_t request) {
  eclip_scheduler& owner = *each.owner;
  if (request > owner.scheduler.requests_begun(*each.program)) return report_no_request(request);
  owner.scheduler.advance();
  if (owner.scheduler.requests_done(*each.program) >= request) return 1;
  if (owner.scheduler.is_lost()) return owner.rings.report_loss();
  return owner.context->check_alive();
}

int wait_for_program(eclip_program& each, std::uint64_t timeout_ns) {
  eclip::Scheduler& scheduler = each.owner->scheduler;
  const auto deadline = deadline_in(timeout_ns);
  // What follows a recording waits for all before it; so does this thread. A wait that goes on
  // after a timeout needs no other one.
  if (each.ended.recording == 0 || scheduler.operations(*each.program) != each.ended_at) {
    Enqueued recorded = Enqueued::full;
    const auto is_in = [&] {
      recorded = scheduler.record(*each.program, each.end, &each.ended);
      return recorded != Enqueued::full;
    };
    if (const int failed = wait_until(*each.owner, &each, deadline, "the program", is_in);
        failed != 0)
      return failed;
    if (const int failed = finish(each, recorded); failed != 0) return failed;
    each.ended_at = scheduler.operations(*each.program);
  }
  return wait_until(*each.owner, &each, deadline, "the program",
                    [&] { return scheduler.is_complete(each.ended); });
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

void eclip_scheduler::end(std::unique_ptr<eclip_scheduler> scheduler) {
  // Neither its thread nor its worker's bit in the active set are the child's.
  if (scheduler && scheduler->context->control.is_parents()) static_cast<void>(scheduler.release());
}

void eclip_scheduler::start_thread() {
  // Signals are for the program's own threads.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread = std::thread([this] { run_thread(); });
  } catch (...) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void eclip_scheduler::wake_thread(const eclip_program& program) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const std::uint32_t state = thread_state.load(std::memory_order_relaxed);
  if (state == 0 || (state & 1U << program.number) != 0 || thread_state.exchange(0) == 0) return;
  changes.fetch_add(1);
  eclip::futex_wake_all(changes);
}

eclip_scheduler::Awaited eclip_scheduler::awaited() const {
  Awaited found;
  const std::uint32_t count = program_count.load(std::memory_order_acquire);
  for (std::uint32_t i = 0; i < count; ++i) {
    const SignalUse use = scheduler.awaited(*programs[i].program);
    if (use.generation == 0) continue;
    found.uses[found.count++] = use;
    found.programs |= 1U << i;
  }
  return found;
}

bool eclip_scheduler::all_gone() const {
  const std::uint32_t count = program_count.load(std::memory_order_acquire);
  return std::all_of(programs.begin(), programs.begin() + count,
                     [&](const eclip_program& each) { return scheduler.all_gone(*each.program); });
}

/// False: there is nothing more to do, ever.
bool eclip_scheduler::run_thread_once() {
  // The state first, then a look: who puts an operation in looks at the state afterwards.
  const std::uint32_t seen = changes.load(std::memory_order_acquire);
  thread_state.store(asleep);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  scheduler.advance();
  if (scheduler.is_lost()) return false;
  const Awaited waits = awaited();
  // What a program waits for, its completion tells: its operations need not wake this thread.
  thread_state.store(asleep | waits.programs);
  return eclip::wait_for_any(*context, {waits.uses.data(), waits.count}, changes, seen,
                             waits.count == 0 && all_gone() ? longest_idle_sleep : longest_sleep) ==
         0;
}

void eclip_scheduler::run_thread() {
  ::pthread_setname_np(::pthread_self(), "eclip");
  const auto run = [&] {
    while (!stopping.load() && run_thread_once()) {
    }
    return 0;
  };
  static_cast<void>(eclip::guarded(run));
  // Without eclipd there is nothing to do: who waits finds out, and nobody wakes this thread.
  thread_state.store(0);
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
    eclip::ScheduledRings::Grant granted;
    granted.leases = scheduler->grant.leases;
    eclip_scheduler::end(std::move(context.scheduler));
    eclip::ScheduledRings::give_back(context, granted);
    context.has_scheduler.store(false);
    return 0;
  }));
}

int eclip_program_create(eclip_scheduler* scheduler, eclip_program** program) {
  return eclip::guarded([&] { return create_program(scheduler, program); });
}

int eclip_request_begin(eclip_program* program, uint64_t deadline_ns) {
  return with(program, [&](eclip_program& each) {
    if (const int failed = each.owner->context->check_alive(); failed != 0) return failed;
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
    return scheduler->scheduler.is_lost() ? scheduler->rings.report_loss()
                                          : scheduler->context->check_alive();
  });
}

int eclip_scheduler_waiting(eclip_scheduler* scheduler, uint32_t requests) {
  return eclip::guarded([&] {
    if (scheduler == nullptr) return eclip::report(EINVAL, "the scheduler is NULL");
    scheduler->scheduler.set_waiting_requests(requests);
    scheduler->scheduler.advance();  // which learns of the first plan
    return 0;
  });
}

int eclip_request_test(eclip_program* program, uint64_t request) {
  return with(program, [&](eclip_program& each) { return test_request(each, request); });
}

int eclip_request_wait(eclip_program* program, uint64_t request, uint64_t timeout_ns) {
  return with(program,
              [&](eclip_program& each) { return wait_for_request(each, request, timeout_ns); });
}

int eclip_program_wait(eclip_program* program, uint64_t timeout_ns) {
  return with(program, [&](eclip_program& each) { return wait_for_program(each, timeout_ns); });
}

int eclip_program_wait_room(eclip_program* program, uint64_t timeout_ns) {
  return with(program, [&](eclip_program& each) {
    return wait_until(*each.owner, &each, deadline_in(timeout_ns), "an operation before this one",
                      [&] { return each.owner->scheduler.has_room(*each.program); });
  });
}

int eclip_event_wait(eclip_scheduler* scheduler, struct eclip_event event, uint64_t timeout_ns) {
  return eclip::guarded([&] {
    if (scheduler == nullptr) return eclip::report(EINVAL, "the scheduler is NULL");
    if (event.recording != 0 && !scheduler->scheduler.has_event(event.event))
      return eclip::report(EINVAL,
                           "event " + std::to_string(event.event) + " has not been created");
    return wait_until(*scheduler, nullptr, deadline_in(timeout_ns), "the event", [&] {
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
