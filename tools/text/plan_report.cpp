#include "tools/text/plan_report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <vector>

#include "tools/text/table.h"

namespace eclip::text {
namespace {

using nlohmann::json;

/// The value at a JSON pointer; null when there is none.
json at(const json& from, const std::string& pointer) {
  const json::json_pointer place(pointer);
  return from.contains(place) ? from.at(place) : json();
}

std::size_t size_of(const json& list) {
  return list.is_array() ? list.size() : 0;
}

std::optional<double> number(const json& from, const std::string& pointer) {
  const json value = at(from, pointer);
  return value.is_number() ? std::optional(value.get<double>()) : std::nullopt;
}

std::string word(const json& from, const std::string& pointer) {
  const json value = at(from, pointer);
  return value.is_string() ? value.get<std::string>() : "";
}

/// With so many decimals, after division by `unit`; empty for no number.
std::string decimal(std::optional<double> value, int decimals, double unit = 1) {
  return value ? fmt::format("{:.{}f}", *value / unit, decimals) : "";
}

/// "0+2": the workers of a set.
std::string set_name(const json& set, std::size_t workers) {
  if (!set.is_number_unsigned()) return "";
  std::string text;
  for (std::size_t w = 0; w < workers; ++w)
    if (set.get<std::uint64_t>() >> w & 1U) text += (text.empty() ? "" : "+") + std::to_string(w);
  return text;
}

std::string stream_name(const json& stream, const json& unmasked) {
  return stream == unmasked ? "no mask" : stream.dump();
}

/// "0", or "0 x12, 3 x4, 0 x7" for a worker that switches: stream and groups in a row.
std::string runs_of(const json& streams, const json& unmasked) {
  std::string text;
  for (std::size_t first = 0; first < size_of(streams);) {
    std::size_t end = first;
    while (end < streams.size() && streams[end] == streams[first]) ++end;
    std::string name = stream_name(streams[first], unmasked);
    if (first == 0 && end == streams.size()) return name;
    text += fmt::format("{}{} x{}", first == 0 ? "" : ", ", name, end - first);
    first = end;
  }
  return text;
}

std::size_t switches_of(const json& streams) {
  std::size_t switches = 0;
  for (std::size_t g = 1; g < size_of(streams); ++g)
    if (streams[g] != streams[g - 1]) ++switches;
  return switches;
}

/// "0: 1; 2: no mask": worker and its stream.
std::string streams_of(const json& row, const json& unmasked) {
  const json streams = at(row, "/stream_of_group");
  std::string text;
  for (std::size_t w = 0; w < size_of(streams); ++w)
    if (size_of(streams[w]) > 0)
      text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", w, runs_of(streams[w], unmasked));
  return text;
}

/// The row of all workers at once; null when there is none.
json last_row(const json& plan) {
  const json rows = at(plan, "/rows");
  return size_of(rows) > 0 ? rows.back() : json();
}

/// The value of all workers at once, of a row or a candidate: simulated where it was.
std::optional<double> judged(const json& from, const char* predicted) {
  const auto simulated = number(from, "/simulated_value");
  return simulated && *simulated > 0 ? simulated : number(from, predicted);
}

std::string heading(const json& plan) {
  std::string text;
  if (const auto epoch = number(plan, "/epoch")) {
    text += fmt::format("Plan {:.0f}", *epoch);
    if (at(plan, "/in_force") == true) text += ", in force";
    if (at(plan, "/pinned") == true) text += ", pinned";
    if (const auto made = number(plan, "/made_at"))
      text += fmt::format("; since {:%Y-%m-%d %H:%M:%S}",
                          fmt::localtime(static_cast<std::time_t>(*made)));
    if (const std::string reason = word(plan, "/reason"); !reason.empty()) text += ": " + reason;
    text += "\n\n";
  }
  return text;
}

const char* meaning_of(const std::string& objective) {
  if (objective == "latency") return "mean slowdown relative to the whole GPU alone";
  if (objective == "throughput") return "harmonic mean slowdown relative to the whole GPU alone";
  if (objective == "energy") return "mean energy of a request relative to the whole GPU alone";
  return "unknown objective";
}

/// `relative`: its value by that of the plan's row.
std::string why_not(double relative, bool by_arrivals) {
  if (relative > 1.001) return fmt::format("{:.1f} % worse", 100 * (relative - 1));
  if (relative > 0.999) return "as good for all at once; the plan also has rows for idle workers";
  return fmt::format("{:.1f} % better for all at once, but worse {}", 100 * (1 - relative),
                     by_arrivals ? "with requests that arrive at random"
                                 : "over the active sets, in p95 or in throughput");
}

std::string rejected(const json& plan) {
  const json candidates = at(plan, "/candidates");
  if (size_of(candidates) == 0) return "";
  const json row = last_row(plan);
  const auto own = judged(row, "/value");
  Table table({{"REJECTED"}, {"VALUE", Align::right}, {"WHY"}});
  for (const json& candidate : candidates) {
    const auto value = judged(candidate, "/all_active_value");
    table.add({word(candidate, "/name"), decimal(value, 3),
               value && own ? why_not(*value / *own, at(row, "/by_arrivals") == true) : ""});
  }
  return "\nAll workers at once: " + decimal(own, 3) + ". Rejected:\n\n" + table.to_string();
}

std::string late(const json& plan, std::size_t workers) {
  const json violations = at(plan, "/violations");
  if (size_of(violations) == 0) return "";
  Table table({{"ACTIVE"},
               {"LATE", Align::right},
               {"REQUEST MS", Align::right},
               {"BOUND MS", Align::right}});
  for (const json& each : violations)
    table.add({set_name(at(each, "/active"), workers), decimal(number(each, "/worker"), 0),
               decimal(number(each, "/request_us"), 2, 1000),
               decimal(number(each, "/latency_bound_us"), 2, 1000)});
  return "\nLatency bounds that no plan found keeps; these rows come closest:\n\n" +
         table.to_string();
}

}  // namespace

std::string plan_table(const json& plan) {
  const json workers = at(plan, "/workers");
  const json unmasked = at(plan, "/unmasked");
  const json pool = at(plan, "/pool/streams");
  std::string text = heading(plan) + fmt::format("Pool '{}': {} CU-masked streams\n\n",
                                                 word(plan, "/pool/name"), size_of(pool));
  Table streams({{"STREAM", Align::right}, {"LEAVES OF"}, {"CUS", Align::right}, {"MASK"}});
  for (std::size_t s = 0; s < size_of(pool); ++s)
    streams.add({std::to_string(s), set_name(at(pool[s], "/leaves"), size_of(workers)),
                 decimal(number(pool[s], "/cus"), 0), word(pool[s], "/cu_list")});
  text += streams.to_string();
  if (const auto pruned = number(plan, "/pool/pruned_unions"); pruned && *pruned > 0)
    text += fmt::format("{:.0f} useful unions of leaves did not fit into the budget.\n", *pruned);

  Table who({{"WORKER", Align::right},
             {"NAME"},
             {"PROFILE"},
             {"RATE /S", Align::right},
             {"ACTIVE %", Align::right},
             {"GROUPS", Align::right}});
  for (std::size_t w = 0; w < size_of(workers); ++w) {
    const auto rate = number(workers[w], "/requests_per_s");
    who.add({std::to_string(w), word(workers[w], "/name"), word(workers[w], "/profile"),
             rate && *rate > 0 ? decimal(rate, 1) : "at once",
             decimal(number(workers[w], "/activity"), 0, 0.01),
             std::to_string(size_of(at(workers[w], "/first_kernel_of_group")))});
  }
  text += "\n" + who.to_string();

  Table rows({{"ACTIVE"}, {"STREAM OF EACH WORKER"}, {"VALUE", Align::right}});
  for (const json& row : at(plan, "/rows"))
    rows.add({set_name(at(row, "/active"), size_of(workers)), streams_of(row, unmasked),
              decimal(number(row, "/value"), 3)});
  return text + "\n" + rows.to_string();
}

std::string plan_explanation(const json& plan) {
  const json workers = at(plan, "/workers");
  const json row = last_row(plan);
  const json candidates = at(plan, "/candidates");
  const auto idle_watts = number(plan, "/idle_watts");
  Table table({{"WORKER", Align::right},
               {"PROFILE"},
               {"STREAM"},
               {"SWITCHES", Align::right},
               {"PREDICTED MS", Align::right},
               {"SIMULATED MS", Align::right},
               {"ALONE MS", Align::right},
               {"NO MASKS MS", Align::right},
               {"AT HOME MS", Align::right},
               {"ENERGY J", Align::right}});
  for (std::size_t w = 0; w < size_of(workers); ++w) {
    const std::string index = "/" + std::to_string(w);
    const json streams = at(row, "/stream_of_group" + index);
    const auto request_us = number(row, "/request_us" + index);
    auto energy = number(row, "/joules" + index);
    if (energy && idle_watts && request_us)  // its own, and an equal share of the idle power
      *energy += *idle_watts * *request_us * 1e-6 / static_cast<double>(workers.size());
    const auto other_ms = [&](std::size_t candidate) {
      return decimal(number(candidates, "/" + std::to_string(candidate) + "/request_us" + index), 2,
                     1000);
    };
    table.add({std::to_string(w), word(workers[w], "/profile"),
               runs_of(streams, at(plan, "/unmasked")), std::to_string(switches_of(streams)),
               decimal(request_us, 2, 1000), decimal(number(row, "/simulated_us" + index), 2, 1000),
               decimal(number(workers[w], "/alone_us"), 2, 1000), other_ms(0), other_ms(1),
               decimal(energy, 2)});
  }
  std::string text =
      heading(plan) + "All workers at once; times and energy of a request:\n\n" + table.to_string();
  if (const auto watts = number(row, "/watts"))
    text += fmt::format("Mean power {:.0f} W.\n", *watts);
  text += rejected(plan) + late(plan, size_of(workers));
  const std::string objective = word(plan, "/objective");
  const auto value = number(plan, "/value");
  const auto bound = number(plan, "/lower_bound");
  text += fmt::format("\n{} ({}), expected over the active sets: {}", objective,
                      meaning_of(objective), decimal(value, 3));
  if (value && bound && *bound > 0)
    text += fmt::format("; no plan on this pool is below {:.3f} (gap {:.0f} %)", *bound,
                        100 * (*value / *bound - 1));
  text += ".\n";
  if (at(plan, "/complete") == false) text += "The search ran out of time.\n";
  return text;
}

std::string plan_difference(const json& from, const json& to) {
  std::string text;
  const auto compare = [&](const std::string& what, const std::string& before,
                           const std::string& after) {
    if (before != after)
      text += fmt::format("{}: {} -> {}\n", what, before.empty() ? "-" : before,
                          after.empty() ? "-" : after);
  };
  const auto pool_of = [](const json& plan) {
    std::string masks;
    for (const json& stream : at(plan, "/pool/streams"))
      masks += (masks.empty() ? "" : " | ") + word(stream, "/cu_list");
    return masks;
  };
  compare("pool", pool_of(from), pool_of(to));
  const json before = at(from, "/workers");
  const json after = at(to, "/workers");
  const auto worker_of = [](const json& worker) {
    const std::string profile = word(worker, "/profile");
    return word(worker, "/name") + (profile.empty() ? "" : " (" + profile + ")");
  };
  for (std::size_t w = 0; w < std::max(size_of(before), size_of(after)); ++w) {
    const std::string index = "/" + std::to_string(w);
    compare(fmt::format("worker {}", w), worker_of(at(before, index)), worker_of(at(after, index)));
  }
  const json old_rows = at(from, "/rows");
  const json new_rows = at(to, "/rows");
  for (std::size_t r = 0; r < std::max(size_of(old_rows), size_of(new_rows)); ++r) {
    const json old_row = r < size_of(old_rows) ? old_rows[r] : json();
    const json new_row = r < size_of(new_rows) ? new_rows[r] : json();
    compare("active " + set_name(json(r + 1), std::max(size_of(before), size_of(after))),
            streams_of(old_row, at(from, "/unmasked")), streams_of(new_row, at(to, "/unmasked")));
  }
  compare("value", decimal(number(from, "/value"), 3), decimal(number(to, "/value"), 3));
  return text.empty() ? "No difference.\n" : text;
}

}  // namespace eclip::text
