#include "daemon/power_meter.h"

#include <fstream>
#include <string>
#include <system_error>

namespace eclip::daemon {

PowerMeter::PowerMeter(std::uint32_t render_minor) {
  const std::filesystem::path parent =
      "/sys/class/drm/renderD" + std::to_string(render_minor) + "/device/hwmon";
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(parent, error))
    if (entry.path().filename().string().starts_with("hwmon")) directory_ = entry.path();
}

std::optional<std::uint64_t> PowerMeter::read(const char* file) const {
  if (directory_.empty()) return std::nullopt;
  std::ifstream stream(directory_ / file);
  std::uint64_t value = 0;
  if (!(stream >> value)) return std::nullopt;
  return value;
}

}  // namespace eclip::daemon
