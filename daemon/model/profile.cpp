#include "daemon/model/profile.h"

#include <utility>

#include "daemon/model/profile_document.h"
#include "ipc/read_file.h"

namespace eclip::model {
namespace {

Result<Kernel> make_kernel(const KernelRow& row, const std::vector<std::uint32_t>& cu_counts) {
  std::vector<TimePoint> points;
  points.reserve(cu_counts.size());
  for (std::size_t i = 0; i < cu_counts.size(); ++i) {
    if (row.time_us[i] <= 0)
      return fail(Errc::malformed,
                  "time " + std::to_string(i) + " must be a positive time in microseconds");
    points.push_back({cu_counts[i], row.time_us[i]});
  }
  return Kernel::create(row.shape, points);
}

}  // namespace

Result<Profile> make_profile(const ProfileDocument& document, const std::string& source) {
  Profile profile{.model = document.model,
                  .batch = document.batch,
                  .device_name = document.device_name,
                  .device_compute_units = document.device_compute_units,
                  .cu_counts = document.cu_counts,
                  .request_us_at_cu_counts = document.request_us_at_cu_counts,
                  .request_us_unmasked = document.request_us_unmasked,
                  .kernels = {},
                  .stay_together = document.stay_together,
                  .uniform = document.uniform};
  profile.kernels.reserve(document.kernels.size());
  for (std::size_t i = 0; i < document.kernels.size(); ++i) {
    auto kernel = make_kernel(document.kernels[i], document.cu_counts);
    if (!kernel)
      return fail(Errc::malformed, source + ": kernel " + std::to_string(i) + ": " +
                                       kernel.error().context +
                                       "; correct the row or measure the profile again");
    profile.kernels.push_back({document.kernels[i].name, std::move(*kernel)});
  }
  return profile;
}

Result<Profile> parse_profile(std::string_view text, const std::string& source) {
  const auto document = parse_profile_document(text, source);
  if (!document) return tl::unexpected(document.error());
  return make_profile(*document, source);
}

Result<Profile> load_profile(const std::filesystem::path& file) {
  const std::string source = "profile " + file.string();
  const auto content = read_file(file);
  if (!content) return fail(content.error(), source);
  return parse_profile(*content, source);
}

}  // namespace eclip::model
