// The simulated devices as a file system: kfd, renderD128 and files that say what goes on.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "tools/kfdsim/client_registry.h"
#include "tools/kfdsim/delayed_ioctls.h"
#include "tools/kfdsim/fault_injector.h"
#include "tools/kfdsim/fuse_connection.h"
#include "tools/kfdsim/gpu.h"

namespace eclip::kfdsim {

/// Executes FUSE requests. Not thread safe; the Simulator's lock guards it.
class FileServer {
 public:
  FileServer(FuseConnection& connection, ClientRegistry& clients, Gpu& gpu, FaultInjector& injector)
      : connection_(connection), clients_(clients), gpu_(gpu), injector_(injector) {}

  /// Answers the request now, or, for WAIT_EVENTS, leaves the answer to the registry.
  void handle(const FuseRequest& request);
  /// Carries out the ioctls whose injected delay is over; returns when the next one's is.
  std::optional<DelayedIoctls::Time> run_delayed();
  /// Forgets opens of a process that has ended.
  void forget(pid_t pid);

 private:
  struct OpenFile {
    std::uint64_t node = 0;
    pid_t pid = 0;        ///< device files: who opened it
    std::string content;  ///< other files: what the last read from the start saw
  };

  void lookup(const FuseRequest& request);
  void open(const FuseRequest& request);
  void open_device(const FuseRequest& request);
  void read(const FuseRequest& request);
  void read_directory(const FuseRequest& request);
  void release(const FuseRequest& request);
  void ioctl(const FuseRequest& request);
  void interrupt(std::uint64_t unique);
  /// Answers, with `error` unless it is 0.
  void carry_out_ioctl(const FuseRequest& request, int error);
  int run_ioctl(const FuseRequest& request, OpenFile& file, std::uint8_t number,
                std::span<std::byte, 512> argument);
  /// The node of a file that tells what a process uses; 0 when there is none of that name.
  [[nodiscard]] std::uint64_t process_file_named(std::string_view name) const;
  /// Its text; "" when the process is gone.
  std::string content_of_process_file(std::uint64_t node);
  [[nodiscard]] std::string content_of(std::uint64_t node);

  FuseConnection& connection_;
  ClientRegistry& clients_;
  Gpu& gpu_;
  FaultInjector& injector_;
  DelayedIoctls delayed_;
  std::map<std::uint64_t, OpenFile> open_files_;
  std::uint64_t next_handle_ = 1;
};

}  // namespace eclip::kfdsim
