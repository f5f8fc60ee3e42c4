#include "daemon/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <utility>

namespace eclip::daemon {
namespace {

constexpr std::chrono::milliseconds absence_step{200};

/// The signals that the supervisor waits for; blocked, so that only the signalfd sees them.
sigset_t supervised_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGCHLD}) ::sigaddset(&signals, signal);
  return signals;
}

std::string describe_end(int wait_status) {
  if (WIFSIGNALED(wait_status))
    return std::string("was ended by signal ") + std::to_string(WTERMSIG(wait_status));
  switch (static_cast<ServingEnd>(WEXITSTATUS(wait_status))) {
    case ServingEnd::gpu_failed:
      return "lost its GPU";
    case ServingEnd::gpu_missing:
      return "found no GPU that it can use";
    default:
      return "ended with status " + std::to_string(WEXITSTATUS(wait_status));
  }
}

bool ended_with(int wait_status, ServingEnd end) {
  return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == static_cast<int>(end);
}

}  // namespace

Supervisor::Supervisor(Limits limits, Serve serve, std::function<void()> announce_ready)
    : limits_(limits), serve_(std::move(serve)), announce_ready_(std::move(announce_ready)) {}

Result<Supervisor::Child> Supervisor::start() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "create a pipe");
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  const pid_t supervisor = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "start the serving process");
  if (pid > 0) return Child{.pid = pid, .ready = std::move(read_end)};

  // The serving process. It must not outlive the supervisor, which may have died already.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != supervisor) ::_exit(static_cast<int>(ServingEnd::failed));
  signals_.reset();
  read_end.reset();
  const ServingEnd end = serve_([&write_end] {
    constexpr char byte = 1;
    [[maybe_unused]] const auto written = ::write(write_end.get(), &byte, sizeof byte);
    write_end.reset();
  });
  std::exit(static_cast<int>(end));
}

Result<int> Supervisor::await_end(Child& child) {
  constexpr auto never = Clock::time_point::max();
  auto kill_at = never;
  while (true) {
    int status = 0;
    const pid_t ended = ::waitpid(child.pid, &status, WNOHANG);
    if (ended == child.pid) {
      look_for_ready(child);
      return status;
    }
    if (ended < 0 && errno != EINTR) return fail_errno(errno, "wait for the serving process");

    std::array<pollfd, 2> fds{
        {{.fd = signals_.get(), .events = POLLIN, .revents = 0},
         {.fd = child.ready ? child.ready.get() : -1, .events = POLLIN, .revents = 0}}};
    int timeout_ms = -1;
    if (kill_at != never) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(kill_at - Clock::now()).count();
      if (left <= 0) {
        spdlog::error("the serving process does not stop; it is killed");
        ::kill(child.pid, SIGKILL);
        kill_at = never;
        continue;
      }
      timeout_ms = static_cast<int>(left);
    }
    if (::poll(fds.data(), fds.size(), timeout_ms) < 0 && errno != EINTR)
      return fail_errno(errno, "wait for the serving process");
    signalfd_siginfo signal{};
    while (::read(signals_.get(), &signal, sizeof signal) == sizeof signal) {
      if (signal.ssi_signo == SIGCHLD) continue;
      stopping_ = true;
      ::kill(child.pid, static_cast<int>(signal.ssi_signo));
      if (kill_at == never) kill_at = Clock::now() + limits_.stop;
    }
    if (fds[1].revents != 0) look_for_ready(child);
  }
}

void Supervisor::look_for_ready(Child& child) {
  if (!child.ready) return;
  char byte = 0;
  const bool ready = ::read(child.ready.get(), &byte, sizeof byte) == sizeof byte;
  child.ready.reset();
  if (!ready) return;
  missing_ = false;
  if (!std::exchange(announced_, true)) announce_ready_();
}

void Supervisor::pause(std::chrono::milliseconds time) {
  // Nobody to pass a signal on to: it is for us.
  const auto until = Clock::now() + time;
  while (!stopping_) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return;
    pollfd fd{.fd = signals_.get(), .events = POLLIN, .revents = 0};
    ::poll(&fd, 1, static_cast<int>(left));
    signalfd_siginfo signal{};
    while (::read(signals_.get(), &signal, sizeof signal) == sizeof signal)
      if (signal.ssi_signo != SIGCHLD) stopping_ = true;
  }
}

bool Supervisor::may_restart(int wait_status) {
  const std::string how = describe_end(wait_status);
  if (!announced_ || ended_with(wait_status, ServingEnd::failed)) {
    // What has never served fails as it would without a supervisor; it has said why, unless it
    // crashed.
    if (WIFSIGNALED(wait_status)) spdlog::critical("the serving process {}", how);
    return false;
  }
  const auto now = Clock::now();
  if (ended_with(wait_status, ServingEnd::gpu_missing)) {
    if (!std::exchange(missing_, true)) missing_since_ = now;
    if (now - missing_since_ > limits_.gpu_absence) {
      spdlog::critical("the GPU has not come back within {} ms: giving up",
                       limits_.gpu_absence.count());
      return false;
    }
    pause(absence_step);
    return true;
  }
  while (!restarts_.empty() && now - restarts_.front() > limits_.restart_period)
    restarts_.pop_front();
  if (restarts_.size() >= limits_.restarts) {
    spdlog::critical("the serving process {}, after {} restarts within {} ms: giving up", how,
                     limits_.restarts, limits_.restart_period.count());
    return false;
  }
  restarts_.push_back(now);
  spdlog::warn("the serving process {}; starting a new one", how);
  return true;
}

int Supervisor::run() {
  const sigset_t signals = supervised_signals();
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  signals_.reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  while (!stopping_) {
    auto child = start();
    const Result<int> status =
        child ? await_end(*child) : Result<int>(tl::unexpected(child.error()));
    if (!status) {
      spdlog::critical("{}", status.error().message());
      return 1;
    }
    if (ended_with(*status, ServingEnd::stopped)) return 0;
    if (stopping_) {
      spdlog::error("on its way down the serving process {}", describe_end(*status));
      return 1;
    }
    if (!may_restart(*status)) return 1;
  }
  return 0;
}

}  // namespace eclip::daemon
