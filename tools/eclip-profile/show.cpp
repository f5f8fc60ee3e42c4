#include "tools/eclip-profile/show.h"

#include <fmt/core.h>

#include <algorithm>
#include <numeric>

#include "daemon/model/profile_quality.h"

namespace eclip::profile {
namespace {

constexpr std::size_t name_width = 44;

std::string cut(const std::string& name) {
  return name.size() <= name_width ? name : name.substr(0, name_width - 3) + "...";
}

/// "-" where none was measured.
std::string time_text(double time_us) {
  return time_us > 0 ? fmt::format("{:.2f}", time_us) : "-";
}

std::string speedup_text(double few_us, double many_us) {
  return few_us > 0 && many_us > 0 ? fmt::format("x{:.2f}", few_us / many_us) : "-";
}

}  // namespace

std::string table_of(const model::ProfileDocument& profile) {
  std::string text =
      fmt::format("{}, batch {}{}, measured on {} ({} CUs): {} kernels\n", profile.model,
                  profile.batch, profile.precision.empty() ? "" : ", " + profile.precision,
                  profile.device_name, profile.device_compute_units, profile.kernels.size());
  if (!profile.note.empty()) text += profile.note + "\n";
  text += "Times in microseconds; speedup from the fewest CUs to the most.\n\n";
  const auto line = [&text](const std::string& number, const std::string& name,
                            const std::string& workgroups, const std::string& size,
                            const std::vector<std::string>& times, const std::string& speedup) {
    text += fmt::format("{:>5} {:<{}} {:>10} {:>5}", number, name, name_width, workgroups, size);
    for (const std::string& time : times) text += fmt::format(" {:>10}", time);
    text += fmt::format(" {:>8}\n", speedup);
  };
  std::vector<std::string> cells;
  for (const std::uint32_t cus : profile.cu_counts) cells.push_back(fmt::format("{} CUs", cus));
  line("#", "kernel", "workgroups", "of", cells, "speedup");
  std::vector<double> sums(profile.cu_counts.size());
  for (std::size_t k = 0; k < profile.kernels.size(); ++k) {
    const model::KernelRow& kernel = profile.kernels[k];
    cells.clear();
    for (std::size_t i = 0; i < sums.size(); ++i) {
      cells.push_back(time_text(kernel.time_us[i]));
      sums[i] += kernel.time_us[i];
    }
    line(std::to_string(k), cut(kernel.name), std::to_string(kernel.shape.workgroups),
         std::to_string(kernel.shape.workgroup_size), cells,
         speedup_text(kernel.time_us.front(), kernel.time_us.back()));
  }
  cells.clear();
  for (const double sum : sums) cells.push_back(time_text(sum));
  line("", "sum of the kernels", "", "", cells, speedup_text(sums.front(), sums.back()));
  cells.clear();
  std::vector<double> requests;
  for (const std::uint32_t cus : profile.cu_counts) {
    const auto request = profile.request_us_at_cu_counts.find(cus);
    requests.push_back(request == profile.request_us_at_cu_counts.end() ? 0 : request->second);
    cells.push_back(time_text(requests.back()));
  }
  line("", "whole request", "", "", cells, speedup_text(requests.front(), requests.back()));
  if (!profile.samples.empty()) {
    cells.clear();
    for (const std::uint32_t samples : profile.samples) cells.push_back(std::to_string(samples));
    line("", "requests measured", "", "", cells, "");
  }
  text += fmt::format("\nWhole request without a mask: {:.2f} us\n", profile.request_us_unmasked);
  return text;
}

std::string matching_text(const model::MatchReport& report) {
  const auto sum = [](const std::vector<std::size_t>& counts) {
    return std::accumulate(counts.begin(), counts.end(), std::size_t{0});
  };
  const auto [fewest, most] = std::minmax_element(report.requests.begin(), report.requests.end());
  return fmt::format("{} requests in {} traces ({} to {} each); {} kernels outside of requests\n",
                     sum(report.requests), report.requests.size(), *fewest, *most,
                     sum(report.outside));
}

Verification verify(const model::ProfileDocument& profile, double tolerance) {
  Verification verification;
  const auto all = model::rises(profile, 0);
  const auto above = model::rises(profile, tolerance);
  for (const model::Rise& rise : above)
    verification.text += fmt::format(
        "kernel {} ({}) takes {:.1f} % longer on {} CUs than on {}: {:.2f} us, {:.2f} us\n",
        rise.kernel, cut(profile.kernels[rise.kernel].name), rise.share() * 100, rise.to_cus,
        rise.from_cus, rise.to_us, rise.from_us);
  const auto missing = model::gaps(profile);
  for (const std::string& gap : missing) verification.text += gap + "\n";
  verification.good = above.empty() && missing.empty();
  if (all.size() > above.size())
    verification.text += fmt::format(
        "{} of {} kernels rise by at most {:.1f} %, within the tolerance; plans use monotone "
        "curves\n",
        all.size() - above.size(), profile.kernels.size(), all[above.size()].share() * 100);
  verification.text += verification.good ? "good\n" : "not good: measure again what is named\n";
  return verification;
}

}  // namespace eclip::profile
