#include "tools/kfdsim/simulator.h"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <optional>
#include <span>

#include "tools/kfdsim/report.h"

namespace eclip::kfdsim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// What epoll hands back for descriptors that are no client's pidfd.
constexpr std::uint64_t tag_fuse = 1ULL << 40;
constexpr std::uint64_t tag_stop = 2ULL << 40;

// How long to sleep between two looks at the queues: short while doorbells ring, longer the longer
// they do not. Spinning would take a core from the clients.
constexpr microseconds ringing_pause{25};
constexpr microseconds working_pause{50};
constexpr microseconds resting_pause{100};
constexpr microseconds idle_pause{500};
constexpr milliseconds ringing_for{2};
constexpr milliseconds resting_for{20};

microseconds pause_after(DeviceClock::Wall::duration quiet_for, bool in_flight) {
  if (quiet_for < ringing_for) return ringing_pause;
  if (in_flight) return working_pause;
  return quiet_for < resting_for ? resting_pause : idle_pause;
}

void sleep_until(DeviceClock::Wall::time_point when) {
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(when.time_since_epoch());
  const timespec time{static_cast<time_t>(ns.count() / 1'000'000'000),
                      static_cast<long>(ns.count() % 1'000'000'000)};
  ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr);
}

/// epoll_wait with a deadline to the nanosecond.
int wait_until(std::optional<WallTime> deadline, int epoll, std::span<epoll_event> events) {
  timespec timeout{};
  if (deadline) {
    const std::chrono::nanoseconds left = *deadline - WallTime::clock::now();
    const std::int64_t ns = std::max<std::int64_t>(left.count(), 0);
    timeout = {static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
  }
  return ::epoll_pwait2(epoll, events.data(), static_cast<int>(events.size()),
                        deadline ? &timeout : nullptr, nullptr);
}

/// Hardware does not wait for its turn on the CPU: without this, a loaded machine delays packets by
/// milliseconds. The threads sleep most of the time; where it is not allowed, all still works.
void prefer_this_thread() {
  sched_param lowest{};
  lowest.sched_priority = ::sched_get_priority_min(SCHED_RR);
  // RESET_ON_FORK: whatever this process starts is ordinary.
  ::pthread_setschedparam(::pthread_self(), SCHED_RR | SCHED_RESET_ON_FORK, &lowest);
}

MemoryBudget memory_of(const model::GpuDescription& gpu) {
  struct sysinfo info {};
  ::sysinfo(&info);
  // The KFD lets clients pin 15/16 of the system's memory.
  const std::uint64_t system = std::uint64_t{info.totalram} * info.mem_unit;
  return {gpu.topology.vram_bytes, system - system / 16};
}

MemoryBudget limited(const MemoryBudget& all, const FaultInjector& injector) {
  return {injector.limited(all.vram_bytes, true), injector.limited(all.system_bytes, false)};
}

}  // namespace

Simulator::Simulator(FuseConnection connection, model::GpuDescription gpu, double time_scale,
                     KnownKernels known, TraceWriter* trace, FaultInjector injector)
    : connection_(std::move(connection)),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      stop_event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      injector_(std::move(injector)),
      gpu_(std::move(gpu), time_scale, std::move(known), trace, injector_),
      clients_(connection_, gpu_, memory_of(gpu_.description()),
               limited(memory_of(gpu_.description()), injector_), epoll_.get()),
      files_(connection_, clients_, gpu_, injector_) {}

Simulator::~Simulator() {
  stop();
}

Result<void> Simulator::start() {
  for (const auto& [fd, tag] :
       {std::pair{connection_.fd(), tag_fuse}, std::pair{stop_event_.get(), tag_stop}}) {
    epoll_event watch{};
    watch.events = EPOLLIN;
    watch.data.u64 = tag;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &watch) != 0) {
      return fail_errno(errno, "cannot watch the FUSE connection");
    }
  }
  server_ = std::thread([this] { serve(); });
  poller_ = std::thread([this] { poll_queues(); });
  return {};
}

Summary Simulator::stop() {
  {
    const std::scoped_lock guard(lock_);
    stopping_ = true;
  }
  queues_exist_.notify_all();
  ::eventfd_write(stop_event_.get(), 1);
  if (server_.joinable()) server_.join();
  if (poller_.joinable()) poller_.join();
  gpu_.poll();
  Summary summary;
  summary.device_seconds = std::chrono::duration<double>(gpu_.clock().now()).count();
  summary.packets = gpu_.totals().packets;
  summary.without_effect = gpu_.totals().without_effect;
  summary.estimated_times = gpu_.totals().estimated_times;
  summary.ioctls = clients_.ioctls_served();
  summary.energy_joules = gpu_.energy_joules();
  summary.faults = injector_.summary();
  return summary;
}

void Simulator::serve() {
  prefer_this_thread();
  std::optional<WallTime> next_timeout;
  while (true) {
    std::array<epoll_event, 16> events{};
    const int count = wait_until(next_timeout, epoll_.get(), events);
    const std::scoped_lock guard(lock_);
    if (stopping_) return;
    for (int i = 0; i < count; ++i) {
      const std::uint64_t tag = events.at(i).data.u64;
      if (tag == tag_fuse) {
        drain_requests();
      } else if (tag < tag_fuse) {
        const auto pid = static_cast<pid_t>(tag);
        clients_.remove(pid);
        files_.forget(pid);
      }
    }
    if (stopping_) return;
    next_timeout = files_.run_delayed();
    const auto next_wait = clients_.answer_waits();
    if (next_wait) next_timeout = std::min(next_timeout.value_or(*next_wait), *next_wait);
    if (gpu_.has_queues()) queues_exist_.notify_all();
  }
}

void Simulator::drain_requests() {
  while (true) {
    auto request = connection_.next();
    if (!request) {
      report(request.error().message());
      stopping_ = true;
      queues_exist_.notify_all();
      return;
    }
    if (!request->has_value()) return;
    files_.handle(**request);
  }
}

void Simulator::poll_queues() {
  // By default the kernel delays a sleep by up to 50 us.
  ::prctl(PR_SET_TIMERSLACK, 1UL);
  prefer_this_thread();
  auto last_ring = DeviceClock::Wall::now();
  std::unique_lock guard(lock_);
  while (!stopping_) {
    if (!gpu_.has_queues()) {
      const auto wake = [this] { return stopping_ || gpu_.has_queues(); };
      const auto fault = gpu_.next_fault();
      if (!fault) {
        queues_exist_.wait(guard, wake);
      } else if (!queues_exist_.wait_until(guard, *fault, wake)) {
        gpu_.poll();
        clients_.answer_waits();
      }
      last_ring = DeviceClock::Wall::now();
      continue;
    }
    const PollOutcome outcome = gpu_.poll();
    clients_.answer_waits();
    const auto now = DeviceClock::Wall::now();
    if (outcome.doorbell_moved) last_ring = now;
    auto wake = now + pause_after(now - last_ring, outcome.in_flight);
    if (outcome.next_event) wake = std::min(wake, *outcome.next_event);
    guard.unlock();
    sleep_until(wake);
    guard.lock();
  }
}

}  // namespace eclip::kfdsim
