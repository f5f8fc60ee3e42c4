// The running simulation: the GPU, its clients, and the two threads that serve them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "ipc/result.h"
#include "ipc/unique_fd.h"
#include "tools/kfdsim/client_registry.h"
#include "tools/kfdsim/file_server.h"
#include "tools/kfdsim/fuse_connection.h"
#include "tools/kfdsim/gpu.h"

namespace eclip::kfdsim {

/// What the simulation did, for the last line.
struct Summary {
  double device_seconds = 0;
  std::uint64_t packets = 0;
  std::map<std::string, std::uint64_t> without_effect;  ///< dispatches by kernel
  std::uint64_t estimated_times = 0;
  std::uint64_t ioctls = 0;
  double energy_joules = 0;
  std::string faults;  ///< that were injected; "" when none was asked for
};

/// One lock guards all state: a request takes microseconds, and so does a look at the queues.
class Simulator {
 public:
  Simulator(FuseConnection connection, model::GpuDescription gpu, double time_scale,
            KnownKernels known, TraceWriter* trace, FaultInjector injector);
  ~Simulator();
  Simulator(const Simulator&) = delete;
  Simulator& operator=(const Simulator&) = delete;

  /// Starts the threads. Signals that the caller has blocked stay blocked in them.
  Result<void> start();
  /// Ends the threads and closes the connection: clients that are left get errors.
  Summary stop();

 private:
  void serve();
  void drain_requests();
  void poll_queues();

  FuseConnection connection_;
  UniqueFd epoll_;
  UniqueFd stop_event_;
  std::mutex lock_;
  std::condition_variable queues_exist_;
  bool stopping_ = false;
  FaultInjector injector_;
  Gpu gpu_;
  ClientRegistry clients_;
  FileServer files_;
  std::thread server_;
  std::thread poller_;
};

}  // namespace eclip::kfdsim
