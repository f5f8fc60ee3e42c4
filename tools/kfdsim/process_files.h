// What the KFD tells in /sys of a process that uses it, and of the process's queues.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>

namespace eclip::kfdsim {

/// In the private namespace; /sys/class/kfd/kfd/proc leads there.
inline constexpr const char* kfd_process_directory = "/sys/devices/virtual/kfd/kfd/proc";

/// proc/PID with pasid, queues/ID/{gpuid,size,type}, and vram_GPU and sdma_GPU, which are links to
/// what kfdsim serves: their numbers change all the time. Directories appear with their files and
/// vanish with them. What cannot be made is reported and missing; as with the driver, the process
/// works without.
class ProcessFiles {
 public:
  ProcessFiles(pid_t pid, std::uint32_t pasid);
  ~ProcessFiles();
  ProcessFiles(const ProcessFiles&) = delete;
  ProcessFiles& operator=(const ProcessFiles&) = delete;

  /// `type` is the driver's own number.
  void add_queue(std::uint32_t id, std::uint32_t type, std::uint64_t bytes);
  void resize_queue(std::uint32_t id, std::uint64_t bytes);
  void remove_queue(std::uint32_t id);

 private:
  [[nodiscard]] std::filesystem::path queue(std::uint32_t id) const;

  pid_t pid_;
};

/// The names below fuse_directory to which vram_GPU and sdma_GPU lead: these and the pid.
inline constexpr const char* process_vram_prefix = "vram.";
inline constexpr const char* process_sdma_prefix = "sdma.";

}  // namespace eclip::kfdsim
