// A model's measured profile (data/profiles/*.json, schema eclip.profile/1): the time of each of
// its kernels on several numbers of compute units.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "daemon/model/kernel.h"
#include "ipc/result.h"

namespace eclip::model {

/// One kernel of a request.
struct ProfiledKernel {
  std::string name;
  Kernel kernel;
};

/// Kernels first to last of a request that must run on one stream: cooperative kernels, or those of
/// a library that assumes that the number of CUs does not change.
struct KernelRange {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
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
  std::vector<KernelRange> stay_together;  ///< key stay_together, optional: [[first, last], ...]
  bool uniform = false;  ///< key uniform, optional: all kernels of a request stay together
};

/// Reads and checks a profile; errors name the file, the kernel's index where it is a kernel's, and
/// the remedy. Keys that are not needed here are ignored: the schema allows notes.
Result<Profile> load_profile(const std::filesystem::path& file);

}  // namespace eclip::model
