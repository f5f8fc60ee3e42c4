// Power and energy of a GPU from the driver's hwmon files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace eclip::daemon {

/// Reads /sys/class/drm/renderD*/device/hwmon/hwmon*. Not every driver has every file.
class PowerMeter {
 public:
  explicit PowerMeter(std::uint32_t render_minor);

  /// Microjoules since the driver's counter began (energy1_input); nullopt where there is none.
  [[nodiscard]] std::optional<std::uint64_t> energy_uj() const { return read("energy1_input"); }
  /// Microwatts (power1_average); nullopt where there is none.
  [[nodiscard]] std::optional<std::uint64_t> power_uw() const { return read("power1_average"); }

 private:
  [[nodiscard]] std::optional<std::uint64_t> read(const char* file) const;
  std::filesystem::path directory_;  // empty: no hwmon
};

}  // namespace eclip::daemon
