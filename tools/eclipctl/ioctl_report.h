// What KFD ioctls have cost and which queues came of them, as eclipd has measured it.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ipc/messages.h"

namespace eclip::ctl {

/// `eclipctl ioctl show`: costs by command, of one process or of all.
struct IoctlReport {
  std::vector<IoctlRecord> records;  ///< of all processes
  std::optional<std::uint32_t> pid;  ///< shown: this one only
  std::uint64_t dispatches = 0;      ///< kernels that eclipd has forwarded since its start
};

std::string to_text(const IoctlReport& report);
nlohmann::json to_json(const IoctlReport& report);

/// `eclipctl ioctl top`: who makes ioctls now.
struct IoctlTop {
  std::vector<KfdProcessRecord> before;
  std::vector<KfdProcessRecord> now;
  std::chrono::duration<double> interval;  ///< between the two, host time
};

std::string to_text(const IoctlTop& top);
nlohmann::json to_json(const IoctlTop& top);

}  // namespace eclip::ctl
