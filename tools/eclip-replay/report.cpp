#include "tools/eclip-replay/report.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

namespace eclip::replay {
namespace {

double in_ms(std::chrono::nanoseconds host, double device_time_rate) {
  return std::chrono::duration<double, std::milli>(host).count() * device_time_rate;
}

std::int64_t since_boot(HostClock::time_point time) {
  return std::chrono::nanoseconds(time.time_since_epoch()).count();
}

}  // namespace

Latency summarise(std::span<const std::chrono::nanoseconds> latencies, double device_time_rate) {
  if (latencies.empty()) return {};
  std::vector<std::chrono::nanoseconds> sorted(latencies.begin(), latencies.end());
  std::sort(sorted.begin(), sorted.end());
  const auto percentile = [&](double share) {
    const auto rank =
        static_cast<std::size_t>(std::ceil(share * static_cast<double>(sorted.size()) - 1e-9));
    return in_ms(sorted[std::clamp<std::size_t>(rank, 1, sorted.size()) - 1], device_time_rate);
  };
  const auto sum = std::accumulate(sorted.begin(), sorted.end(), std::chrono::nanoseconds(0));
  return {.mean_ms = in_ms(sum, device_time_rate) / static_cast<double>(sorted.size()),
          .p50_ms = percentile(0.50),
          .p95_ms = percentile(0.95),
          .p99_ms = percentile(0.99),
          .max_ms = percentile(1)};
}

Report make_report(const Options& options, const model::Profile& profile, const Program& program,
                   const eclip_gpu& gpu, const Work& work, const Measurement& measurement) {
  Report report;
  report.name = options.name;
  report.model = profile.model;
  report.batch = profile.batch;
  report.gpu = gpu.name;
  report.simulated = report.gpu.find("simulated") != std::string::npos;
  report.device_time_rate = gpu.device_time_rate;
  report.arrivals = options.poisson_rate ? fmt::format("poisson:{}", *options.poisson_rate)
                                         : std::string("closed");
  report.requests = measurement.latencies.size();
  report.unmeasured_requests = measurement.unmeasured;
  const double device_s = in_ms(measurement.end - measurement.begin, gpu.device_time_rate) / 1000;
  if (device_s > 0) report.throughput_rps = static_cast<double>(report.requests) / device_s;
  report.latency = summarise(measurement.latencies, gpu.device_time_rate);
  report.kernels_per_request = program.order.size();
  report.distinct_kernels = program.shapes.size();
  report.packets = work.packets;
  report.switches = work.switches;
  report.streams = work.streams;
  report.scheduler = work.scheduler;
  report.first_request_ns = since_boot(measurement.begin);
  report.last_request_ns = since_boot(measurement.end);
  report.mix = work.mix;
  report.session = work.session;
  report.interrupted = measurement.interrupted;
  return report;
}

nlohmann::json to_json(const Report& report) {
  nlohmann::json streams = nlohmann::json::array();
  for (const Work::Stream& stream : report.streams)
    streams.push_back({{"stream", stream.stream}, {"cu_count", stream.cu_count}});
  nlohmann::json scheduler = nullptr;
  if (report.scheduler)
    scheduler = {{"scheduled", report.scheduler->scheduled},
                 {"bypassed", report.scheduler->bypassed},
                 {"switches", report.scheduler->switches},
                 {"barriers", report.scheduler->barriers},
                 {"plan_epoch", report.scheduler->plan_epoch}};
  nlohmann::json mix = nullptr;
  if (report.mix) {
    // As text: 64 bits do not fit a JSON number of many readers.
    mix = {{"value", fmt::format("{:016x}", report.mix->value)},
           {"expected", fmt::format("{:016x}", report.mix->expected)},
           {"matches", report.mix->matches()}};
  }
  nlohmann::json session = nullptr;
  if (report.session)
    session = {{"done", report.session->done},
               {"failed", report.session->failed},
               {"without_eclipd", report.session->without_eclipd},
               {"reattachments", report.session->reattachments},
               {"losses_ns", report.session->losses_ns}};
  return {{"schema", "eclip.replay/1"},
          {"name", report.name},
          {"model", report.model},
          {"batch", report.batch},
          {"gpu", report.gpu},
          {"simulated", report.simulated},
          {"device_time_rate", report.device_time_rate},
          {"arrivals", report.arrivals},
          {"requests", report.requests},
          {"unmeasured_requests", report.unmeasured_requests},
          {"throughput_rps", report.throughput_rps},
          {"latency_ms",
           {{"mean", report.latency.mean_ms},
            {"p50", report.latency.p50_ms},
            {"p95", report.latency.p95_ms},
            {"p99", report.latency.p99_ms},
            {"max", report.latency.max_ms}}},
          {"kernels_per_request", report.kernels_per_request},
          {"distinct_kernels", report.distinct_kernels},
          {"packets", report.packets},
          {"switches", report.switches},
          {"streams", streams},
          {"scheduler", scheduler},
          {"host_monotonic_ns",
           {{"first_request", report.first_request_ns}, {"last_request", report.last_request_ns}}},
          {"mix", mix},
          {"session", session},
          {"interrupted", report.interrupted}};
}

std::string to_text(const Report& report) {
  std::string text;
  const auto line = [&text](const char* label, const std::string& value) {
    text += fmt::format("{:<12} {}\n", label, value);
  };
  line("worker", report.name);
  line("model", fmt::format("{}, batch {}: {} kernels a request, {} distinct", report.model,
                            report.batch, report.kernels_per_request, report.distinct_kernels));
  line("GPU", report.gpu + (report.simulated ? " (all figures are simulated)" : ""));
  std::string streams;
  for (const Work::Stream& stream : report.streams)
    streams +=
        fmt::format("{}#{} ({} CUs)", streams.empty() ? "" : ", ", stream.stream, stream.cu_count);
  if (report.scheduler)
    line("streams",
         fmt::format("by plan {}: {} kernels scheduled, {} bypassed, {} switches, {} barriers",
                     report.scheduler->plan_epoch, report.scheduler->scheduled,
                     report.scheduler->bypassed, report.scheduler->switches,
                     report.scheduler->barriers));
  else
    line("streams", fmt::format("{}; {} switches", streams, report.switches));
  line("arrivals", report.arrivals);
  line("requests", fmt::format("{} measured, {} not{}", report.requests, report.unmeasured_requests,
                               report.interrupted ? "; interrupted" : ""));
  if (report.session)
    line("session",
         fmt::format("{} requests done, {} failed, {} without eclipd; attached again {} times",
                     report.session->done, report.session->failed, report.session->without_eclipd,
                     report.session->reattachments));
  line("packets", std::to_string(report.packets));
  line("throughput", fmt::format("{:.1f} requests/s", report.throughput_rps));
  const Latency& latency = report.latency;
  line("latency", fmt::format("mean {:.3f}, p50 {:.3f}, p95 {:.3f}, p99 {:.3f}, max {:.3f} ms",
                              latency.mean_ms, latency.p50_ms, latency.p95_ms, latency.p99_ms,
                              latency.max_ms));
  if (report.device_time_rate < 0.99)
    line("time",
         fmt::format("device time, which runs at {:.4f} of host time", report.device_time_rate));
  if (report.mix)
    line("mix", fmt::format("{:016x}, {}", report.mix->value,
                            report.mix->matches() ? "as serial execution gives"
                                                  : "NOT what serial execution gives"));
  return text;
}

}  // namespace eclip::replay
