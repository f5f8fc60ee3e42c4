// A model's measured profile (data/profiles/*.json, schema eclip.profile/1): the time of each of
// its kernels on several numbers of compute units.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/model/kernel.h"
#include "ipc/result.h"

namespace eclip::model {

/// One kernel of a request.
struct ProfiledKernel {
  std::string name;
  Kernel kernel;
};

/// One model at one batch size on one device. Kernels are in program order.
struct Profile {
  std::string model;
  std::uint32_t batch = 0;
  std::string device_name;
  std::uint32_t device_compute_units = 0;
  std::vector<std::uint32_t> cu_counts;  ///< where the kernels' times were measured; ascending
  /// Measured time of a whole request on a mask of that many CUs.
  std::map<std::uint32_t, double> request_us_at_cu_counts;
  double request_us_unmasked = 0;  ///< the same on the whole device without a mask
  std::vector<ProfiledKernel> kernels;
  std::vector<KernelRange> stay_together;  ///< kernels that must run on one stream
  bool uniform = false;                    ///< likewise all kernels of a request
};

struct ProfileDocument;

/// Reads and checks a profile; errors name the file, the kernel's index where it is a kernel's, and
/// the remedy. Keys that are not needed here are ignored: the schema allows notes. That it was
/// measured on another GPU than the one in use is no error and changes nothing: its times hold for
/// the same number of compute units, whichever GPU has them. Who wants to know compares
/// device_name.
Result<Profile> load_profile(const std::filesystem::path& file);

/// The same from memory; `source` is what errors call it.
Result<Profile> parse_profile(std::string_view text, const std::string& source);
/// Errc::malformed when a time was not measured, or a kernel's curve cannot be one.
Result<Profile> make_profile(const ProfileDocument& document, const std::string& source);

}  // namespace eclip::model
