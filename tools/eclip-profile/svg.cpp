#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <tuple>

#include "tools/eclip-profile/show.h"

namespace eclip::profile {
namespace {

constexpr double width = 960;
constexpr double height = 600;
constexpr double left = 80;
constexpr double right = 620;  // the legend is beyond
constexpr double top = 60;
constexpr double bottom = 530;
constexpr std::size_t named_curves = 8;
/// Okabe and Ito's colours, which the colour-blind can tell apart.
constexpr std::array<const char*, named_curves> colours{"#e69f00", "#56b4e9", "#009e73", "#f0e442",
                                                        "#0072b2", "#d55e00", "#cc79a7", "#999933"};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      default:
        // Control characters are not allowed in XML, and bytes beyond ASCII may be no UTF-8.
        out += c >= ' ' && c <= '~' ? c : '?';
    }
  }
  return out;
}

struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;  // CUs, microseconds
  double total_us = 0;                            // of all such kernels on most CUs
  std::size_t kernels = 0;
};

/// Kernels of one name and shape with equal times are one curve.
std::vector<Curve> curves_of(const model::ProfileDocument& profile) {
  std::map<std::pair<std::string, std::vector<double>>, Curve> found;
  for (const model::KernelRow& kernel : profile.kernels) {
    Curve& curve = found[{kernel.name, kernel.time_us}];
    curve.name = kernel.name;
    ++curve.kernels;
    curve.total_us += kernel.time_us.back();
    curve.points.clear();
    for (std::size_t i = 0; i < kernel.time_us.size(); ++i)
      if (kernel.time_us[i] > 0) curve.points.emplace_back(profile.cu_counts[i], kernel.time_us[i]);
  }
  std::vector<Curve> curves;
  for (auto& [key, curve] : found)
    if (!curve.points.empty()) curves.push_back(std::move(curve));
  std::sort(curves.begin(), curves.end(), [](const Curve& a, const Curve& b) {
    return std::tuple(b.total_us, a.name) < std::tuple(a.total_us, b.name);
  });
  return curves;
}

Curve request_curve(const model::ProfileDocument& profile) {
  Curve curve{.name = "whole request", .points = {}};
  for (const auto& [cus, time_us] : profile.request_us_at_cu_counts)
    curve.points.emplace_back(cus, time_us);
  return curve;
}

/// A logarithmic axis from the place `from` to the place `to`.
class Axis {
 public:
  Axis(double least, double most, double from, double to)
      : least_(std::log(least)),
        span_(std::max(std::log(most) - std::log(least), 1e-9)),
        from_(from),
        to_(to) {}
  [[nodiscard]] double place(double value) const {
    return from_ + (std::log(value) - least_) / span_ * (to_ - from_);
  }

 private:
  double least_;
  double span_;
  double from_;
  double to_;
};

std::string line_of(const Curve& curve, const Axis& x, const Axis& y, const char* style,
                    bool marked) {
  std::string points;
  std::string marks;
  for (const auto& [cus, time_us] : curve.points) {
    points += fmt::format("{:.1f},{:.1f} ", x.place(cus), y.place(time_us));
    if (marked)
      marks += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" {}/>\n", x.place(cus),
                           y.place(time_us), style);
  }
  return fmt::format("<polyline points=\"{}\" {}/>\n{}", points, style, marks);
}

std::string text_at(double x, double y, const std::string& more, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, more, escaped(text));
}

std::string axes(const model::ProfileDocument& profile, const Axis& x, const Axis& y,
                 double least_us, double most_us) {
  std::string svg;
  const auto grid = [&svg](double x1, double y1, double x2, double y2) {
    svg += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#dddddd\"/>\n", x1,
        y1, x2, y2);
  };
  double last_label = -1e9;
  for (const std::uint32_t cus : profile.cu_counts) {
    const double place = x.place(cus);
    grid(place, top, place, bottom);
    if (place - last_label < 24) continue;
    last_label = place;
    svg += text_at(place, bottom + 18, "text-anchor=\"middle\"", std::to_string(cus));
  }
  for (double tick = std::pow(10, std::floor(std::log10(least_us))); tick <= most_us; tick *= 10) {
    if (tick < least_us) continue;
    grid(left, y.place(tick), right, y.place(tick));
    svg += text_at(left - 8, y.place(tick) + 4, "text-anchor=\"end\"", fmt::format("{:g}", tick));
  }
  svg += fmt::format(
      "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#333333\"/>\n",
      left, top, right - left, bottom - top);
  svg += text_at((left + right) / 2, bottom + 42, "text-anchor=\"middle\"", "compute units");
  svg += text_at(0, 0,
                 fmt::format("text-anchor=\"middle\" transform=\"translate(22 {}) rotate(-90)\"",
                             (top + bottom) / 2),
                 "time, microseconds");
  return svg;
}

}  // namespace

std::string svg_of(const model::ProfileDocument& profile) {
  std::vector<Curve> curves = curves_of(profile);
  const Curve request = request_curve(profile);
  // Axes end at powers of ten that hold all curves.
  double least_us = profile.request_us_unmasked;
  double most_us = profile.request_us_unmasked;
  double least_cus = profile.cu_counts.front();
  double most_cus = profile.cu_counts.back();
  const auto include = [&](const Curve& curve) {
    for (const auto& [cus, time_us] : curve.points) {
      least_us = std::min(least_us, time_us);
      most_us = std::max(most_us, time_us);
      least_cus = std::min(least_cus, cus);
      most_cus = std::max(most_cus, cus);
    }
  };
  include(request);
  for (const Curve& curve : curves) include(curve);
  least_us = std::pow(10, std::floor(std::log10(least_us)));
  most_us = std::pow(10, std::floor(std::log10(most_us)) + 1);
  const Axis x(least_cus, std::max(most_cus, least_cus * 1.01), left + 12, right - 12);
  const Axis y(least_us, most_us, bottom, top);

  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{0}\" height=\"{1}\" "
      "fill=\"white\"/>\n",
      width, height);
  svg += text_at(left, 28, "font-size=\"17\"",
                 fmt::format("{}, batch {}: time of each kernel against compute units",
                             profile.model, profile.batch));
  svg += text_at(left, 48, "fill=\"#555555\"",
                 fmt::format("measured on {}; {} kernels, {} different", profile.device_name,
                             profile.kernels.size(), curves.size()));
  svg += axes(profile, x, y, least_us, most_us);
  const std::size_t named = std::min(named_curves, curves.size());
  for (std::size_t i = named; i < curves.size(); ++i)
    svg += line_of(curves[i], x, y, "fill=\"none\" stroke=\"#bbbbbb\" stroke-width=\"0.7\"", false);
  double legend = top + 12;
  const auto entry = [&](const std::string& style, const std::string& text) {
    svg += fmt::format("<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" {}/>\n", right + 16,
                       legend - 4, right + 36, legend - 4, style);
    svg += text_at(right + 42, legend, "", text);
    legend += 20;
  };
  const std::string request_style = "fill=\"none\" stroke=\"black\" stroke-width=\"2.5\"";
  svg += line_of(request, x, y, request_style.c_str(), true);
  entry(request_style, "whole request");
  for (std::size_t i = 0; i < named; ++i) {
    const Curve& curve = curves[i];
    const std::string style =
        fmt::format("fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"", colours[i]);
    svg += line_of(curve, x, y, style.c_str(), true);
    entry(style,
          fmt::format("{} x {}", curve.kernels,
                      curve.name.size() > 32 ? curve.name.substr(0, 29) + "..." : curve.name));
  }
  if (curves.size() > named)
    entry("stroke=\"#bbbbbb\" stroke-width=\"0.7\"",
          fmt::format("{} others", curves.size() - named));
  svg += text_at(right + 16, legend + 8, "fill=\"#555555\"", "named: most time on most CUs");
  return svg + "</svg>\n";
}

}  // namespace eclip::profile
