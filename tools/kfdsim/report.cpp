#include "tools/kfdsim/report.h"

#include <cstdio>
#include <string>

namespace eclip::kfdsim {

void report(std::string_view text) {
  // One write, so that lines of several threads do not mix.
  const std::string line = "kfdsim: " + std::string(text) + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace eclip::kfdsim
