#include "daemon/processes.h"

#include <sys/stat.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>

#include "ipc/printable.h"

namespace eclip::daemon {
namespace {

namespace fs = std::filesystem;

constexpr const char* driver_processes = "/sys/class/kfd/kfd/proc";

/// A number in a file of sysfs; `otherwise` when it has gone meanwhile.
std::uint32_t number_in(const fs::path& file, std::uint32_t otherwise) {
  std::ifstream stream(file);
  std::uint32_t number = 0;
  return stream >> number ? number : otherwise;
}

}  // namespace

ProcessFacts facts_of(pid_t pid) {
  const std::string directory = "/proc/" + std::to_string(pid);
  ProcessFacts facts;
  std::ifstream comm(directory + "/comm");
  std::getline(comm, facts.command);
  facts.command = printable(facts.command);
  struct stat status {};
  if (::stat(directory.c_str(), &status) == 0) facts.uid = status.st_uid;
  return facts;
}

std::vector<bpf::KfdQueues> queues_of_the_driver() {
  std::vector<bpf::KfdQueues> list;
  std::error_code error;  // what goes while we look is not there
  for (fs::directory_iterator process(driver_processes, error), end; !error && process != end;
       process.increment(error)) {
    const std::string name = process->path().filename();
    pid_t pid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc{}) continue;
    std::map<std::uint32_t, std::uint32_t> alive;  // by GPU
    std::error_code gone;
    for (fs::directory_iterator queue(process->path() / "queues", gone); !gone && queue != end;
         queue.increment(gone)) {
      constexpr std::uint32_t compute = 0;
      constexpr std::uint32_t nothing = UINT32_MAX;
      const std::uint32_t gpu_id = number_in(queue->path() / "gpuid", nothing);
      if (gpu_id != nothing && number_in(queue->path() / "type", nothing) == compute)
        ++alive[gpu_id];
    }
    for (const auto& [gpu_id, count] : alive)
      list.push_back({.pid = pid, .gpu_id = gpu_id, .alive = count, .masked = 0});
  }
  return list;
}

}  // namespace eclip::daemon
