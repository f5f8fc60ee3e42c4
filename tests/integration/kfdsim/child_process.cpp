#include "tests/integration/kfdsim/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <stdexcept>

namespace eclip::test {
namespace {

constexpr std::chrono::seconds patience{30};

bool drain(int& fd, std::string& to) {
  std::array<char, 4096> buffer{};
  const ssize_t size = ::read(fd, buffer.data(), buffer.size());
  if (size > 0) {
    to.append(buffer.data(), static_cast<std::size_t>(size));
    return true;
  }
  ::close(fd);
  fd = -1;
  return false;
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& arguments) {
  std::array<int, 2> out{};
  std::array<int, 2> err{};
  if (::pipe2(out.data(), O_CLOEXEC) != 0 || ::pipe2(err.data(), O_CLOEXEC) != 0) {
    throw std::runtime_error("pipe2 failed");
  }
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::dup2(out[1], STDOUT_FILENO);
    ::dup2(err[1], STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(99);
  }
  ::close(out[1]);
  ::close(err[1]);
  out_ = out[0];
  err_ = err[0];
}

ChildProcess::~ChildProcess() {
  if (!reaped_) {
    ::kill(pid_, SIGKILL);
    reap(true);
  }
  if (out_ >= 0) ::close(out_);
  if (err_ >= 0) ::close(err_);
}

bool ChildProcess::read_some(int milliseconds) {
  std::array<pollfd, 2> fds{pollfd{out_, POLLIN, 0}, pollfd{err_, POLLIN, 0}};
  if (::poll(fds.data(), fds.size(), milliseconds) <= 0) return false;
  if (fds[0].revents != 0) drain(out_, output_);
  if (fds[1].revents != 0) drain(err_, errors_);
  return true;
}

std::string ChildProcess::read_line() {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (true) {
    const std::size_t newline = output_.find('\n', line_start_);
    if (newline != std::string::npos) {
      std::string line = output_.substr(line_start_, newline - line_start_);
      line_start_ = newline + 1;
      return line;
    }
    if (out_ < 0 || std::chrono::steady_clock::now() > end) return "";
    read_some(100);
  }
}

bool ChildProcess::says(const std::string& text) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (output_.find(text) == std::string::npos && errors_.find(text) == std::string::npos) {
    if ((out_ < 0 && err_ < 0) || std::chrono::steady_clock::now() > end) return false;
    read_some(100);
  }
  return true;
}

bool ChildProcess::reap(bool block) {
  if (!reaped_) reaped_ = ::waitpid(pid_, &status_, block ? 0 : WNOHANG) == pid_;
  return reaped_;
}

int ChildProcess::wait() {
  const auto end = std::chrono::steady_clock::now() + patience;
  // Not until the end of the streams: a process that it left behind may hold them open.
  while (!reap(false)) {
    if (std::chrono::steady_clock::now() > end) return -1;
    read_some(5);
  }
  while ((out_ >= 0 || err_ >= 0) && read_some(0)) {
  }
  return WIFSIGNALED(status_) ? 128 + WTERMSIG(status_) : WEXITSTATUS(status_);
}

}  // namespace eclip::test
