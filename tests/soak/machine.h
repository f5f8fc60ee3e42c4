// What the soak reads of the machine.
#pragma once

#include <cstddef>
#include <fstream>
#include <string>

namespace eclip::soak {

/// KiB of memory that processes share, of files in memory included: the machine's.
inline std::size_t shared_kilobytes() {
  constexpr const char* field = "Shmem:";
  std::ifstream stream("/proc/meminfo");
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with(field))
      return std::stoull(line.substr(std::char_traits<char>::length(field)));
  }
  return 0;
}

/// That others on the machine may take meanwhile.
inline constexpr std::size_t shared_tolerance_kilobytes = 32 << 10;

}  // namespace eclip::soak
