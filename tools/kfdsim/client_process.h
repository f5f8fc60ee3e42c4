// A process that has looked up the simulated devices: its identity and its open files.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "ipc/result.h"
#include "ipc/unique_fd.h"
#include "tools/kfdsim/backing_memory.h"
#include "tools/kfdsim/fault_injector.h"
#include "tools/kfdsim/gpu_context.h"

namespace eclip::kfdsim {

/// KFD ioctls that a process has made, by command number; refused ones count too.
struct IoctlCounts {
  std::array<std::uint64_t, 256> by_number{};
  [[nodiscard]] std::uint64_t total() const;
};

/// The process (thread group) of thread `tid`; nullopt when it is gone.
std::optional<pid_t> process_of_thread(pid_t tid);

class ClientProcess {
 public:
  /// Errc::gone when the process has ended.
  static Result<std::unique_ptr<ClientProcess>> create(pid_t pid, std::uint64_t first_node);

  [[nodiscard]] pid_t pid() const { return pid_; }
  /// Becomes readable when the process ends.
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  /// The command's name now.
  [[nodiscard]] std::string command() const;
  /// Whether the thread is one of this process, now.
  [[nodiscard]] bool has_thread(pid_t tid) const;
  /// Whether the process's descriptor `fd` is its own open of the node with this id.
  [[nodiscard]] bool has_open(int fd, std::uint64_t node) const;

  [[nodiscard]] std::uint64_t kfd_node() const { return first_node_; }
  [[nodiscard]] std::uint64_t render_node() const { return first_node_ + 1; }

  /// The pages behind the process's maps, made on first use; with passthrough, their FUSE backing
  /// id.
  std::optional<BackingMemory> backing;
  std::int32_t backing_id = 0;
  /// From the first open of /dev/kfd to the end of the address space that opened it.
  std::unique_ptr<GpuContext> gpu;
  std::uint64_t kfd_opens = 0;
  IoctlCounts ioctls;
  FaultHistory faults;

 private:
  ClientProcess(pid_t pid, std::uint64_t first_node, UniqueFd pidfd, UniqueFd tasks)
      : pid_(pid), first_node_(first_node), pidfd_(std::move(pidfd)), tasks_(std::move(tasks)) {}

  pid_t pid_;
  std::uint64_t first_node_;
  UniqueFd pidfd_;
  UniqueFd tasks_;  // /proc/PID/task
};

}  // namespace eclip::kfdsim
