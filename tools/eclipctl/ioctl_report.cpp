#include "tools/eclipctl/ioctl_report.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "ipc/kfd_command.h"
#include "ipc/printable.h"
#include "tools/eclipctl/budget_report.h"
#include "tools/text/table.h"

namespace eclip::ctl {
namespace {

using nlohmann::json;

constexpr std::size_t bucket_count = std::tuple_size_v<decltype(IoctlRecord::buckets)>;

/// One command's cost, of one process or several.
struct Cost {
  std::uint32_t number = 0;
  std::uint64_t count = 0;
  std::uint64_t errors = 0;
  std::uint64_t total_ns = 0;
  std::uint64_t errors_ns = 0;
  std::uint64_t max_ns = 0;
  std::array<std::uint64_t, bucket_count> buckets{};

  void add(const IoctlRecord& record) {
    count += record.count;
    errors += record.errors;
    total_ns += record.total_ns;
    errors_ns += record.errors_ns;
    max_ns = std::max(max_ns, record.max_ns);
    for (std::size_t i = 0; i < bucket_count; ++i) buckets.at(i) += record.buckets.at(i);
  }
  [[nodiscard]] double mean_ns() const {
    return static_cast<double>(total_ns) / static_cast<double>(std::max<std::uint64_t>(count, 1));
  }
  /// Of the calls that succeeded: a call that is refused at once tells nothing.
  [[nodiscard]] double mean_success_ns() const {
    return static_cast<double>(total_ns - errors_ns) /
           static_cast<double>(std::max<std::uint64_t>(count - errors, 1));
  }
  /// At least this part of the calls took less: the end of a bucket, so up to twice too much.
  [[nodiscard]] std::uint64_t quantile_ns(double part) const {
    std::uint64_t in_buckets = 0;
    for (const auto bucket : buckets) in_buckets += bucket;
    const auto wanted =
        static_cast<std::uint64_t>(std::ceil(part * static_cast<double>(in_buckets)));
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < bucket_count; ++i)
      if ((sum += buckets.at(i)) >= wanted && i + 1 < bucket_count)
        return std::min(std::uint64_t{2} << i, max_ns);
    return max_ns;
  }
};

/// The most expensive first.
std::vector<Cost> by_command(const IoctlReport& report) {
  std::map<std::uint32_t, Cost> costs;
  for (const auto& record : report.records) {
    if (report.pid && record.pid != *report.pid) continue;
    costs[record.number].number = record.number;
    costs[record.number].add(record);
  }
  std::vector<Cost> sorted;
  sorted.reserve(costs.size());
  for (const auto& [number, cost] : costs) sorted.push_back(cost);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Cost& a, const Cost& b) { return a.total_ns > b.total_ns; });
  return sorted;
}

/// Mask changes of all processes.
std::optional<Cost> mask_change(const IoctlReport& report) {
  Cost cost;
  for (const auto& record : report.records)
    if (record.number == static_cast<std::uint32_t>(KfdCommand::set_cu_mask)) cost.add(record);
  return cost.count == cost.errors ? std::nullopt : std::optional(cost);
}

double avoided_s(const Cost& mask_change, std::uint64_t dispatches) {
  return static_cast<double>(dispatches) * mask_change.mean_success_ns() / 1e9;
}

std::string format_histogram(const Cost& cost) {
  const auto first =
      std::find_if(cost.buckets.begin(), cost.buckets.end(), [](auto count) { return count != 0; });
  const auto last = std::find_if(cost.buckets.rbegin(), cost.buckets.rend(), [](auto count) {
                      return count != 0;
                    }).base();
  const std::uint64_t most = *std::max_element(cost.buckets.begin(), cost.buckets.end());
  std::string text = fmt::format("\n{}\n", name_of_kfd_command(cost.number));
  constexpr std::uint64_t width = 40;
  for (auto bucket = first; bucket < last; ++bucket) {
    const auto exponent = static_cast<unsigned>(bucket - cost.buckets.begin());
    const auto stars = static_cast<std::size_t>((*bucket * width + most - 1) / most);
    text += fmt::format(
        "  {:>8} .. {:>8} {:>10}{}{}\n", text::format_ns(std::uint64_t{1} << exponent),
        exponent + 1 < bucket_count ? text::format_ns(std::uint64_t{2} << exponent) : "more",
        *bucket, stars == 0 ? "" : " ", std::string(stars, '*'));
  }
  return text;
}

/// A process's figures for each second of the interval.
struct Rates {
  const KfdProcessRecord* process;
  double ioctls_per_s;
  double busy;  ///< time in ioctls that have returned since, but WAIT_EVENTS, of the interval
};

std::vector<Rates> rates_of(const IoctlTop& top) {
  std::vector<Rates> rates;
  for (const auto& now : top.now) {
    const auto before = std::find_if(top.before.begin(), top.before.end(),
                                     [&](const auto& each) { return each.pid == now.pid; });
    const bool known = before != top.before.end() && before->ioctls <= now.ioctls &&
                       before->total_ns <= now.total_ns;
    const std::uint64_t ioctls = now.ioctls - (known ? before->ioctls : 0);
    const std::uint64_t ns = now.total_ns - (known ? before->total_ns : 0);
    rates.push_back({.process = &now,
                     .ioctls_per_s = static_cast<double>(ioctls) / top.interval.count(),
                     .busy = static_cast<double>(ns) / 1e9 / top.interval.count()});
  }
  std::stable_sort(rates.begin(), rates.end(),
                   [](const Rates& a, const Rates& b) { return a.ioctls_per_s > b.ioctls_per_s; });
  return rates;
}

}  // namespace

std::string to_text(const IoctlReport& report) {
  const auto costs = by_command(report);
  if (costs.empty())
    return report.pid ? fmt::format(
                            "process {} has made no KFD ioctl since eclipd's start, or has ended\n",
                            *report.pid)
                      : "no KFD ioctl since eclipd's start\n";
  text::Table table({{"COMMAND"},
                     {"COUNT", text::Align::right},
                     {"ERRORS", text::Align::right},
                     {"TOTAL", text::Align::right},
                     {"MEAN", text::Align::right},
                     {"P50 <", text::Align::right},
                     {"P99 <", text::Align::right},
                     {"MAX", text::Align::right}});
  for (const Cost& cost : costs)
    table.add({name_of_kfd_command(cost.number), std::to_string(cost.count),
               std::to_string(cost.errors), text::format_ns(cost.total_ns),
               text::format_ns(static_cast<std::uint64_t>(cost.mean_ns())),
               text::format_ns(cost.quantile_ns(0.5)), text::format_ns(cost.quantile_ns(0.99)),
               text::format_ns(cost.max_ns)});
  std::string text = table.to_string();
  for (const Cost& cost : costs) text += format_histogram(cost);
  if (const auto change = mask_change(report); change && !report.pid)
    text += fmt::format(
        "\nioctls avoided: {} dispatches since start x {} for a mask change (mean of {}) = {}\n",
        report.dispatches, text::format_ns(static_cast<std::uint64_t>(change->mean_success_ns())),
        change->count - change->errors,
        text::format_ns(static_cast<std::uint64_t>(avoided_s(*change, report.dispatches) * 1e9)));
  return text;
}

json to_json(const IoctlReport& report) {
  json commands = json::array();
  for (const Cost& cost : by_command(report))
    commands.push_back({{"command", name_of_kfd_command(cost.number)},
                        {"number", cost.number},
                        {"count", cost.count},
                        {"errors", cost.errors},
                        {"total_ns", cost.total_ns},
                        {"max_ns", cost.max_ns},
                        {"log2_ns_buckets", cost.buckets}});
  const auto change = mask_change(report);
  return {{"pid", report.pid ? json(*report.pid) : json(nullptr)},
          {"commands", commands},
          {"avoided",
           {{"dispatches", report.dispatches},
            {"mask_change_mean_ns", change ? json(change->mean_success_ns()) : json(nullptr)},
            {"seconds", change ? json(avoided_s(*change, report.dispatches)) : json(nullptr)}}}};
}

std::string to_text(const IoctlTop& top) {
  text::Table table({{"PID", text::Align::right},
                     {"COMMAND"},
                     {"ROLE"},
                     {"UID", text::Align::right},
                     {"QUEUES", text::Align::right},
                     {"MASKED", text::Align::right},
                     {"IOCTLS", text::Align::right},
                     {"ERRORS", text::Align::right},
                     {"IOCTLS/S", text::Align::right},
                     {"TIME IN THEM", text::Align::right}});
  for (const Rates& rates : rates_of(top)) {
    const KfdProcessRecord& process = *rates.process;
    table.add({std::to_string(process.pid), printable(process.command.str()),
               name_of_role(process.role), std::to_string(process.uid),
               std::to_string(process.queues), std::to_string(process.masked_queues),
               std::to_string(process.ioctls), std::to_string(process.errors),
               fmt::format("{:.1f}", rates.ioctls_per_s),
               fmt::format("{:.1f}%", 100 * rates.busy)});
  }
  return table.to_string();
}

json to_json(const IoctlTop& top) {
  json list = json::array();
  for (const Rates& rates : rates_of(top)) {
    const KfdProcessRecord& process = *rates.process;
    json line = holder_json(process);
    line["queues_elsewhere"] = process.queues_elsewhere;
    line["ioctls"] = process.ioctls;
    line["errors"] = process.errors;
    line["ioctls_per_s"] = rates.ioctls_per_s;
    line["time_in_ioctls"] = rates.busy;
    list.push_back(std::move(line));
  }
  return list;
}

}  // namespace eclip::ctl
