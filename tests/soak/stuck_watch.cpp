#include "tests/soak/stuck_watch.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

namespace eclip::soak {

bool StuckWatch::look(pid_t pid) {
  namespace fs = std::filesystem;
  bool stuck = false;
  std::error_code error;
  const fs::path tasks = fs::path("/proc") / std::to_string(pid) / "task";
  for (fs::directory_iterator entry(tasks, error), end; !error && entry != end;
       entry.increment(error)) {
    std::ifstream status(entry->path() / "status");
    bool uninterruptible = false;
    std::uint64_t switches = 0;
    for (std::string line; std::getline(status, line);) {
      constexpr std::string_view slept = "voluntary_ctxt_switches:";
      if (line.starts_with("State:\tD")) uninterruptible = true;
      if (line.starts_with(slept)) switches = std::stoull(line.substr(slept.size()));
    }
    const pid_t thread = std::stoi(entry->path().filename());
    if (!uninterruptible) {
      waiting_.erase(thread);
      continue;
    }
    Waiting& waiting = waiting_.try_emplace(thread, Waiting{Clock::now(), switches}).first->second;
    if (waiting.switches != switches) waiting = {Clock::now(), switches};
    if (waiting.told || Clock::now() - waiting.since < limit_) continue;
    waiting.told = stuck = true;
  }
  return stuck;
}

}  // namespace eclip::soak
