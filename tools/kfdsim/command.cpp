#include "tools/kfdsim/command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "ipc/unique_fd.h"
#include "tools/kfdsim/report.h"

namespace eclip::kfdsim {
namespace {

constexpr int passed_on[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

sigset_t command_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : passed_on) sigaddset(&set, signal);
  sigaddset(&set, SIGCHLD);
  return set;
}

[[noreturn]] void become(const std::vector<std::string>& arguments, pid_t parent, int failure) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(exit_own_failure);  // it died before the line above
  ::signal(SIGPIPE, SIG_DFL);
  const sigset_t set = command_signals();
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  ::execvp(argv[0], argv.data());
  const int error = errno;
  [[maybe_unused]] const ssize_t written = ::write(failure, &error, sizeof error);
  ::_exit(error == ENOENT ? exit_not_found : exit_not_executable);
}

/// Waits for the child; passes signals on.
int attend(pid_t child, int signals) {
  while (true) {
    signalfd_siginfo info{};
    const ssize_t size = ::read(signals, &info, sizeof info);
    if (size == static_cast<ssize_t>(sizeof info) && info.ssi_signo != SIGCHLD &&
        info.ssi_code != SI_KERNEL) {
      ::kill(child, static_cast<int>(info.ssi_signo));
    }
    int status = 0;
    if (::waitpid(child, &status, WNOHANG) != child) continue;
    return WIFSIGNALED(status) ? exit_signal_base + WTERMSIG(status) : WEXITSTATUS(status);
  }
}

}  // namespace

void block_command_signals() {
  const sigset_t set = command_signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // A closed stderr must not end the simulation.
  ::signal(SIGPIPE, SIG_IGN);
}

Result<int> run_command(const std::vector<std::string>& arguments) {
  const sigset_t set = command_signals();
  const UniqueFd signals(::signalfd(-1, &set, SFD_CLOEXEC));
  int ends[2] = {-1, -1};
  if (!signals || ::pipe2(ends, O_CLOEXEC) != 0) {
    return fail_errno(errno, "cannot prepare to run the command");
  }
  const UniqueFd result(ends[0]);
  UniqueFd failure(ends[1]);
  const pid_t self = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "cannot start the command");
  if (child == 0) become(arguments, self, failure.get());
  failure.reset();
  int error = 0;
  if (::read(result.get(), &error, sizeof error) == static_cast<ssize_t>(sizeof error)) {
    report(fmt::format("cannot run {}: {}", arguments.front(), std::strerror(error)));
  }
  return attend(child, signals.get());
}

}  // namespace eclip::kfdsim
