// A list that is shown again and again: a screen where there is a terminal, lines where not.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "ipc/result.h"

namespace eclip::ctl {

struct TopOptions {
  std::chrono::duration<double> interval;
  std::optional<unsigned> count;  ///< screens, then the end; none: until "q" or SIGINT
};

/// Shows what `next` returns, once in an interval: on a terminal below `title`, cut to its size;
/// one after the other where there is no terminal, no title, or a count. An error of `next` ends
/// it.
Result<void> show_repeatedly(const TopOptions& options, const std::string& title,
                             const std::function<Result<std::string>()>& next);

}  // namespace eclip::ctl
