#include "tools/eclip-profile/import.h"

#include <fmt/core.h>

#include <charconv>

#include "ipc/cu_mask.h"
#include "ipc/read_file.h"

namespace eclip::profile {
namespace {

/// Takes over what a file says of the device, and checks it against what is known.
Result<void> merge_device(const ForeignTrace& trace, model::ProfileDocument& profile) {
  const auto differs = [&](const std::string& here, const std::string& before) {
    return fail(
        Errc::invalid_argument,
        fmt::format("{}: measured on {}, the files before on {}; import files of one device",
                    trace.trace.source, here, before));
  };
  if (!trace.device_name.empty()) {
    if (!profile.device_name.empty() && profile.device_name != trace.device_name)
      return differs(trace.device_name, profile.device_name);
    profile.device_name = trace.device_name;
  }
  if (trace.device_cus != 0) {
    if (profile.device_compute_units != 0 && profile.device_compute_units != trace.device_cus)
      return differs(fmt::format("{} CUs", trace.device_cus),
                     fmt::format("{} CUs", profile.device_compute_units));
    profile.device_compute_units = trace.device_cus;
  }
  return {};
}

Result<void> describe_device(const ImportOptions& options, const model::ProfileDocument& stated,
                             model::ProfileDocument& profile) {
  profile.device_name = options.device_name.empty() ? stated.device_name : options.device_name;
  profile.device_compute_units =
      options.device_cus == 0 ? stated.device_compute_units : options.device_cus;
  if (profile.device_name.empty() || profile.device_compute_units == 0)
    return fail(Errc::invalid_argument,
                "the trace does not say on which device it was measured; give --device NAME and "
                "--device-cus N");
  if (profile.cu_counts.back() > profile.device_compute_units)
    return fail(
        Errc::invalid_argument,
        fmt::format("a file was measured on {} CUs, and {} has {}; correct FILE@CUS or "
                    "--device-cus",
                    profile.cu_counts.back(), profile.device_name, profile.device_compute_units));
  return {};
}

}  // namespace

Result<TraceFile> parse_trace_file(std::string_view text) {
  const std::size_t at = text.rfind('@');
  TraceFile file;
  if (at != std::string_view::npos && at > 0) {
    const char* end = text.data() + text.size();
    const auto [last, error] = std::from_chars(text.data() + at + 1, end, file.cus);
    if (error == std::errc() && last == end && file.cus >= 1 && file.cus <= CuMask::max_size) {
      file.path = text.substr(0, at);
      return file;
    }
  }
  return fail(Errc::invalid_argument,
              fmt::format("'{}' is not FILE@CUS; say on how many CUs it was measured, 1 to {}: "
                          "trace.csv@60",
                          text, CuMask::max_size));
}

Result<Imported> import_traces(const ImportOptions& options) {
  model::ProfileDocument stated;
  std::vector<model::Trace> traces;
  for (const TraceFile& file : options.files) {
    const auto text = read_file(file.path);
    if (!text) return fail(text.error(), "trace " + file.path.string());
    const std::string source = file.path.string();
    auto trace = options.format == TraceFormat::rocprof
                     ? parse_rocprof(*text, source, options.only_gpu)
                     : parse_kineto(*text, source, options.only_gpu);
    if (!trace) return tl::unexpected(trace.error());
    if (auto merged = merge_device(*trace, stated); !merged) return tl::unexpected(merged.error());
    trace->trace.cus = file.cus;
    traces.push_back(std::move(trace->trace));
  }
  Imported imported;
  auto profile = model::profile_from_traces(traces, options.match, imported.report);
  if (!profile) return tl::unexpected(profile.error());
  imported.profile = std::move(*profile);
  if (auto described = describe_device(options, stated, imported.profile); !described)
    return tl::unexpected(described.error());
  imported.profile.model = options.model;
  imported.profile.batch = options.batch;
  imported.profile.precision = options.precision;
  imported.profile.note =
      fmt::format("eclip-profile import of {} {} traces", traces.size(),
                  options.format == TraceFormat::rocprof ? "rocprof" : "kineto");
  if (imported.report.overlaps > 0)
    imported.remarks.push_back(
        fmt::format("{} kernels began before the one before ended: their times are not those of "
                    "kernels alone; trace with one stream, serialised",
                    imported.report.overlaps));
  return imported;
}

}  // namespace eclip::profile
