#include "tools/eclip-bench/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libeclip/scheduler.h"

namespace eclip::bench {
namespace {

double micros(model::DeviceTime time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

}  // namespace

void Trace::ran(std::size_t worker, std::uint32_t stream, std::uint32_t kernel,
                model::DeviceTime start, model::DeviceTime end) {
  if (ran_.size() < most_events)
    ran_.push_back({static_cast<std::uint32_t>(worker), stream, kernel, start, end});
}

void Trace::active_set(std::uint32_t workers, model::DeviceTime at) {
  if (active_.size() < most_events) active_.push_back({workers, at});
}

std::string Trace::json() const {
  using nlohmann::json;
  json events = json::array();
  std::vector<bool> named(PacketSink::unmasked + 1, false);
  for (const Ran& ran : ran_) {
    if (!named[ran.stream]) {
      named[ran.stream] = true;
      const std::string name =
          ran.stream == PacketSink::unmasked ? "no mask" : fmt::format("stream {}", ran.stream);
      events.push_back(
          {{"ph", "M"}, {"name", "process_name"}, {"pid", ran.stream}, {"args", {{"name", name}}}});
      for (std::size_t w = 0; w < names_.size(); ++w)
        events.push_back({{"ph", "M"},
                          {"name", "thread_name"},
                          {"pid", ran.stream},
                          {"tid", w},
                          {"args", {{"name", fmt::format("{} {}", w, names_[w])}}}});
    }
    events.push_back({{"ph", "X"},
                      {"name", ran.kernel == 0 ? std::string("barrier")
                                               : fmt::format("kernel {}", ran.kernel - 1)},
                      {"pid", ran.stream},
                      {"tid", ran.worker},
                      {"ts", micros(ran.start)},
                      {"dur", micros(ran.end - ran.start)}});
  }
  const model::DeviceTime last = ran_.empty() ? model::DeviceTime{} : ran_.back().end;
  for (const Active& active : active_) {
    if (active.at > last) break;
    json args;
    for (std::size_t w = 0; w < names_.size(); ++w)
      args[fmt::format("{} {}", w, names_[w])] = active.workers >> w & 1U;
    events.push_back({{"ph", "C"},
                      {"name", "active"},
                      {"pid", PacketSink::unmasked + 1},
                      {"ts", micros(active.at)},
                      {"args", std::move(args)}});
  }
  return json{{"traceEvents", std::move(events)},
              {"displayTimeUnit", "ms"},
              {"otherData", {{"simulated", true}}}}
             .dump() +
         "\n";
}

}  // namespace eclip::bench
