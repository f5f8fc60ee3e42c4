// A profile as its file has it (schema eclip.profile/1, docs/profiles.md): measured times before
// they are made monotone, and how far they spread. What plans and simulations use is a Profile.
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
struct KernelRow {
  std::string name;
  LaunchShape shape;
  std::vector<double> time_us;  ///< for each of cu_counts the median; 0: not measured
  std::vector<double> iqr_us;   ///< likewise the interquartile range; empty: not known
  friend bool operator==(const KernelRow&, const KernelRow&) = default;
};

struct ProfileDocument {
  std::string model;
  std::uint32_t batch = 1;
  std::string precision;  ///< "" when not stated
  std::string device_name;
  std::uint32_t device_compute_units = 0;
  std::vector<std::uint32_t> cu_counts;  ///< ascending
  /// Requests that each of cu_counts was measured with; empty: not known.
  std::vector<std::uint32_t> samples;
  std::map<std::uint32_t, double> request_us_at_cu_counts;
  double request_us_unmasked = 0;
  std::string note;  ///< how it was measured; "" when not stated
  std::vector<KernelRow> kernels;
  std::vector<KernelRange> stay_together;  ///< key stay_together, optional: [[first, last], ...]
  bool uniform = false;  ///< key uniform, optional: all kernels of a request stay together
  friend bool operator==(const ProfileDocument&, const ProfileDocument&) = default;
};

/// `source` is what errors call it. Errc::malformed names the key or the kernel's index, and the
/// remedy. A time may be 0 or null: not measured.
Result<ProfileDocument> parse_profile_document(std::string_view text, const std::string& source);
Result<ProfileDocument> load_profile_document(const std::filesystem::path& file);

/// JSON that parse_profile_document reads as the same document. Bytes in names that are no UTF-8
/// are replaced.
std::string to_json(const ProfileDocument& document);

}  // namespace eclip::model
