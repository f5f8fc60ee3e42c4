// All client processes, by pid and by the file system nodes that stand for them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/kfdsim/client_process.h"
#include "tools/kfdsim/device_nodes.h"
#include "tools/kfdsim/fuse_connection.h"
#include "tools/kfdsim/gpu.h"

namespace eclip::kfdsim {

/// Not thread safe; the Simulator's lock guards it.
class ClientRegistry {
 public:
  /// `epoll` gets each client's pidfd, with the pid as its data.
  /// `limits` is what each client may have of the budget.
  ClientRegistry(FuseConnection& connection, Gpu& gpu, MemoryBudget budget, MemoryBudget limits,
                 int epoll);
  ~ClientRegistry();
  ClientRegistry(const ClientRegistry&) = delete;
  ClientRegistry& operator=(const ClientRegistry&) = delete;

  /// The client that the thread belongs to, made on first use; null when it is gone.
  ClientProcess* of_thread(pid_t tid);
  /// Null when there is none (any more).
  ClientProcess* of_node(std::uint64_t node);
  ClientProcess* of_pid(pid_t pid);

  /// Gives the client the pages behind its device files.
  Result<void> provide_backing(ClientProcess& client);
  /// /dev/kfd was opened; the client's pages exist.
  void open_gpu(ClientProcess& client);
  /// The last open of /dev/kfd is gone. As in the KFD, queues, memory and events stay as long as
  /// the address space does: the runtime may shut down and begin again.
  void last_closed(ClientProcess& client);
  /// The process has ended.
  void remove(pid_t pid);

  /// An ioctl that has been executed and returns later.
  struct LateAnswer {
    std::uint64_t request;
    int result;
    std::vector<std::byte> out;
  };
  void answer_at(WallTime when, LateAnswer answer) { late_.emplace(when, std::move(answer)); }

  /// Answers the WAIT_EVENTS that are over and the late answers that are due; returns when the
  /// next one is.
  std::optional<WallTime> answer_waits();
  /// A signal interrupted the request.
  void interrupt(std::uint64_t request);

  /// The table of docs/kfdsim.md: KFD ioctls of each process and of all since the start.
  [[nodiscard]] std::string ioctl_table() const;
  [[nodiscard]] std::uint64_t ioctls_served() const;
  MemoryBudget& budget() { return budget_; }

 private:
  /// Queues, memory and events go.
  void close_gpu(ClientProcess& client);
  Result<BackingMemory> back_with_memfd(ClientProcess& client);
  Result<BackingMemory> back_with_own_files(const ClientProcess& client);

  FuseConnection& connection_;
  Gpu& gpu_;
  MemoryBudget budget_;
  const MemoryBudget limits_;
  int epoll_;
  std::uint64_t next_node_ = first_client_node;
  std::map<pid_t, std::unique_ptr<ClientProcess>> by_pid_;
  std::map<std::uint64_t, ClientProcess*> by_node_;  // by the first of its two
  std::multimap<WallTime, LateAnswer> late_;
  IoctlCounts ended_;  // of processes that are gone
};

}  // namespace eclip::kfdsim
