#include "tools/kfdsim/report.h"

#include <algorithm>
#include <cstdio>
#include <string>

namespace eclip::kfdsim {

void report(std::string_view text) {
  // One write, so that lines of several threads do not mix.
  std::string line = "kfdsim: " + std::string(text);
  // Names of processes and kernels are the clients': the terminal must not obey them.
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return c < ' ' || c == 0x7f; }, '?');
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace eclip::kfdsim
