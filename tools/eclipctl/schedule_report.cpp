#include "tools/eclipctl/schedule_report.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <set>

#include "ipc/printable.h"
#include "ipc/worker_regions.h"

namespace eclip::ctl {
namespace {

using nlohmann::json;

constexpr auto bypass_reasons = static_cast<std::size_t>(BypassReason::count);
constexpr auto switch_reasons = static_cast<std::size_t>(SwitchReason::count);

const char* name_of_class(std::uint32_t latency_class) {
  return static_cast<LatencyClass>(latency_class) == LatencyClass::latency ? "latency"
                                                                           : "throughput";
}

/// A worker's part in a plan, as the plan's document says it.
struct Part {
  std::size_t number = 0;  ///< of its worker in the plan
  std::size_t groups = 0;
  std::uint64_t kernels = 0;  ///< 0: not known
  json epoch;
  json seat;
  std::string streams;  ///< when everybody is active
};

std::optional<Part> part_of(const json& plan, std::uint64_t worker) {
  const auto workers = plan.is_object() ? plan.find("workers") : plan.end();
  if (!plan.is_object() || workers == plan.end() || !workers->is_array()) return std::nullopt;
  for (std::size_t w = 0; w < workers->size(); ++w) {
    const json& each = (*workers)[w];
    if (!each.is_object() || each.value("worker", json()) != worker) continue;
    const json groups = each.value("first_kernel_of_group", json());
    const json kernels = each.value("kernels", json());
    Part part{.number = w,
              .groups = groups.is_array() ? groups.size() : 0,
              .kernels = kernels.is_number_integer() ? kernels.get<std::uint64_t>() : 0,
              .epoch = plan.value("epoch", json()),
              .seat = each.value("seat", json()),
              .streams = {}};
    std::set<json> streams;
    const json rows = plan.value("rows", json());
    if (rows.is_array() && !rows.empty()) {
      const json::json_pointer place("/stream_of_group/" + std::to_string(w));
      if (rows.back().contains(place))
        for (const json& stream : rows.back().at(place)) streams.insert(stream);
    }
    for (const json& stream : streams)
      part.streams += (part.streams.empty() ? "" : ", ") +
                      (stream == plan.value("unmasked", json()) ? "no mask" : stream.dump());
    return part;
  }
  return std::nullopt;
}

/// Counts are the worker's own word: their sum may be past any number.
template <std::size_t N>
double sum_of(const std::array<std::uint64_t, N>& counts, std::size_t used) {
  return std::accumulate(
      counts.begin(), counts.begin() + static_cast<std::ptrdiff_t>(used), 0.0,
      [](double sum, std::uint64_t count) { return sum + static_cast<double>(count); });
}

/// "12.3 %" of a whole; "0.0 %" of nothing.
std::string share(std::uint64_t of, double whole) {
  return fmt::format("{:.1f} %", whole > 0 ? 100 * static_cast<double>(of) / whole : 0.0);
}

/// "100 active set, 20 new plan"; nothing for no switches.
std::string switches_by_reason(const ScheduleRecord& schedule) {
  std::string text;
  for (std::size_t r = 0; r < switch_reasons; ++r)
    if (schedule.switches.at(r) != 0)
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", schedule.switches.at(r),
                          name_of(static_cast<SwitchReason>(r)));
  return text;
}

/// A reason as a key: "outside_request".
std::string key_of(const char* name) {
  std::string key = name;
  std::replace(key.begin(), key.end(), ' ', '_');
  return key;
}

}  // namespace

std::string to_text(const ScheduleReport& report) {
  const ScheduleRecord& schedule = report.schedule;
  std::string text;
  const auto line = [&text](const char* label, const std::string& value) {
    text += fmt::format("{:<16} {}\n", label, value);
  };
  line("worker",
       fmt::format("{} '{}', pid {}, uid {}", report.client.worker,
                   printable(report.client.name.str()), report.client.pid, report.client.uid));
  if (const auto part = part_of(report.plan, report.client.worker)) {
    const std::string kernels = part->kernels == 0 ? "kernels that are not known"
                                                   : fmt::format("{} kernels", part->kernels);
    line("plan", fmt::format("{}: its worker {}, seat {}; {} groups of {}; stream {} when all are "
                             "active",
                             part->epoch.dump(), part->number, part->seat.dump(), part->groups,
                             kernels, part->streams));
  } else {
    line("plan", "- (no part in the plan in force; eclipctl plan shows who has one)");
  }
  if (schedule.is_scheduled == 0) {
    line("scheduled", "no: it leases streams itself");
    return text;
  }
  line("scheduled", fmt::format("yes, class {}", name_of_class(schedule.latency_class)));
  line("active now", schedule.is_active != 0 ? "yes" : "no");
  line("requests", std::to_string(schedule.requests));
  const double kernels =
      static_cast<double>(schedule.scheduled) + sum_of(schedule.bypassed, bypass_reasons);
  line("kernels",
       fmt::format("{} by the plan: {}", schedule.scheduled, share(schedule.scheduled, kernels)));
  for (std::size_t r = 0; r < bypass_reasons; ++r)
    if (schedule.bypassed.at(r) != 0)
      line("", fmt::format("{} not: {}, {}", schedule.bypassed.at(r),
                           share(schedule.bypassed.at(r), kernels),
                           name_of(static_cast<BypassReason>(r))));
  const std::string switches = switches_by_reason(schedule);
  line("switches", switches.empty() ? "0" : switches);
  line("barriers", fmt::format("{} of {} packets: {}", schedule.barriers, schedule.packets,
                               share(schedule.barriers, static_cast<double>(schedule.packets))));
  line("drift", schedule.drift_permille == 0 ? "- (no times of this plan yet)"
                                             : fmt::format("its kernels take {:.2f}x predicted",
                                                           schedule.drift_permille / 1000.0));
  return text;
}

json to_json(const ScheduleReport& report) {
  const ScheduleRecord& schedule = report.schedule;
  json root{{"worker", report.client.worker},
            {"name", report.client.name.str()},
            {"pid", report.client.pid},
            {"uid", report.client.uid},
            {"plan", nullptr},
            {"schedule", nullptr}};
  if (const auto part = part_of(report.plan, report.client.worker))
    root["plan"] = {{"epoch", part->epoch},
                    {"worker", part->number},
                    {"seat", part->seat},
                    {"groups", part->groups},
                    {"kernels", part->kernels != 0 ? json(part->kernels) : json(nullptr)},
                    {"streams_all_active", part->streams}};
  if (schedule.is_scheduled == 0) return root;
  json bypassed = json::object();
  for (std::size_t r = 0; r < bypass_reasons; ++r)
    bypassed[key_of(name_of(static_cast<BypassReason>(r)))] = schedule.bypassed.at(r);
  json switches = json::object();
  for (std::size_t r = 0; r < switch_reasons; ++r)
    switches[key_of(name_of(static_cast<SwitchReason>(r)))] = schedule.switches.at(r);
  root["schedule"] = {
      {"latency_class", name_of_class(schedule.latency_class)},
      {"active", schedule.is_active != 0},
      {"requests", schedule.requests},
      {"kernels_scheduled", schedule.scheduled},
      {"kernels_bypassed", std::move(bypassed)},
      {"switches", std::move(switches)},
      {"barriers", schedule.barriers},
      {"packets", schedule.packets},
      {"time_of_predicted",
       schedule.drift_permille != 0 ? json(schedule.drift_permille / 1000.0) : json(nullptr)}};
  return root;
}

}  // namespace eclip::ctl
