#include "tools/kfdsim/client_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <numeric>
#include <string_view>

namespace eclip::kfdsim {
namespace {

/// The number after `key` in a /proc file of "key: value" lines.
std::optional<std::uint64_t> proc_field(const std::string& file, std::string_view key) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10);
  }
  return std::nullopt;
}

}  // namespace

std::uint64_t IoctlCounts::total() const {
  return std::accumulate(by_number.begin(), by_number.end(), std::uint64_t{0});
}

std::optional<pid_t> process_of_thread(pid_t tid) {
  const auto tgid = proc_field(fmt::format("/proc/{}/status", tid), "Tgid:");
  if (!tgid || *tgid == 0) return std::nullopt;
  return static_cast<pid_t>(*tgid);
}

Result<std::unique_ptr<ClientProcess>> ClientProcess::create(pid_t pid, std::uint64_t first_node) {
  // Not pidfd_open: its declaration in glibc 2.36 is not usable from C++.
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  UniqueFd tasks(
      ::open(fmt::format("/proc/{}/task", pid).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!pidfd || !tasks) {
    const int error = errno;
    if (error == ESRCH || error == ENOENT) return fail(Errc::gone, "the process has ended");
    return fail_errno(error, fmt::format("cannot watch process {}", pid));
  }
  return std::unique_ptr<ClientProcess>(
      new ClientProcess(pid, first_node, std::move(pidfd), std::move(tasks)));
}

std::string ClientProcess::command() const {
  std::string name;
  std::getline(std::ifstream(fmt::format("/proc/{}/comm", pid_)), name);
  return name.empty() ? "?" : name;
}

bool ClientProcess::has_thread(pid_t tid) const {
  return ::faccessat(tasks_.get(), fmt::format("{}", tid).c_str(), F_OK, 0) == 0;
}

bool ClientProcess::has_open(int fd, std::uint64_t node) const {
  // Not fstat: that would ask this very file system. The node id is the inode number.
  return proc_field(fmt::format("/proc/{}/fdinfo/{}", pid_, fd), "ino:") == node;
}

}  // namespace eclip::kfdsim
