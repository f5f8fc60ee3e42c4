#include "daemon/model/profile_merge.h"

#include <algorithm>
#include <map>

namespace eclip::model {
namespace {

/// A weighted mean of what is there.
class Mean {
 public:
  void add(double value, double weight) {
    if (value <= 0) return;
    sum_ += value * weight;
    weight_ += weight;
  }
  [[nodiscard]] double value() const { return weight_ > 0 ? sum_ / weight_ : 0; }

 private:
  double sum_ = 0;
  double weight_ = 0;
};

struct Spread {
  double sum = 0;
  double weight = 0;
};

std::string shape_text(const KernelRow& row) {
  return "'" + row.name + "' (" + std::to_string(row.shape.workgroups) + " workgroups of " +
         std::to_string(row.shape.workgroup_size) + ", " +
         std::to_string(row.shape.registers_per_thread) + " registers, " +
         std::to_string(row.shape.local_memory_bytes) + " bytes)";
}

std::string together_text(const ProfileDocument& document) {
  std::string text = document.uniform ? "all kernels" : "";
  for (const KernelRange& range : document.stay_together)
    text += (text.empty() ? "" : ", ") + std::to_string(range.first) + " to " +
            std::to_string(range.last);
  return text.empty() ? "nothing" : text;
}

Result<void> check_same(const NamedProfile& first, const NamedProfile& other) {
  const ProfileDocument& a = first.document;
  const ProfileDocument& b = other.document;
  const auto differs = [&](const std::string& what, const std::string& in_a,
                           const std::string& in_b) {
    return fail(Errc::invalid_argument, other.source + ": " + what + " is " + in_b + ", and " +
                                            in_a + " in " + first.source +
                                            "; merge profiles of the same model, batch and device");
  };
  if (a.model != b.model) return differs("the model", a.model, b.model);
  if (a.batch != b.batch)
    return differs("the batch", std::to_string(a.batch), std::to_string(b.batch));
  if (a.precision != b.precision)
    return differs("the precision", "'" + a.precision + "'", "'" + b.precision + "'");
  if (a.device_name != b.device_name) return differs("the device", a.device_name, b.device_name);
  if (a.device_compute_units != b.device_compute_units)
    return differs("the device's number of CUs", std::to_string(a.device_compute_units),
                   std::to_string(b.device_compute_units));
  if (a.kernels.size() != b.kernels.size())
    return differs("the number of kernels", std::to_string(a.kernels.size()),
                   std::to_string(b.kernels.size()));
  for (std::size_t k = 0; k < a.kernels.size(); ++k)
    if (a.kernels[k].name != b.kernels[k].name || a.kernels[k].shape != b.kernels[k].shape)
      return differs("kernel " + std::to_string(k), shape_text(a.kernels[k]),
                     shape_text(b.kernels[k]));
  if (a.uniform != b.uniform || a.stay_together != b.stay_together)
    return differs("what must stay together", together_text(a), together_text(b));
  return {};
}

/// A profile's requests at its i-th count.
double weight_of(const ProfileDocument& document, std::size_t i) {
  return document.samples.empty() ? 1 : document.samples[i];
}

/// One row of all, at `counts`.
void merge_row(std::span<const NamedProfile> profiles, std::size_t kernel, KernelRow& row,
               const std::vector<std::uint32_t>& counts) {
  std::map<std::uint32_t, Mean> times;
  std::map<std::uint32_t, Spread> spreads;
  bool all_spread = true;
  for (const NamedProfile& profile : profiles) {
    const KernelRow& from = profile.document.kernels[kernel];
    all_spread = all_spread && !from.iqr_us.empty();
    for (std::size_t i = 0; i < from.time_us.size(); ++i) {
      const std::uint32_t cus = profile.document.cu_counts[i];
      const double weight = weight_of(profile.document, i);
      times[cus].add(from.time_us[i], weight);
      if (from.iqr_us.empty()) continue;
      spreads[cus].sum += from.iqr_us[i] * weight;
      spreads[cus].weight += weight;
    }
  }
  row.time_us.clear();
  row.iqr_us.clear();
  for (const std::uint32_t cus : counts) {
    row.time_us.push_back(times[cus].value());
    const Spread& spread = spreads[cus];
    if (all_spread) row.iqr_us.push_back(spread.weight > 0 ? spread.sum / spread.weight : 0);
  }
}

}  // namespace

Result<ProfileDocument> merge_profiles(std::span<const NamedProfile> profiles) {
  if (profiles.empty()) return fail(Errc::invalid_argument, "no profile to merge; name some");
  std::map<std::uint32_t, std::uint32_t> samples;
  std::map<std::uint32_t, Mean> requests;
  Mean unmasked;
  bool all_samples = true;
  for (const NamedProfile& profile : profiles) {
    if (auto same = check_same(profiles.front(), profile); !same)
      return tl::unexpected(same.error());
    const ProfileDocument& document = profile.document;
    all_samples = all_samples && !document.samples.empty();
    for (std::size_t i = 0; i < document.cu_counts.size(); ++i) {
      const std::uint32_t cus = document.cu_counts[i];
      samples[cus] += document.samples.empty() ? 0 : document.samples[i];
      const auto request = document.request_us_at_cu_counts.find(cus);
      if (request != document.request_us_at_cu_counts.end())
        requests[cus].add(request->second, weight_of(document, i));
    }
    unmasked.add(document.request_us_unmasked, weight_of(document, document.cu_counts.size() - 1));
  }
  ProfileDocument merged = profiles.front().document;
  merged.cu_counts.clear();
  merged.samples.clear();
  for (const auto& [cus, count] : samples) {
    merged.cu_counts.push_back(cus);
    if (all_samples) merged.samples.push_back(count);
  }
  merged.request_us_at_cu_counts.clear();
  for (const auto& [cus, mean] : requests) merged.request_us_at_cu_counts[cus] = mean.value();
  merged.request_us_unmasked = unmasked.value();
  for (std::size_t k = 0; k < merged.kernels.size(); ++k)
    merge_row(profiles, k, merged.kernels[k], merged.cu_counts);
  return merged;
}

}  // namespace eclip::model
